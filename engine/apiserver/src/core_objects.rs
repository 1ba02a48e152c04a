//! What the server fills in and checks of single core kinds before they are stored.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult, Cause};
use crate::handlers::Call;
use crate::object::text;

/// The taint of a node that has not said yet that it is ready; the cluster takes it away when it is.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Completes an object; `live` is what it replaces.
pub(crate) fn prepare(call: &Call<'_>, live: Option<&Value>, object: &mut Value) -> ApiResult<()> {
    match (call.kind.group.as_str(), call.kind.plural.as_str()) {
        ("", "namespaces") => {
            let name = text(object, "name").to_owned();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
            if !object["spec"]["finalizers"].is_array() {
                object["spec"] = json!({"finalizers": ["kubernetes"]});
            }
            if !object["status"]["phase"].is_string() {
                object["status"] = json!({"phase": "Active"});
            }
        }
        ("", "pods") => {
            crate::core_pods::spec(&mut object["spec"]);
            if !object["status"]["phase"].is_string() {
                object["status"]["phase"] = "Pending".into();
            }
            if object["status"]["qosClass"].is_null() {
                object["status"]["qosClass"] = crate::core_pods::quality(&object["spec"]).into();
            }
            condition_times(object, &["lastProbeTime", "lastTransitionTime"]);
        }
        ("", "nodes") => {
            node_status(&mut object["status"]);
            condition_times(object, &["lastHeartbeatTime", "lastTransitionTime"]);
        }
        ("", "configmaps") => keys(call, object, &["data", "binaryData"])?,
        ("", "secrets") => {
            secret(call, object)?;
            keys(call, object, &["data"])?;
        }
        ("", "services") => service(object),
        ("", "persistentvolumeclaims" | "persistentvolumes")
            if !object["status"]["phase"].is_string() =>
        {
            object["status"]["phase"] = "Pending".into();
        }
        ("apps", "daemonsets") => {
            crate::core_pods::spec(&mut object["spec"]["template"]["spec"]);
            let update = &mut object["spec"]["updateStrategy"];
            if update["type"] == "RollingUpdate" {
                or_insert(update, "rollingUpdate", json!({}));
                or_insert(&mut update["rollingUpdate"], "maxUnavailable", 1.into());
                or_insert(&mut update["rollingUpdate"], "maxSurge", 0.into());
            }
            counts(
                object,
                &[
                    "currentNumberScheduled",
                    "numberMisscheduled",
                    "desiredNumberScheduled",
                    "numberReady",
                ],
            );
        }
        ("policy", _) => counts(
            object,
            &[
                "disruptionsAllowed",
                "currentHealthy",
                "desiredHealthy",
                "expectedPods",
            ],
        ),
        ("storage.k8s.io", _) => {
            or_insert(object, "status", json!({}));
            or_insert(&mut object["status"], "attached", false.into());
        }
        ("coordination.k8s.io", _) => {
            // These belong to a kind of election that is not served.
            if let Some(spec) = object["spec"].as_object_mut() {
                spec.remove("strategy");
                spec.remove("preferredHolder");
            }
        }
        ("" | "events.k8s.io", "events") => event(call, live, object)?,
        ("apiextensions.k8s.io", _) => crate::crd::complete(call.server, object, live)?,
        _ => {}
    }
    Ok(())
}

/// What the server adds of its own to a new object, which is nobody's.
pub(crate) fn admit(call: &Call<'_>, object: &mut Value) {
    match (call.kind.group.as_str(), call.kind.plural.as_str()) {
        ("", "nodes") => taint(object),
        ("", "pods") => crate::core_pods::admit(&mut object["spec"]),
        _ => {}
    }
}

fn map(value: &mut Value) -> Option<&mut Map<String, Value>> {
    value.as_object_mut()
}

fn or_insert(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = map(object) {
        let slot = map.entry(field).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value;
        }
    }
}

/// The status of some kinds always says these numbers.
fn counts(object: &mut Value, fields: &[&str]) {
    or_insert(object, "status", json!({}));
    for field in fields {
        or_insert(&mut object["status"], field, 0.into());
    }
}

fn node_status(status: &mut Value) {
    if status.is_null() {
        *status = json!({});
    }
    let blank = crate::core_kinds::blank("Node");
    for field in ["daemonEndpoints", "nodeInfo"] {
        or_insert(status, field, json!({}));
        for (name, value) in blank["status"][field].as_object().into_iter().flatten() {
            or_insert(&mut status[field], name, value.clone());
        }
    }
    if status["allocatable"].is_null() && status["capacity"].is_object() {
        status["allocatable"] = status["capacity"].clone();
    }
}

/// Conditions of these kinds always say their times, be it that there is none.
fn condition_times(object: &mut Value, times: &[&str]) {
    let conditions = object
        .pointer_mut("/status/conditions")
        .and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        for time in times {
            or_insert(condition, time, Value::Null);
        }
    }
}

fn taint(node: &mut Value) {
    or_insert(node, "spec", json!({}));
    or_insert(&mut node["spec"], "taints", json!([]));
    if let Some(taints) = node["spec"]["taints"].as_array_mut()
        && !taints
            .iter()
            .any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule")
    {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

fn service(object: &mut Value) {
    or_insert(object, "spec", json!({}));
    let spec = &mut object["spec"];
    or_insert(spec, "type", "ClusterIP".into());
    or_insert(spec, "sessionAffinity", "None".into());
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        or_insert(port, "protocol", "TCP".into());
        let same = port["port"].clone();
        or_insert(port, "targetPort", same);
    }
    or_insert(object, "status", json!({"loadBalancer": {}}));
}

/// Events always say these, in either of their versions. New ones of `events.k8s.io` must say who reports what.
fn event(call: &Call<'_>, live: Option<&Value>, object: &mut Value) -> ApiResult<()> {
    let new = call.kind.group == "events.k8s.io";
    let fields = if new {
        [
            ("regarding", json!({})),
            ("deprecatedSource", json!({})),
            ("deprecatedFirstTimestamp", Value::Null),
            ("deprecatedLastTimestamp", Value::Null),
            ("eventTime", Value::Null),
        ]
    } else {
        or_insert(object, "reportingComponent", "".into());
        or_insert(object, "reportingInstance", "".into());
        [
            ("involvedObject", json!({})),
            ("source", json!({})),
            ("firstTimestamp", Value::Null),
            ("lastTimestamp", Value::Null),
            ("eventTime", Value::Null),
        ]
    };
    for (field, value) in fields {
        or_insert(object, field, value);
    }
    if live.is_some() {
        return Ok(());
    }
    let mut causes = Vec::new();
    let about = if new { "regarding" } else { "involvedObject" };
    let (namespace, of) = (&call.target.namespace, object[about]["namespace"].as_str());
    let of = of.unwrap_or_default();
    // What is of cluster scope is told of in the namespace `default`.
    if of != namespace.as_str() && !(of.is_empty() && namespace == "default") {
        causes.push(Cause::new(
            "FieldValueInvalid",
            "involvedObject.namespace",
            format!("Invalid value: \"{of}\": does not match event.namespace"),
        ));
    }
    if new {
        let required = [
            "eventTime",
            "reportingController",
            "reportingInstance",
            "action",
            "reason",
        ];
        for field in required {
            if object[field].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::new("FieldValueRequired", field, "Required value"));
            }
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let (group, name) = (&call.kind.group, text(object, "name"));
    Err(ApiError::invalid(group, "Event", name, &causes))
}

fn secret(call: &Call<'_>, object: &mut Value) -> ApiResult<()> {
    for value in object["data"].as_object().into_iter().flat_map(Map::values) {
        let data = value.as_str().unwrap_or_default();
        if STANDARD.decode(data).is_err() {
            let at = bad_base64(data);
            return Err(ApiError::bad_request(format!(
                "{} in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte {at}",
                call.kind.kind
            )));
        }
    }
    if let Some(plain) = map(object).and_then(|o| o.remove("stringData")) {
        for (field, value) in plain.as_object().into_iter().flatten() {
            object["data"][field] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    if !object["type"].is_string() {
        object["type"] = "Opaque".into();
    }
    Ok(())
}

/// The largest sum of the values of a ConfigMap or Secret, in bytes.
const LARGEST: usize = 1 << 20;

/// What some types of Secret must hold.
const SECRET_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/basic-auth", &["username", "password"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

/// Refuses keys that are no file names, keys in two fields, and too much of everything.
fn keys(call: &Call<'_>, object: &Value, fields: &[&str]) -> ApiResult<()> {
    let mut causes = Vec::new();
    let mut size = 0;
    for field in fields {
        for (key, value) in object[*field].as_object().into_iter().flatten() {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let at = format!("{field}[{key}]");
            let too_long = key.len() > 253;
            let dots = if key.starts_with("..") && key != "." && key != ".." {
                Some("must not start with '..'")
            } else if key == "." {
                Some("must not be '.'")
            } else if key == ".." {
                Some("must not be '..'")
            } else {
                None
            };
            if too_long {
                let text = format!("Invalid value: {key:?}: must be no more than 253 characters");
                causes.push(Cause::new("FieldValueInvalid", at.clone(), text));
            }
            if let Some(why) = dots {
                let text = format!("Invalid value: {key:?}: {why}");
                causes.push(Cause::new("FieldValueInvalid", at.clone(), text));
            }
            if key.is_empty() || !key.chars().all(plain) {
                let text = format!(
                    "Invalid value: {}: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                    Value::from(key.as_str())
                );
                causes.push(Cause::new("FieldValueInvalid", at, text));
            } else if *field == "binaryData" && !object["data"][key].is_null() {
                let text = format!(
                    "Invalid value: {}: duplicate of key present in data",
                    Value::from(key.as_str())
                );
                causes.push(Cause::new("FieldValueInvalid", at, text));
            }
            let length = value.as_str().map_or(0, str::len);
            let encoded = *field == "binaryData" || call.kind.plural == "secrets";
            size += if encoded { length / 4 * 3 } else { length };
        }
    }
    let wanted = SECRET_KEYS.iter().find(|(kind, _)| object["type"] == *kind);
    for key in wanted.into_iter().flat_map(|(_, keys)| *keys) {
        if object["data"][*key].is_null() {
            let at = format!("data[{key}]");
            causes.push(Cause::new("FieldValueRequired", at, "Required value"));
        }
    }
    if size > LARGEST {
        let field = if call.kind.plural == "secrets" {
            "data"
        } else {
            ""
        };
        let text = format!("Too long: may not be more than {LARGEST} bytes");
        causes.push(Cause::new("FieldValueTooLong", field, text));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        "",
        &call.kind.kind,
        text(object, "name"),
        &causes,
    ))
}

/// Where Go's decoder gives up: at the first character that cannot be there, or at the group that is not whole.
fn bad_base64(data: &str) -> usize {
    let bytes: Vec<(usize, u8)> = data
        .bytes()
        .enumerate()
        .filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'))
        .collect();
    for group in bytes.chunks(4) {
        for (nth, (at, byte)) in group.iter().enumerate() {
            let fits = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
            let padding = *byte == b'=' && nth >= 2;
            if padding && nth == 2 && group.get(3).is_none_or(|(_, last)| *last != b'=') {
                return group.get(3).map_or(data.len(), |(last, _)| *last);
            }
            if !fits && !padding {
                return *at;
            }
        }
        if group.len() < 4 {
            return group.first().map_or(0, |(at, _)| *at);
        }
    }
    data.find('=').map_or(data.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_place_is_the_one_that_go_names() {
        for (data, at) in [
            ("not base64!", 3),
            ("abc", 0),
            ("abcdef", 4),
            ("ab-d", 2),
            ("a=bc", 1),
            ("ab=c", 3),
        ] {
            assert_eq!(super::bad_base64(data), at, "{data}");
        }
    }
}
