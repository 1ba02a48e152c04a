//! A copy of the whole state, for who may do everything.

use axum::body::Body;
use fleetwright_store::{Entry, Snapshot, Store};
use futures::stream;
use http::{HeaderValue, Response, header};
use serde_json::Value;

use crate::object::encode;
use crate::{Error, Result};

/// Where a server gives its state away, as [`Snapshot::stream`] writes it: no resource, so for `system:masters` alone.
pub const BACKUP_PATH: &str = "/fleetwright/backup";

/// The state as it is now. Nobody waits for it: it is taken from memory, and sent as fast as the client reads.
pub(crate) fn answer(store: &Store) -> Response<Body> {
    let snapshot = store.snapshot();
    let length = snapshot.stream_length();
    let pieces = snapshot.stream().map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(stream::iter(pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    response
}

/// What a server starts from after a restore: the objects of `snapshot` as if all had been written at `revision`, so
/// that no client takes one for an older version of what it has seen.
///
/// # Errors
/// [`Error::Stored`] when an object cannot be decoded, [`Error::NotObject`] when one is not what its key says.
pub fn restamped(snapshot: Snapshot, revision: u64) -> Result<Snapshot> {
    let entries = snapshot.entries.into_iter().map(|entry| {
        let object: Value = serde_json::from_slice(&entry.value.bytes())
            .map_err(|source| Error::Stored(entry.key.to_string(), source))?;
        let name = object["metadata"]["name"].as_str();
        let typed = object["kind"].is_string() && object["apiVersion"].is_string();
        if !typed || name.is_none() || entry.key.rsplit('/').next() != name {
            return Err(Error::NotObject(entry.key.to_string()));
        }
        Ok(Entry {
            value: encode(&object).at(revision).into(),
            modified: revision,
            ..entry
        })
    });
    Ok(Snapshot {
        revision,
        entries: entries.collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(key: &str, value: &str) -> Snapshot {
        let entry = Entry {
            key: key.into(),
            value: bytes::Bytes::from(value.to_owned()).into(),
            created: 3,
            modified: 7,
        };
        Snapshot {
            revision: 9,
            entries: vec![entry],
        }
    }

    #[test]
    fn every_object_gets_the_new_version_and_nothing_else_changes() {
        let text = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7"},"data":{"z":"1","b":"2"}}"#;
        let done = restamped(snapshot("/core/configmaps/default/a", text), 1_000).unwrap();
        assert_eq!(done.revision, 1_000);
        let entry = &done.entries[0];
        assert_eq!((entry.created, entry.modified), (3, 1_000));
        let mut object: Value = serde_json::from_slice(&entry.value.bytes()).unwrap();
        assert_eq!(object["metadata"]["resourceVersion"], "1000");
        object["metadata"]["resourceVersion"] = "7".into();
        assert_eq!(object, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_is_no_object_or_another_one_is_named() {
        let key = "/core/configmaps/default/a";
        for text in [
            "{",
            "{}",
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b"}}"#,
        ] {
            let error = restamped(snapshot(key, text), 1_000).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
