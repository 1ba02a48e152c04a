//! How long a cluster that does not answer is left alone.

use std::time::Duration;

/// Shortest and longest time.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// How long nobody is asked after so many failures in a row (at least one): twice as long after each, less up to a quarter that
/// `chance` takes off, so that clusters that went away together are not all asked again at once.
pub(crate) fn wait(failures: u32, chance: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    let whole = (SHORTEST * (1 << doublings)).min(LONGEST);
    let quarter = u64::try_from(whole.as_millis() / 4).unwrap_or(u64::MAX);
    let less = Duration::from_millis(chance % (quarter + 1));
    (whole - less).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_a_second_to_a_minute_less_some_chance() {
        let seconds = |failures| wait(failures, 0).as_secs();
        let all: Vec<u64> = (1..=9).map(seconds).collect();
        assert_eq!(all, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait(u32::MAX, 0), LONGEST);
        for (failures, chance, want) in [
            (1, 250, 1000),
            (2, 500, 1500),
            (2, 501, 2000),
            (7, 15_000, 45_000),
        ] {
            assert_eq!(wait(failures, chance), Duration::from_millis(want));
        }
    }
}
