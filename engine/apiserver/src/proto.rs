//! Bodies in Kubernetes' protobuf, which kubectl sends for core kinds that it makes itself: `create configmap`, `drain`,
//! `auth can-i`. Answers are JSON, which its clients accept beside it.
//!
//! The tables hold the wire format of the types that such bodies are made of; other kinds are refused as an unknown
//! format, and clients of theirs send JSON.

use base64::Engine;
use serde_json::{Map, Value, json};

/// What a body in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may stand in each other: more than any type of the tables.
const DEPTH: u8 = 16;

/// A field: its number, its name in JSON, and what it holds.
type Field = (u64, &'static str, Holds);

/// What a field holds. Go writes plain fields also when they are empty, and those are left out; what is set to nothing on
/// purpose is kept.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Texts,
    Number,
    /// A number that may be unset.
    MaybeNumber,
    /// A flag that may be unset.
    MaybeFlag,
    Flag,
    TextMap,
    BytesMap,
    Time,
    IntOrString,
    One(&'static [Field]),
    Many(&'static [Field]),
}
use Holds::{
    BytesMap, Flag, IntOrString, Many, MaybeFlag, MaybeNumber, Number, One, Text, TextMap, Texts,
    Time,
};

const OWNER: &[Field] = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", MaybeFlag),
    (7, "blockOwnerDeletion", MaybeFlag),
];
const META: &[Field] = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Number),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (10, "deletionGracePeriodSeconds", MaybeNumber),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "ownerReferences", Many(OWNER)),
    (14, "finalizers", Texts),
];
const METADATA: Field = (1, "metadata", One(META));
const REFERENCE: &[Field] = &[
    (1, "kind", Text),
    (2, "namespace", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "resourceVersion", Text),
    (7, "fieldPath", Text),
];
const NAME: &[Field] = &[(1, "name", Text)];
const SOURCE: &[Field] = &[(1, "component", Text), (2, "host", Text)];
const SERIES: &[Field] = &[(1, "count", Number), (2, "lastObservedTime", Time)];
const REQUIREMENT: &[Field] = &[
    (1, "key", Text),
    (2, "operator", Text),
    (3, "values", Texts),
];
const SELECTOR: &[Field] = &[
    (1, "matchLabels", TextMap),
    (2, "matchExpressions", Many(REQUIREMENT)),
];
const PRECONDITIONS: &[Field] = &[(1, "uid", Text), (2, "resourceVersion", Text)];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", MaybeNumber),
    (2, "preconditions", One(PRECONDITIONS)),
    (3, "orphanDependents", MaybeFlag),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];
const PORT: &[Field] = &[
    (1, "name", Text),
    (2, "protocol", Text),
    (3, "port", Number),
    (4, "targetPort", IntOrString),
    (5, "nodePort", Number),
    (6, "appProtocol", Text),
];
const SERVICE: &[Field] = &[
    (1, "ports", Many(PORT)),
    (2, "selector", TextMap),
    (3, "clusterIP", Text),
    (4, "type", Text),
    (5, "externalIPs", Texts),
    (7, "sessionAffinity", Text),
    (8, "loadBalancerIP", Text),
    (9, "loadBalancerSourceRanges", Texts),
    (10, "externalName", Text),
    (11, "externalTrafficPolicy", Text),
    (12, "healthCheckNodePort", Number),
    (13, "publishNotReadyAddresses", Flag),
    (17, "ipFamilyPolicy", Text),
    (18, "clusterIPs", Texts),
    (19, "ipFamilies", Texts),
    (20, "allocateLoadBalancerNodePorts", MaybeFlag),
    (21, "loadBalancerClass", Text),
    (22, "internalTrafficPolicy", Text),
    (23, "trafficDistribution", Text),
];
const BUDGET: &[Field] = &[
    (1, "minAvailable", IntOrString),
    (2, "selector", One(SELECTOR)),
    (3, "maxUnavailable", IntOrString),
    (4, "unhealthyPodEvictionPolicy", Text),
];
const LEASE: &[Field] = &[
    (1, "holderIdentity", Text),
    (2, "leaseDurationSeconds", MaybeNumber),
    (3, "acquireTime", Time),
    (4, "renewTime", Time),
    (5, "leaseTransitions", MaybeNumber),
    (6, "strategy", Text),
    (7, "preferredHolder", Text),
];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];
const PATH_ATTRIBUTES: &[Field] = &[(1, "path", Text), (2, "verb", Text)];
const ACCESS: &[Field] = &[
    (1, "resourceAttributes", One(RESOURCE_ATTRIBUTES)),
    (2, "nonResourceAttributes", One(PATH_ATTRIBUTES)),
];

/// The fields of a kind; `None` for those whose wire format is not in the tables.
fn fields(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("v1", "ConfigMap") => &[
            METADATA,
            (2, "data", TextMap),
            (3, "binaryData", BytesMap),
            (4, "immutable", MaybeFlag),
        ],
        ("v1", "Secret") => &[
            METADATA,
            (2, "data", BytesMap),
            (3, "type", Text),
            (4, "stringData", TextMap),
            (5, "immutable", MaybeFlag),
        ],
        ("v1", "Namespace") => &[METADATA, (2, "spec", One(&[(1, "finalizers", Texts)]))],
        ("v1", "ServiceAccount") => &[
            METADATA,
            (2, "secrets", Many(REFERENCE)),
            (3, "imagePullSecrets", Many(NAME)),
            (4, "automountServiceAccountToken", MaybeFlag),
        ],
        ("v1", "Service") => &[METADATA, (2, "spec", One(SERVICE))],
        ("v1", "Event") => &[
            METADATA,
            (2, "involvedObject", One(REFERENCE)),
            (3, "reason", Text),
            (4, "message", Text),
            (5, "source", One(SOURCE)),
            (6, "firstTimestamp", Time),
            (7, "lastTimestamp", Time),
            (8, "count", Number),
            (9, "type", Text),
            (10, "eventTime", Time),
            (11, "series", One(SERIES)),
            (12, "action", Text),
            (13, "related", One(REFERENCE)),
            (14, "reportingComponent", Text),
            (15, "reportingInstance", Text),
        ],
        ("events.k8s.io/v1", "Event") => &[
            METADATA,
            (2, "eventTime", Time),
            (3, "series", One(SERIES)),
            (4, "reportingController", Text),
            (5, "reportingInstance", Text),
            (6, "action", Text),
            (7, "reason", Text),
            (8, "regarding", One(REFERENCE)),
            (9, "related", One(REFERENCE)),
            (10, "note", Text),
            (11, "type", Text),
            (12, "deprecatedSource", One(SOURCE)),
            (13, "deprecatedFirstTimestamp", Time),
            (14, "deprecatedLastTimestamp", Time),
            (15, "deprecatedCount", Number),
        ],
        ("v1" | "meta.k8s.io/v1", "DeleteOptions") => DELETE_OPTIONS,
        ("policy/v1", "DeleteOptions") => DELETE_OPTIONS,
        ("policy/v1", "PodDisruptionBudget") => &[METADATA, (2, "spec", One(BUDGET))],
        ("policy/v1", "Eviction") => &[METADATA, (2, "deleteOptions", One(DELETE_OPTIONS))],
        ("coordination.k8s.io/v1", "Lease") => &[METADATA, (2, "spec", One(LEASE))],
        ("authentication.k8s.io/v1", "SelfSubjectReview") => &[METADATA],
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => {
            &[METADATA, (2, "spec", One(ACCESS))]
        }
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => {
            &[METADATA, (2, "spec", One(&[(1, "namespace", Text)]))]
        }
        _ => return None,
    })
}

/// Reads a body as the object that it would be in JSON; `None` when it is none, or of a kind not in the tables.
pub(crate) fn object(body: &[u8]) -> Option<Value> {
    const UNKNOWN: &[Field] = &[(
        1,
        "type",
        One(&[(1, "apiVersion", Text), (2, "kind", Text)]),
    )];
    let envelope = body.strip_prefix(MAGIC)?;
    let head = message(UNKNOWN, envelope, DEPTH)?;
    let (version, kind) = (
        head["type"]["apiVersion"].as_str()?,
        head["type"]["kind"].as_str()?,
    );
    let mut raw: &[u8] = &[];
    for part in Parts(envelope) {
        if let (2, Part::Bytes(bytes)) = part? {
            raw = bytes;
        }
    }
    let mut object = message(fields(version, kind)?, raw, DEPTH)?;
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    Some(object)
}

/// One field as it is on the wire.
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message; an item of `None` says that it is broken off.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(found)
    }

    fn part(&mut self) -> Option<(u64, Part<'a>)> {
        let key = self.number()?;
        let part = match key & 7 {
            0 => Part::Number(self.number()?),
            1 => self.bytes(8).map(|_| Part::Other)?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Part::Bytes(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| Part::Other)?,
            _ => return None,
        };
        Some((key >> 3, part))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Option<(u64, Part<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_none() {
            self.0 = &[];
        }
        Some(part)
    }
}

fn message(fields: &[Field], body: &[u8], depth: u8) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let mut out = Map::new();
    for part in Parts(body) {
        let (number, part) = part?;
        let Some((_, name, holds)) = fields.iter().find(|(n, ..)| *n == number) else {
            continue;
        };
        let slot = out.entry(*name).or_insert(Value::Null);
        match (holds, part) {
            (Text, Part::Bytes(bytes)) => *slot = text(bytes)?,
            (Texts, Part::Bytes(bytes)) => push(slot, text(bytes)?),
            // Go's integers come as two's complement of 64 bits.
            (Number | MaybeNumber, Part::Number(number)) => *slot = number.cast_signed().into(),
            (Flag | MaybeFlag, Part::Number(number)) => *slot = (number != 0).into(),
            (TextMap | BytesMap, Part::Bytes(bytes)) => {
                let (key, value) = pair(matches!(holds, BytesMap), bytes)?;
                slot[key] = value;
            }
            (Time, Part::Bytes(bytes)) => *slot = time(bytes)?,
            (IntOrString, Part::Bytes(bytes)) => *slot = int_or_string(bytes)?,
            (One(fields), Part::Bytes(bytes)) => *slot = message(fields, bytes, depth)?,
            (Many(fields), Part::Bytes(bytes)) => push(slot, message(fields, bytes, depth)?),
            _ => return None,
        }
    }
    out.retain(|name, value| {
        let holds = fields.iter().find(|(_, n, _)| n == name).map(|f| f.2);
        match (holds, &*value) {
            (_, Value::Null) => false,
            (Some(Text), value) => value != "",
            (Some(Number), value) => *value != 0,
            (Some(Flag), value) => value == true,
            (Some(One(_)), Value::Object(map)) => !map.is_empty(),
            _ => true,
        }
    });
    Some(out.into())
}

fn push(slot: &mut Value, value: Value) {
    match slot {
        Value::Array(list) => list.push(value),
        slot => *slot = json!([value]),
    }
}

fn text(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok().map(Value::from)
}

fn pair(encoded: bool, body: &[u8]) -> Option<(String, Value)> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for part in Parts(body) {
        match part? {
            (1, Part::Bytes(bytes)) => key = bytes,
            (2, Part::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    let key = std::str::from_utf8(key).ok()?.to_owned();
    let value = if encoded {
        base64::engine::general_purpose::STANDARD
            .encode(value)
            .into()
    } else {
        text(value)?
    };
    Some((key, value))
}

/// Seconds and nanoseconds; an empty message is no time.
fn time(body: &[u8]) -> Option<Value> {
    const FIELDS: &[Field] = &[(1, "seconds", MaybeNumber), (2, "nanos", MaybeNumber)];
    let parts = message(FIELDS, body, 1)?;
    let Some(seconds) = parts["seconds"].as_i64() else {
        return Some(Value::Null);
    };
    let nanos = i32::try_from(parts["nanos"].as_i64().unwrap_or(0)).ok()?;
    let time = jiff::Timestamp::new(seconds, nanos).ok()?;
    Some(time.to_string().into())
}

fn int_or_string(body: &[u8]) -> Option<Value> {
    const FIELDS: &[Field] = &[
        (1, "type", MaybeNumber),
        (2, "int", MaybeNumber),
        (3, "text", Text),
    ];
    let mut parts = message(FIELDS, body, 1)?;
    Some(if parts["type"] == 1 {
        parts["text"].as_str().unwrap_or_default().into()
    } else {
        parts["int"]
            .as_i64()
            .map_or_else(|| 0.into(), |_| parts["int"].take())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    const CONFIG_MAP: &[u8] = b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b\x0a\x11\x0a\x01x\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x06\x0a\x01a\x12\x01b\x1a\x00\"\x00";

    #[test]
    fn a_config_map_as_kubectl_sends_it_is_what_it_would_be_in_json() {
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}});
        assert_eq!(super::object(CONFIG_MAP), Some(want));
    }

    #[test]
    fn what_breaks_off_or_is_no_message_is_none() {
        for end in 0..CONFIG_MAP.len() - 4 {
            let cut = super::object(&CONFIG_MAP[..end]);
            assert!(cut.is_none_or(|o| o["data"].is_null()), "cut at {end}");
        }
        assert_eq!(
            super::object(b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
            None
        );
        assert_eq!(super::object(b"{}"), None);
    }

    #[test]
    fn times_and_counts_are_read() {
        assert_eq!(
            super::time(b"\x08\x80\xe2\xcf\xaa\x06"),
            Some(json!("2023-11-14T22:13:20Z"))
        );
        assert_eq!(super::time(b""), Some(json!(null)));
        assert_eq!(
            super::int_or_string(b"\x08\x01\x10\0\x1a\x0350%"),
            Some(json!("50%"))
        );
        assert_eq!(
            super::int_or_string(b"\x08\0\x10\x02\x1a\0"),
            Some(json!(2))
        );
    }
}
