//! What the cells of core kinds are made of.

use jiff::Timestamp;
use serde_json::Value;

use super::path::age;

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(super) fn count(value: &Value) -> Value {
    value.as_i64().unwrap_or(0).into()
}

pub(super) fn or(value: &Value, other: &str) -> Value {
    match value.as_str() {
        Some(text) if !text.is_empty() => text.into(),
        _ => other.into(),
    }
}

pub(super) fn or_none(value: &Value) -> Value {
    or(value, "<none>")
}

pub(super) fn or_unknown(value: &Value) -> Value {
    or(value, "<unknown>")
}

pub(super) fn first<'a>(one: &'a Value, other: &'a Value) -> &'a Value {
    if one.is_null() { other } else { one }
}

pub(super) fn joined<T: AsRef<str>>(parts: &[T]) -> Value {
    if parts.is_empty() {
        return "<none>".into();
    }
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    parts.join(",").into()
}

pub(super) fn pairs(map: &Value) -> Value {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    joined(&pairs)
}

pub(super) fn amount(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

pub(super) fn modes(value: &Value) -> Value {
    let modes: Vec<&str> = list(value)
        .iter()
        .filter_map(Value::as_str)
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    modes.join(",").into()
}

pub(super) fn since(time: &Value, now: Timestamp) -> Value {
    age(time.as_str().unwrap_or_default(), now).into()
}

pub(super) fn deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

pub(super) fn phase(object: &Value) -> Value {
    if deleting(object) {
        return "Terminating".into();
    }
    object["status"]["phase"]
        .as_str()
        .unwrap_or_default()
        .into()
}

/// What an event is about, in the words of either of its versions.
pub(super) fn about(event: &Value) -> &Value {
    first(&event["involvedObject"], &event["regarding"])
}

pub(super) fn first_seen(event: &Value) -> &Value {
    let seen = first(&event["firstTimestamp"], &event["deprecatedFirstTimestamp"]);
    first(seen, &event["eventTime"])
}

pub(super) fn last_seen(event: &Value, now: Timestamp) -> Value {
    let last = first(&event["lastTimestamp"], &event["deprecatedLastTimestamp"]);
    let last = first(last, first_seen(event));
    since(first(&event["series"]["lastObservedTime"], last), now)
}

pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&object["status"]["conditions"])
        .iter()
        .find(|c| c["type"] == kind)
}

pub(super) fn node_status(node: &Value) -> Value {
    let mut status = match condition(node, "Ready").map(|c| &c["status"]) {
        Some(status) if status == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

pub(super) fn address(node: &Value, kind: &str) -> Value {
    let found = list(&node["status"]["addresses"])
        .iter()
        .find(|a| a["type"] == kind);
    found.map_or("<none>".into(), |a| or_none(&a["address"]))
}

pub(super) fn pod_status(pod: &Value) -> Value {
    let status = &pod["status"];
    if deleting(pod) {
        return if status["reason"] == "NodeLost" {
            "Unknown"
        } else {
            "Terminating"
        }
        .into();
    }
    let waits = list(&status["containerStatuses"])
        .iter()
        .rev()
        .find_map(|s| {
            let state = &s["state"];
            let reason = |of: &Value| {
                of["reason"]
                    .as_str()
                    .filter(|r| !r.is_empty())
                    .map(str::to_owned)
            };
            reason(&state["waiting"]).or_else(|| reason(&state["terminated"]))
        });
    match (waits, status["reason"].as_str()) {
        (Some(waits), _) => waits.into(),
        (None, Some(reason)) if !reason.is_empty() => reason.into(),
        _ => status["phase"].as_str().unwrap_or_default().into(),
    }
}
