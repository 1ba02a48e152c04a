//! Watch: events of encoded bytes, filtered by selector transitions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use fleetwright_api::time::Clock;
use fleetwright_store::{Blob, Event, Watch};
use futures::stream;
use http::Response;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use super::{Call, read::parsed};
use crate::error::{ApiError, ApiResult, respond};
use crate::registry::Kind;
use crate::selector::Selector;
use crate::table::Form;

/// How often a watch that allows bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

struct Watching {
    watch: Watch,
    selector: Selector,
    ready: VecDeque<Bytes>,
    deadline: Option<tokio::time::Instant>,
    bookmarks: bool,
    kind: Arc<Kind>,
    form: Form,
    clock: Arc<dyn Clock>,
    /// Whether an event was sent already.
    sent: bool,
    ended: bool,
    /// Counts what is sent.
    events: Counter,
}

pub(crate) fn watch(call: &Call<'_>) -> ApiResult<Response<Body>> {
    call.check_list()?;
    let selector = call.selector()?;
    let query = call.query;
    let initial = query.flag("sendInitialEvents");
    let text = query.get("resourceVersion");
    let from: u64 = if text.is_empty() {
        0
    } else {
        text.parse()
            .map_err(|_| ApiError::bad_request(super::read::bad_version(text)))?
    };
    let scope = call.scope();
    let store = &call.server.0.store;
    let bookmarks = query.flag("allowWatchBookmarks");
    let mut initial_state = None;
    let mut start = from;
    if initial || (from == 0 && query.get("sendInitialEvents") != "false") {
        let (entries, revision) = store.range(&scope, None, 0);
        initial_state = Some((entries, revision));
        start = revision;
    } else if from == 0 {
        start = store.revision();
    } else if from < store.compacted() && from < store.revision() {
        return Ok(respond(
            200,
            &json!({"type": "ERROR", "object": too_old(from).status()}),
        ));
    }
    let asked = query.get("timeoutSeconds").parse::<u64>().ok();
    let lasts = asked
        .filter(|seconds| *seconds > 0)
        .map(|seconds| Duration::from_secs(seconds.min(86_400)))
        .or(call.longest_watch);
    let mut watching = Watching {
        watch: store.watch(scope, start),
        selector,
        ready: VecDeque::new(),
        deadline: lasts.map(|lasts| tokio::time::Instant::now() + lasts),
        bookmarks,
        kind: Arc::clone(call.kind),
        form: call.form,
        clock: Arc::clone(&call.server.0.options.clock),
        sent: false,
        ended: false,
        events: call.server.0.metrics.watch_events(&call.kind.plural),
    };
    if let Some((entries, revision)) = initial_state {
        for entry in entries {
            let value = watching.kind.shown(entry.value.bytes());
            if watching.wants(&value) {
                let line = watching.line("ADDED", &value);
                watching.ready.push_back(line);
            }
        }
        if initial && bookmarks {
            let mark = watching.bookmark(revision, true);
            watching.ready.push_back(mark);
        }
    }
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
                self.events.inc();
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
                        for event in &events {
                            let frame = self.frame(event);
                            self.ready.extend(frame);
                        }
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
                    let mark = self.bookmark(seen, false);
                    self.ready.push_back(mark);
                }
            }
        }
    }

    fn wants(&self, value: &[u8]) -> bool {
        self.selector.is_empty() || parsed(value).is_some_and(|o| self.selector.matches(&o))
    }

    fn frame(&mut self, event: &Event) -> Option<Bytes> {
        let value = self.kind.shown(event.value.bytes());
        let shown = |previous: &Blob| self.kind.shown(previous.bytes());
        let before = event
            .previous
            .as_ref()
            .is_some_and(|previous| self.selector.is_empty() || self.wants(&shown(previous)));
        let now = !event.deleted && self.wants(&value);
        let kind = match (before, now) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        match (&event.previous, kind, event.deleted) {
            // What no longer fits is shown as it was when it did, at the revision that changed it.
            (Some(previous), "DELETED", false) => {
                let mut object = parsed(&shown(previous))?;
                let now = parsed(&value)?;
                object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
                Some(self.line(kind, object.to_string().as_bytes()))
            }
            _ => Some(self.line(kind, &value)),
        }
    }

    /// An event, in the form that was asked for.
    fn line(&mut self, kind: &str, object: &[u8]) -> Bytes {
        if self.form == Form::Whole {
            return line(kind, object);
        }
        let Some(read) = parsed(object) else {
            return line(kind, object);
        };
        let now = self.clock.now();
        let shown = self.form.one(&self.kind, &read, now, !self.sent);
        self.sent = true;
        line(kind, shown.to_string().as_bytes())
    }

    fn bookmark(&mut self, revision: u64, end: bool) -> Bytes {
        let mut object = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": revision.to_string()}});
        if end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.line("BOOKMARK", object.to_string().as_bytes())
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
