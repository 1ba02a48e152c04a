//! Watch: events of encoded bytes, filtered by selector transitions.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use fleetwright_store::{Event, Watch};
use futures::stream;
use http::Response;
use serde_json::json;

use super::{Call, read::parsed};
use crate::error::{ApiError, ApiResult, Cause, respond};
use crate::selector::Selector;

/// How often a watch that allows bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

struct Watching {
    watch: Watch,
    selector: Selector,
    ready: VecDeque<Bytes>,
    deadline: Option<tokio::time::Instant>,
    bookmarks: bool,
    type_meta: (String, String),
    ended: bool,
}

pub(crate) fn watch(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let selector = call.selector()?;
    let query = call.query;
    let initial = query.flag("sendInitialEvents");
    if initial && query.get("resourceVersionMatch") != "NotOlderThan" {
        let text =
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let cause = Cause::new("FieldValueForbidden", "resourceVersionMatch", text);
        return Err(ApiError::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[cause],
        ));
    }
    let text = query.get("resourceVersion");
    let from: u64 = if text.is_empty() {
        0
    } else {
        text.parse().map_err(|_| {
            ApiError::bad_request(format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"))
        })?
    };
    let scope = call.scope();
    let store = &call.server.0.store;
    let bookmarks = query.flag("allowWatchBookmarks");
    let type_meta = (call.kind.api_version(), call.kind.kind.clone());
    let mut ready = VecDeque::new();
    let mut start = from;
    if initial || (from == 0 && query.get("sendInitialEvents") != "false") {
        let (entries, revision) = store.range(&scope, None, 0);
        for entry in entries {
            if selector.is_empty() || parsed(&entry.value).is_some_and(|o| selector.matches(&o)) {
                ready.push_back(line("ADDED", &entry.value));
            }
        }
        if initial && bookmarks {
            ready.push_back(bookmark(&type_meta, revision, true));
        }
        start = revision;
    } else if from == 0 {
        start = store.revision();
    } else if from < store.compacted() && from < store.revision() {
        return Ok(respond(
            200,
            &json!({"type": "ERROR", "object": too_old(from).status()}),
        ));
    }
    let seconds: Option<u64> = query.get("timeoutSeconds").parse().ok();
    let watching = Watching {
        watch: store.watch(scope, start),
        selector,
        ready,
        deadline: seconds.map(|s| tokio::time::Instant::now() + Duration::from_secs(s.min(86_400))),
        bookmarks,
        type_meta,
        ended: false,
    };
    let frames = stream::unfold(watching, |mut watching| async move {
        let frame = watching.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), watching))
    });
    let mut response = crate::error::bytes(200, Bytes::new());
    *response.body_mut() = Body::from_stream(frames);
    Ok(response)
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            let deadline = self.deadline;
            let end = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let bookmarks = self.bookmarks;
            let mark = async {
                if bookmarks {
                    tokio::time::sleep(BOOKMARK_EVERY).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                events = self.watch.next() => match events {
                    Ok(events) => {
                        let frames: Vec<Bytes> = events.iter().filter_map(|e| self.frame(e)).collect();
                        self.ready.extend(frames);
                    }
                    Err(_) => {
                        let status = too_old(self.watch.seen()).status();
                        self.ready.push_back(format!("{}\n", json!({"type": "ERROR", "object": status})).into());
                        self.ended = true;
                    }
                },
                () = end => return None,
                () = mark => {
                    let seen = self.watch.seen();
                    self.ready.push_back(bookmark(&self.type_meta, seen, false));
                }
            }
        }
    }

    fn frame(&self, event: &Event) -> Option<Bytes> {
        let matches = |value: &Bytes| {
            self.selector.is_empty() || parsed(value).is_some_and(|o| self.selector.matches(&o))
        };
        let before = event.previous.as_ref().is_some_and(matches);
        let now = !event.deleted && matches(&event.value);
        match (before, now) {
            (false, true) => Some(line("ADDED", &event.value)),
            (true, true) => Some(line("MODIFIED", &event.value)),
            (true, false) => Some(line("DELETED", &event.value)),
            (false, false) => None,
        }
    }
}

fn too_old(from: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {from}"))
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

fn bookmark((version, kind): &(String, String), revision: u64, end: bool) -> Bytes {
    let mut object = json!({"kind": kind, "apiVersion": version,
        "metadata": {"resourceVersion": revision.to_string()}});
    if end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
}
