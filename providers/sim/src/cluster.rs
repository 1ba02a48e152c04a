//! One simulated cluster: an API over memory, whose every answer waits until what was changed is in the cloud's file.
//!
//! A cluster has no file, no task and no timer of its own: an empty one costs little. In the cloud's store `c/KEY`
//! says that it serves, and `c/KEY/…` are its objects.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{Json, body::Body, response::IntoResponse};
use fleetwright_apiserver::{ApiServer, Options, User};
use fleetwright_store::{Entry, Error as StoreError, Op, Revision, Store, Value as Bytes};
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// So many revisions are set aside at once. After a restart the cluster goes on after those that were set aside, so that
/// no revision is ever given twice, not even one that a watcher saw and the file did not.
const RESERVE: Revision = 1 << 20;
/// Bytes before a stored value: its revisions.
const HEAD: usize = 16;

/// Why a simulated cluster did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its API refused.
    #[error("the simulated cluster's API refused")]
    Api(#[from] kube::Error),
    /// Its API cannot start.
    #[error("the simulated cluster's API cannot start")]
    Start(#[from] fleetwright_apiserver::Error),
    /// The cloud's file refused.
    #[error("the simulated cluster cannot be stored")]
    Store(#[from] StoreError),
    /// What is stored cannot be read.
    #[error("entry {0} of the simulated cluster cannot be read")]
    Stored(String),
    /// No control plane serves.
    #[error("no control plane of the cluster serves yet")]
    NoControlPlane,
    /// The cluster was torn down.
    #[error("the simulated cluster is gone")]
    Gone,
    /// A document of ours is wrong.
    #[error("cannot build an object")]
    Build(#[from] serde_json::Error),
}

/// What `c/KEY` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Revisions up to here may have been given.
    ceiling: Revision,
}

struct Tail {
    /// Everything up to here is in the file.
    kept: Revision,
    ceiling: Revision,
}

/// A cluster that serves.
pub(crate) struct SimCluster {
    key: String,
    server: ApiServer,
    memory: Store,
    disk: Store,
    tail: tokio::sync::Mutex<Tail>,
    /// The same as in `tail`, to be read without waiting.
    kept: AtomicU64,
    gone: CancellationToken,
}

/// Where the cloud's store has the cluster.
pub(crate) fn place(key: &str) -> String {
    format!("c/{key}")
}

fn put(key: String, value: Vec<u8>) -> Op {
    Op::Put {
        key,
        value: Bytes::plain(value),
        expect: None,
    }
}

fn remove(key: String) -> Op {
    Op::Delete {
        key,
        expect: None,
        last: None,
    }
}

fn pack(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + entry.value.len());
    bytes.extend_from_slice(&entry.created.to_le_bytes());
    bytes.extend_from_slice(&entry.modified.to_le_bytes());
    bytes.extend_from_slice(&entry.value.bytes());
    bytes
}

/// An entry as [`pack`] made it, under its own key.
fn unpack(stored: &Entry, prefix: &str) -> Result<Entry, Error> {
    let wrong = || Error::Stored(stored.key.to_string());
    let value = stored.value.bytes();
    let number = |at: usize| -> Result<Revision, Error> {
        let bytes = value.get(at..at + 8).ok_or_else(wrong)?;
        Ok(Revision::from_le_bytes(
            bytes.try_into().map_err(|_| wrong())?,
        ))
    };
    Ok(Entry {
        key: stored.key.strip_prefix(prefix).ok_or_else(wrong)?.into(),
        created: number(0)?,
        modified: number(8)?,
        value: value.slice(HEAD..).into(),
    })
}

impl SimCluster {
    /// Opens the cluster as the cloud's store has it; an empty one where it has none.
    pub(crate) async fn open(key: &str, disk: Store, options: Options) -> Result<Self, Error> {
        let place = place(key);
        let revision = match disk.get(&place) {
            Some(entry) => serde_json::from_slice::<Record>(&entry.value.bytes())?.ceiling,
            None => 1,
        };
        let stored = disk.range(&format!("{place}/"), None, 0).0;
        let entries: Result<Vec<_>, _> = stored.iter().map(|e| unpack(e, &place)).collect();
        let memory = Store::memory_from(revision, entries?);
        let ceiling = revision + RESERVE;
        let record = serde_json::to_vec(&Record { ceiling })?;
        disk.commit(vec![put(place, record)]).await?;
        let server = ApiServer::new(memory.clone(), options)?;
        let kept = revision;
        Ok(Self {
            key: key.to_owned(),
            server,
            memory,
            disk,
            tail: tokio::sync::Mutex::new(Tail { kept, ceiling }),
            kept: AtomicU64::new(kept),
            gone: CancellationToken::new(),
        })
    }

    /// Answers one request, after what it changed is in the cloud's file.
    pub(crate) async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: axum::body::HttpBody,
        B::Error: std::fmt::Display,
    {
        let watches = request.uri().query().is_some_and(|q| q.contains("watch="));
        let answer = self.server.handle(User::admin(), request).await;
        match self.keep().await {
            Ok(()) => {}
            Err(Error::Gone) => return not_serving(&self.key),
            Err(error) => {
                let message = format!(
                    "{}: make room for it, then look whether this was done",
                    chain(&error)
                );
                return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message);
            }
        }
        if !watches {
            return answer;
        }
        // A watch must not outlive the cluster.
        let gone = self.gone.clone().cancelled_owned();
        answer.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(gone))))
    }

    /// Writes down what changed since the last time. Requests at once share a commit.
    async fn keep(&self) -> Result<(), Error> {
        if self.memory.revision() == self.kept.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut tail = self.tail.lock().await;
        if self.gone.is_cancelled() {
            return Err(Error::Gone);
        }
        let now = self.memory.revision();
        if now == tail.kept {
            return Ok(());
        }
        let place = place(&self.key);
        let changed = self.changed_after(tail.kept, &place)?;
        let mut ops: Vec<_> = changed
            .into_iter()
            .map(|key| match self.memory.get(&key) {
                Some(entry) => put(format!("{place}{key}"), pack(&entry)),
                None => remove(format!("{place}{key}")),
            })
            .collect();
        let mut ceiling = tail.ceiling;
        if now + RESERVE / 2 > ceiling {
            ceiling = now + RESERVE;
            ops.push(put(place, serde_json::to_vec(&Record { ceiling })?));
        }
        self.disk.commit(ops).await?;
        *tail = Tail { kept: now, ceiling };
        self.kept.store(now, Ordering::Release);
        Ok(())
    }

    /// Keys that changed after `revision`: all that there are where the memory has forgotten which.
    fn changed_after(&self, revision: Revision, place: &str) -> Result<BTreeSet<String>, Error> {
        let mut watch = self.memory.watch("", revision);
        let mut keys = BTreeSet::new();
        loop {
            match watch.ready() {
                Ok(events) if events.is_empty() => return Ok(keys),
                Ok(events) => keys.extend(events.iter().map(|e| e.key.to_string())),
                Err(StoreError::Compacted { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let there = self.memory.range("", None, 0).0;
        let stored = self.disk.range(&format!("{place}/"), None, 0).0;
        let stored = stored.iter().filter_map(|e| e.key.strip_prefix(place));
        Ok(there
            .iter()
            .map(|e| e.key.to_string())
            .chain(stored.map(ToOwned::to_owned))
            .collect())
    }

    /// Ends the cluster: nothing is written any more, and all watches end.
    pub(crate) async fn end(&self) {
        let _tail = self.tail.lock().await;
        self.gone.cancel();
    }
}

/// What removes a cluster from the cloud's store.
pub(crate) fn removal(key: &str, disk: &Store) -> Vec<Op> {
    let place = place(key);
    let objects = disk.range(&format!("{place}/"), None, 0).0;
    let objects = objects.into_iter().map(|e| remove(e.key.to_string()));
    std::iter::once(remove(place)).chain(objects).collect()
}

/// The answer of a cluster whose API is not there.
pub(crate) fn not_serving(key: &str) -> Response<Body> {
    let message = format!("no control plane of the cluster {key} serves yet");
    status(
        StatusCode::SERVICE_UNAVAILABLE,
        "ServiceUnavailable",
        &message,
    )
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleetwright_api::{random::SeededRandom, time::SystemClock};
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    fn options() -> Options {
        Options::new(Arc::new(SystemClock), Arc::new(SeededRandom::new(1)))
    }

    async fn ask(cluster: &SimCluster, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(match body {
                Value::Null => Body::empty(),
                body => Body::from(body.to_string()),
            })
            .unwrap();
        let answer = cluster.handle(request).await;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    const MAPS: &str = "/api/v1/namespaces/default/configmaps";

    fn map(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    }

    async fn make(cluster: &SimCluster, name: &str) -> Value {
        let (code, made) = ask(cluster, "POST", MAPS, map(name)).await;
        assert_eq!(code, 201, "{made}");
        made
    }

    fn version(object: &Value) -> u64 {
        let text = object["metadata"]["resourceVersion"].as_str();
        text.unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn it_goes_on_from_the_clouds_store_and_never_repeats_a_version() {
        let disk = Store::memory();
        let cluster = SimCluster::open("k", disk.clone(), options())
            .await
            .unwrap();
        make(&cluster, "a").await;
        let b = make(&cluster, "b").await;
        ask(&cluster, "DELETE", &format!("{MAPS}/b"), Value::Null).await;
        // What no request waited for is not in the file, yet somebody may have seen its version.
        let lost = Op::Put {
            key: "/lost".into(),
            value: Bytes::plain("{}"),
            expect: None,
        };
        let lost = cluster.memory.commit(vec![lost]).await.unwrap();
        drop(cluster);
        let cluster = SimCluster::open("k", disk.clone(), options())
            .await
            .unwrap();
        let (_, list) = ask(&cluster, "GET", MAPS, Value::Null).await;
        let names: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["metadata"]["name"])
            .collect();
        assert_eq!(names, ["a"]);
        assert!(version(&list) > lost && version(&list) > version(&b));
        assert!(version(&make(&cluster, "c").await) > version(&list));
        let watch = format!("{MAPS}?watch=true&resourceVersion={}", version(&b));
        let (_, answer) = ask(&cluster, "GET", &watch, Value::Null).await;
        assert_eq!(&answer["object"]["code"], &json!(410), "{answer}");
    }

    #[tokio::test]
    async fn what_the_history_forgot_is_kept_all_the_same() {
        let disk = Store::memory();
        let cluster = SimCluster::open("k", disk.clone(), options())
            .await
            .unwrap();
        make(&cluster, "a").await;
        make(&cluster, "b").await;
        // Past the bound of the history, behind the back of `keep`.
        for _ in 0..3 {
            let big = put("/core/configmaps/default/a".into(), vec![b' '; 4 << 20]);
            cluster.memory.commit(vec![big]).await.unwrap();
        }
        cluster
            .memory
            .commit(vec![remove("/core/configmaps/default/b".into())])
            .await
            .unwrap();
        make(&cluster, "c").await;
        let stored = |name: &str| disk.get(&format!("c/k/core/configmaps/default/{name}"));
        assert!(stored("a").unwrap().value.len() > 4 << 20);
        assert!(stored("b").is_none() && stored("c").is_some());
    }

    #[tokio::test]
    async fn an_end_ends_watches_and_writes() {
        let disk = Store::memory();
        let cluster = Arc::new(
            SimCluster::open("k", disk.clone(), options())
                .await
                .unwrap(),
        );
        make(&cluster, "a").await;
        let request = Request::builder()
            .uri(format!("{MAPS}?watch=true"))
            .body(Body::empty())
            .unwrap();
        let watch = cluster.handle(request).await.into_body();
        cluster.end().await;
        watch.collect().await.unwrap();
        let (code, _) = ask(&cluster, "POST", MAPS, map("b")).await;
        assert_eq!(code, 503);
        disk.commit(removal("k", &disk)).await.unwrap();
        assert_eq!(disk.range("", None, 0).0, vec![]);
    }
}
