//! How much one user may ask for at the same time, and how long it may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::Response;
use parking_lot::Mutex;

/// Requests of one user under way, watches aside.
const REQUESTS: usize = 400;
/// Watches of one user.
const WATCHES: usize = 10_000;
/// How long a request may take, from its head to its answer.
pub(crate) const LONGEST_REQUEST: Duration = Duration::from_secs(60);
/// How long a watch goes on at least when its client does not say; at most twice as long, so that not all end at once.
pub(crate) const WATCH_SECONDS: u64 = 1_800;

/// How long the watch that a request starts may go on; an extension of requests that come over the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongestWatch(pub(crate) Duration);

type Counts = BTreeMap<(String, bool), usize>;

/// What is under way, by user and whether it is a watch.
#[derive(Debug, Default)]
pub(crate) struct Limits(Arc<Mutex<Counts>>);

/// Lets one request or watch go on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: Arc<Mutex<Counts>>,
    what: (String, bool),
}

impl Limits {
    /// A permit for one more; `None` when the user has too many under way.
    pub(crate) fn take(&self, user: &str, watch: bool) -> Option<Permit> {
        let what = (user.to_owned(), watch);
        let mut counts = self.0.lock();
        let count = counts.entry(what.clone()).or_default();
        if *count >= if watch { WATCHES } else { REQUESTS } {
            return None;
        }
        *count += 1;
        Some(Permit {
            counts: Arc::clone(&self.0),
            what,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.what) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.what);
            }
        }
    }
}

impl Permit {
    /// An answer that holds the permit for as long as its body goes on.
    pub(crate) fn held_by(self, answer: Response<Body>) -> Response<Body> {
        let (parts, body) = answer.into_parts();
        let frames = body.into_data_stream().map(move |frame| {
            let _held = &self;
            frame
        });
        Response::from_parts(parts, Body::from_stream(frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_user_has_a_share_of_its_own_and_watches_hold_theirs() {
        let limits = Limits::default();
        let all: Vec<Permit> = std::iter::from_fn(|| limits.take("ann", false)).collect();
        assert_eq!(all.len(), REQUESTS);
        assert!(limits.take("bob", false).is_some());
        let watch = limits.take("ann", true).unwrap();
        let answer = watch.held_by(Response::new(Body::from("x")));
        assert_eq!(limits.0.lock().get(&("ann".to_owned(), true)), Some(&1));
        drop(answer);
        drop(all);
        assert!(limits.0.lock().is_empty());
    }
}
