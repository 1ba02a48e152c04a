//! Events live an hour after they were last written. Nothing waits for that: each request first removes what is due.

use fleetwright_store::{Error as StoreError, Op};
use jiff::Timestamp;
use serde_json::Value;

use crate::ApiServer;

/// How long an event is kept, in seconds.
const EVENT_SECONDS: i64 = 3_600;
const EVENTS: &str = "/core/events/";

/// When an object is due, in seconds since 1970; `None` for one that stays.
pub(crate) fn due(key: &str, object: &Value) -> Option<i64> {
    if !key.starts_with(EVENTS) {
        return None;
    }
    let meta = &object["metadata"];
    let written = meta["managedFields"].as_array().into_iter().flatten();
    written
        .map(|entry| &entry["time"])
        .chain([&meta["creationTimestamp"]])
        .filter_map(|time| time.as_str()?.parse::<Timestamp>().ok())
        .map(|time| time.as_second() + EVENT_SECONDS)
        .max()
}

impl ApiServer {
    /// Removes what is due.
    pub(crate) async fn expire(&self) {
        let now = self.0.options.clock.now().as_second();
        loop {
            let first = {
                let mut index = self.0.index.lock();
                match index.expiring.first() {
                    Some((at, _)) if *at <= now => index.expiring.pop_first(),
                    _ => None,
                }
            };
            let Some((at, key)) = first else { return };
            let Some((object, revision)) = self.read(&key) else {
                continue;
            };
            // One that was written since stands in the index a second time.
            if due(&key, &object).is_none_or(|due| due > now) {
                continue;
            }
            let op = Op::Delete {
                key: key.clone(),
                expect: Some(revision),
                last: None,
            };
            match self.0.store.commit(vec![op]).await {
                Ok(_) => crate::gc::removed(self, &key, &object),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, key, "an event that is due stays until the store can write");
                    self.0.index.lock().expiring.insert((at, key));
                    return;
                }
            }
        }
    }
}
