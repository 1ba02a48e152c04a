//! How fast one account of a forge may be used: a function of what was sent, of what the forge said, and of the time.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};

/// Longest pause; who asks for more is asked again after it.
const LONGEST: Duration = Duration::from_secs(3600);
/// First pause where the forge does not say how long; doubled each time until it takes something.
const FIRST: Duration = Duration::from_secs(60);

/// At most `most` requests in any `span`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Its length.
    pub(super) span: SignedDuration,
    /// Requests in it.
    pub(super) most: usize,
}

/// The pace of one account at one forge.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When requests were sent that count: the newest last, no more than the largest window holds.
    sent: VecDeque<Timestamp>,
    until: Option<Timestamp>,
    /// Pauses in a row.
    strikes: u32,
}

impl Pace {
    /// Lets a request go that counts in these windows (in none, if it only reads).
    ///
    /// # Errors
    /// How long it has to wait; it does not count then.
    pub(super) fn admit(&mut self, windows: &[Window], now: Timestamp) -> Result<(), Duration> {
        let pause = self.until.map(|until| until.duration_since(now));
        let full = windows.iter().filter_map(|w| {
            let first = self.sent.len().checked_sub(w.most)?;
            let age = now.duration_since(*self.sent.get(first)?);
            // A clock that was set back makes nobody wait longer than the window.
            Some((w.span - age).min(w.span))
        });
        let wait = pause.into_iter().chain(full).max();
        if let Some(wait) = wait.filter(SignedDuration::is_positive) {
            return Err(wait.unsigned_abs());
        }
        if let Some(most) = windows.iter().map(|w| w.most).max() {
            self.sent.push_back(now);
            while self.sent.len() > most {
                self.sent.pop_front();
            }
        }
        Ok(())
    }

    /// The forge asked for patience; gives how long nothing is to be sent.
    pub(super) fn limited(&mut self, after: Option<Duration>, now: Timestamp) -> Duration {
        let under_way = self.until.is_some_and(|until| until > now);
        // What was sent together is refused together: one strike.
        if !under_way {
            self.strikes = self.strikes.saturating_add(1);
        }
        let doubled = FIRST * 2u32.pow(self.strikes.saturating_sub(1).min(6));
        let pause = after
            .unwrap_or(doubled)
            .clamp(Duration::from_secs(1), LONGEST);
        let until = SignedDuration::try_from(pause)
            .ok()
            .and_then(|pause| now.checked_add(pause).ok());
        self.until = self.until.max(until);
        pause
    }

    /// The forge took a request.
    pub(super) fn taken(&mut self, now: Timestamp) {
        if self.until.is_none_or(|until| until <= now) {
            self.strikes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: &[Window] = &[
        Window {
            span: SignedDuration::from_secs(60),
            most: 3,
        },
        Window {
            span: SignedDuration::from_secs(600),
            most: 5,
        },
    ];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn no_window_is_passed() {
        let mut pace = Pace::default();
        // When it is asked, and how many seconds it has to wait.
        for (second, wait) in [
            (0, None),
            (1, None),
            (2, None),
            (3, Some(57)),   // three in the minute since 0
            (59, Some(1)),   //
            (60, None),      // the one of 0 is out of it
            (61, None),      // and that of 1
            (62, Some(538)), // five in ten minutes, until the one of 0 is out of them
            (600, None),
            (600, Some(1)),
            (601, None),
            (602, None),
            (603, Some(57)),
        ] {
            let got = pace.admit(WINDOWS, at(second)).err();
            assert_eq!(got, wait.map(Duration::from_secs), "at {second}");
        }
    }

    #[test]
    fn any_minute_and_any_hour_hold_githubs_limits() {
        let windows = super::super::github::CONTENT;
        let mut pace = Pace::default();
        // Somebody always wants to send, twice a second.
        let sent: Vec<i64> = (0..40_000)
            .map(|half| half / 2)
            .filter(|second| pace.admit(windows, at(*second)).is_ok())
            .collect();
        for (span, most) in [(60, 80), (3600, 500)] {
            let fullest = sent
                .iter()
                .map(|s| sent.iter().filter(|t| (*s..s + span).contains(*t)).count())
                .max();
            assert_eq!(fullest, Some(most), "in {span} s");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nobody_for_long() {
        let mut pace = Pace::default();
        for _ in 0..3 {
            pace.admit(WINDOWS, at(10_000)).unwrap();
        }
        let wait = pace.admit(WINDOWS, at(0)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(60));
    }

    #[test]
    fn pauses() {
        let s = Duration::from_secs;
        let mut pace = Pace::default();
        assert_eq!(pace.limited(Some(s(7)), at(0)), s(7));
        assert_eq!(pace.admit(&[], at(1)), Err(s(6)), "reading waits as well");
        assert_eq!(pace.admit(&[], at(7)), Ok(()));
        // The forge does not say how long: doubled while it takes nothing.
        assert_eq!(pace.limited(None, at(8)), s(120), "the second in a row");
        assert_eq!(pace.limited(None, at(9)), s(120), "sent together with it");
        assert_eq!(pace.limited(Some(s(1)), at(10)), s(1));
        assert_eq!(pace.admit(&[], at(100)), Err(s(29)), "the longer one holds");
        assert_eq!(pace.limited(None, at(200)), s(240));
        pace.taken(at(201));
        assert_eq!(
            pace.limited(None, at(500)),
            s(480),
            "an answer in a pause was sent before it"
        );
        pace.taken(at(2000));
        assert_eq!(pace.limited(None, at(2001)), s(60));
        assert_eq!(pace.limited(Some(s(86_400)), at(3000)), s(3600));
        assert_eq!(pace.limited(Some(s(0)), at(9000)), s(1));
    }
}
