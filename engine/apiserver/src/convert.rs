//! Versions: what is stored, and what each version shows of it.
//!
//! Versions of a custom kind differ in their name, and show and keep only what their schemas know. Events are stored as the core group has them, and the
//! group `events.k8s.io` gives some of their fields other names.

use bytes::Bytes;
use serde_json::Value;

use crate::registry::Kind;

/// How the fields of an event are called in the core group and in `events.k8s.io`.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

impl Kind {
    /// Whether an object was not encoded in this version.
    fn differs(&self, encoded: &[u8]) -> bool {
        // The version comes first.
        let head = encoded.strip_prefix(b"{\"apiVersion\":\"");
        let rest = if self.group.is_empty() {
            head
        } else {
            head.and_then(|rest| rest.strip_prefix(self.group.as_bytes()))
                .and_then(|rest| rest.strip_prefix(b"/"))
        };
        let rest = rest.and_then(|rest| rest.strip_prefix(self.version.as_bytes()));
        !rest.is_some_and(|rest| rest.starts_with(b"\""))
    }

    /// What this version shows of an object that is kept.
    pub(crate) fn shown(&self, encoded: Bytes) -> Bytes {
        if !self.differs(&encoded) {
            return encoded;
        }
        match serde_json::from_slice::<Value>(&encoded) {
            Ok(mut object) => {
                self.show(&mut object);
                object.to_string().into()
            }
            Err(_) => encoded,
        }
    }

    /// Brings a kept object into this version.
    pub(crate) fn show(&self, object: &mut Value) {
        let own = self.api_version();
        if object["apiVersion"] != own.as_str() {
            object["apiVersion"] = own.into();
            if self.group == "events.k8s.io" {
                rename(object, EVENT_FIELDS.iter().copied());
            }
            if self.custom {
                fleetwright_schema::prune::prune(self.compiled(), object);
            }
        }
    }

    /// Brings an object of this version into the one in which it is kept.
    pub(crate) fn keep(&self, object: &mut Value) {
        if let Some(kept) = &self.storage {
            object["apiVersion"] = kept.as_str().into();
            if self.group == "events.k8s.io" {
                rename(object, EVENT_FIELDS.iter().map(|(core, own)| (*own, *core)));
            }
            if let Some(schema) = &self.kept {
                fleetwright_schema::prune::prune(schema, object);
                fleetwright_schema::default::apply(schema, object);
            }
        }
    }
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}
