//! The room that a pool has above its replicas: its rollouts and the replacement of its broken machines both use it, and each looks
//! at what the other has written before it takes any.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Who decides over the room of which pool, by the pool's uid.
#[derive(Default)]
pub(crate) struct Rooms(Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Rooms {
    /// Waits until nobody else decides over this pool's room.
    pub(crate) async fn enter(&self, pool: &str) -> OwnedMutexGuard<()> {
        let room = {
            let mut all = self.0.lock();
            all.retain(|_, room| room.strong_count() > 0);
            let known = all.get(pool).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let room = Arc::default();
                all.insert(pool.to_owned(), Arc::downgrade(&room));
                room
            })
        };
        room.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_decides_over_a_pools_room() {
        let rooms = Rooms::default();
        let first = rooms.enter("a").await;
        assert!(rooms.enter("a").now_or_never().is_none());
        assert!(rooms.enter("b").now_or_never().is_some());
        drop(first);
        assert!(rooms.enter("a").now_or_never().is_some());
        rooms.enter("c").await;
        assert_eq!(rooms.0.lock().len(), 1, "what nobody uses is forgotten");
    }
}
