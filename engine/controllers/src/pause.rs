//! How long a watch that broke is left alone before it is begun again.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A watch that lasted so long was allowed: one that is refused answers its list each time, and must not be begun anew at once.
const LASTED: Duration = Duration::from_secs(1);

/// The pause after one that was `last`, when the watch has `lasted` since its list was complete; zero where it never was.
pub(crate) fn after(last: Option<Duration>, lasted: Duration) -> Duration {
    match last {
        Some(last) if lasted < LASTED => (last * 2).min(LONGEST),
        _ => SHORTEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_until_a_watch_has_lasted() {
        let ms = Duration::from_millis;
        for (last, lasted, want) in [
            (None, 0, 100),
            (Some(100), 0, 200),
            (Some(100), 999, 200),
            (Some(100), 1_000, 100),
            (Some(6_400), 0, 10_000),
            (Some(10_000), 0, 10_000),
            (Some(10_000), 300_000, 100),
        ] {
            assert_eq!(after(last.map(ms), ms(lasted)), ms(want), "{last:?}");
        }
    }
}
