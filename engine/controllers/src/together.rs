//! What one commit changes of a Cluster and of its pools arrives in several writes, the Cluster's first. Who is about to act on the first
//! of them gives the others a moment.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::queue::Key;

/// How long the others are given.
const MOMENT: Duration = Duration::from_millis(500);

/// Generations of a Cluster and its pool.
type Generations = (Option<i64>, Option<i64>);

/// Since when pools have been as they are, for those that were about to act on it of late.
#[derive(Default)]
pub(crate) struct Together(Mutex<BTreeMap<Key, (Generations, Instant)>>);

impl Together {
    /// How much of the moment is left to what is written together with these generations; `None` once it has passed.
    pub(crate) fn left(&self, pool: &Key, now: Generations) -> Option<Duration> {
        let mut all = self.0.lock();
        all.retain(|key, (_, since)| key == pool || since.elapsed() < MOMENT * 2);
        let entry = all.entry(pool.clone()).or_insert((now, Instant::now()));
        if entry.0 != now {
            *entry = (now, Instant::now());
        }
        let left = MOMENT.saturating_sub(entry.1.elapsed());
        if left.is_zero() {
            all.remove(pool);
            return None;
        }
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_change_has_its_moment() {
        let together = Together::default();
        let pool = Key::Pool("default".into(), "web".into());
        let (one, two) = ((Some(2), Some(1)), (Some(2), Some(2)));
        assert_eq!(together.left(&pool, one), Some(MOMENT));
        tokio::time::advance(MOMENT / 2).await;
        assert_eq!(together.left(&pool, one), Some(MOMENT / 2));
        assert_eq!(together.left(&pool, two), Some(MOMENT));
        tokio::time::advance(MOMENT).await;
        let other = Key::Pool("default".into(), "db".into());
        assert_eq!(together.left(&other, one), Some(MOMENT));
        assert_eq!(together.left(&pool, two), None);
        assert_eq!(together.0.lock().len(), 1, "what has acted is forgotten");
        tokio::time::advance(MOMENT * 2).await;
        assert_eq!(together.left(&pool, one), Some(MOMENT));
        assert_eq!(together.0.lock().len(), 1, "what is no longer asked is too");
    }
}
