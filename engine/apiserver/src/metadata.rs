//! What the metadata of every object must be like: names, labels, annotations, owners, finalizers.

use fleetwright_schema::FieldError;
use serde_json::Value;

use crate::registry::Kind;

const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "a qualified name";
/// The most that all annotations of an object may hold together, in bytes.
const ANNOTATIONS: usize = 256 << 10;
/// Finalizers of Kubernetes' own, which need no domain.
const OWN_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

/// Brings metadata into the form in which Kubernetes writes it: without what is empty.
pub(crate) fn normalize(object: &mut Value) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    meta.retain(|field, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty() && field != "selfLink",
        Value::Object(map) => {
            for text in map.values_mut().filter(|text| text.is_null()) {
                *text = "".into();
            }
            !map.is_empty()
        }
        // An empty list of managers is a wish to forget those that are known.
        Value::Array(list) => !list.is_empty() || field == "managedFields",
        Value::Number(count) => field != "generation" || count.as_i64() != Some(0),
        Value::Bool(_) => true,
    });
    let owners = meta
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut);
    for owner in owners
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        owner.retain(|_, value| !value.is_null());
        for field in ["apiVersion", "kind", "name", "uid"] {
            owner.entry(field).or_insert_with(|| "".into());
        }
    }
}

/// Puts the metadata that no update changes back to what it is in `live`.
pub(crate) fn keep(live: &Value, object: &mut Value) {
    let had = &live["metadata"];
    let mut meta = crate::object::meta(object);
    for field in [
        "creationTimestamp",
        "namespace",
        "generation",
        "resourceVersion",
        "selfLink",
    ] {
        match &had[field] {
            Value::Null => drop(meta.remove(field)),
            value => meta.set(field, value.clone()),
        }
    }
    if !had["deletionTimestamp"].is_null() {
        meta.set("deletionTimestamp", had["deletionTimestamp"].clone());
    }
    for field in ["uid", "deletionGracePeriodSeconds"] {
        if meta.get(field).is_null() && !had[field].is_null() {
            meta.set(field, had[field].clone());
        }
    }
}

/// What is wrong with how an update changes metadata.
pub(crate) fn changes(live: &Value, object: &Value) -> Vec<FieldError> {
    let (had, has) = (&live["metadata"], &object["metadata"]);
    let mut errors = Vec::new();
    if crate::object::deleting(live) {
        let known = crate::object::finalizers(live);
        let mut new = crate::object::finalizers(object);
        new.retain(|f| !known.contains(f));
        new.sort();
        if !new.is_empty() {
            let shown: Vec<String> = new.iter().map(|f| format!("{f:?}")).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                shown.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &why));
        }
    }
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if had[field] != has[field] {
            let field_name = format!("metadata.{field}");
            errors.push(FieldError::invalid(
                field_name,
                &has[field],
                "field is immutable",
            ));
        }
    }
    texts(has, &mut errors);
    errors
}

/// Everything that is wrong with an object's metadata.
pub(crate) fn faults(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let meta = &object["metadata"];
    let mut errors: Vec<FieldError> = name(kind, meta["name"].as_str().unwrap_or_default())
        .into_iter()
        .collect();
    texts(meta, &mut errors);
    finalizers(kind, &meta["finalizers"], &mut errors);
    errors
}

/// What is wrong with labels, annotations and owners.
fn texts(meta: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in meta["labels"].as_object().into_iter().flatten() {
        let invalid =
            |what: &str, why: &str| FieldError::invalid("metadata.labels", &Value::from(what), why);
        errors.extend(
            qualified(key, QUALIFIED)
                .iter()
                .map(|why| invalid(key, why)),
        );
        let value = value.as_str().unwrap_or_default();
        errors.extend(label_value(value).iter().map(|why| invalid(value, why)));
    }
    let mut size = 0;
    for (key, value) in meta["annotations"].as_object().into_iter().flatten() {
        for why in qualified(&key.to_lowercase(), QUALIFIED) {
            let key = Value::from(key.as_str());
            errors.push(FieldError::invalid("metadata.annotations", &key, &why));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS {
        let limit = u64::try_from(ANNOTATIONS).unwrap_or(u64::MAX);
        errors.push(FieldError::too_long("metadata.annotations", limit));
    }
    owners(&meta["ownerReferences"], errors);
}

/// What is wrong with an object's name.
fn name(kind: &Kind, name: &str) -> Option<FieldError> {
    let field = "metadata.name";
    if name.is_empty() {
        return Some(FieldError::required(
            field,
            "name or generateName is required",
        ));
    }
    let label = kind.group.is_empty() && kind.plural == "namespaces";
    let (longest, why) = if label {
        (63, DNS_LABEL)
    } else {
        (253, DNS_SUBDOMAIN)
    };
    let shown = Value::from(name);
    if name.len() > longest {
        let unit = if label { "bytes" } else { "characters" };
        let why = format!("must be no more than {longest} {unit}");
        return Some(FieldError::invalid(field, &shown, &why));
    }
    let good = is_subdomain(name) && !(label && name.contains('.'));
    (!good).then(|| FieldError::invalid(field, &shown, why))
}

fn is_subdomain(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.chars().all(|c| edge(c) || matches!(c, '-' | '.'))
        && name
            .split('.')
            .all(|part| part.starts_with(edge) && part.ends_with(edge))
}

fn is_part(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(edge)
        && name.ends_with(edge)
        && name
            .chars()
            .all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
}

/// Why a text is no key of a label.
pub(crate) fn label_key(text: &str) -> Vec<String> {
    qualified(text, "a valid label key")
}

/// Why a text is no value of a label.
pub(crate) fn label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 63 {
        out.push("must be no more than 63 bytes".to_owned());
    }
    if !text.is_empty() && !is_part(text) {
        out.push(LABEL_VALUE.to_owned());
    }
    out
}

/// Why a name such as `example.com/name` is none; `what` is what it should be.
fn qualified(text: &str, what: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let mut out = Vec::new();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else if prefix.len() > 253 {
                out.push("prefix part must be no more than 253 bytes".to_owned());
            } else if !is_subdomain(prefix) {
                out.push(format!("prefix part {DNS_SUBDOMAIN}"));
            }
            *name
        }
        _ => {
            return vec![format!(
                "{what} {NAME_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_part(name) {
        out.push(format!("name part {NAME_PART}"));
    }
    out
}

fn owners(list: &Value, errors: &mut Vec<FieldError>) {
    let mut controllers = Vec::new();
    for owner in list.as_array().into_iter().flatten() {
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            let value = owner[field].as_str().unwrap_or_default();
            let empty = match value.rsplit('/').next() {
                Some(version) if field == "apiVersion" => version.is_empty(),
                _ => value.is_empty(),
            };
            if empty {
                let field = format!("metadata.ownerReferences.{field}");
                errors.push(FieldError::invalid(field, &value.into(), why));
            }
        }
        if owner["apiVersion"] == "v1" && owner["kind"] == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid("metadata.ownerReferences", owner, why));
        }
        if owner["controller"] == true {
            controllers.push(owner["name"].as_str().unwrap_or_default());
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        errors.push(FieldError::invalid("metadata.ownerReferences", list, &why));
    }
}

fn finalizers(kind: &Kind, list: &Value, errors: &mut Vec<FieldError>) {
    let list = crate::object::strings(list);
    for (i, finalizer) in list.iter().enumerate() {
        let field = if kind.custom {
            "metadata.finalizers".to_owned()
        } else {
            format!("metadata.finalizers[{i}]")
        };
        let shown = Value::from(finalizer.as_str());
        let faults = qualified(finalizer, QUALIFIED);
        if !faults.is_empty() {
            for why in faults {
                errors.push(FieldError::invalid(&field, &shown, &why));
            }
        } else if !kind.custom && is_bare(finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(field, &shown, why));
        }
    }
    let has = |name: &str| list.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        let shown = Value::from(list.clone());
        errors.push(FieldError::invalid("metadata.finalizers", &shown, why));
    }
}

fn is_bare(finalizer: &str) -> bool {
    !finalizer.contains('/') && !OWN_FINALIZERS.contains(&finalizer)
}

/// What the server warns of when finalizers come anew to an object of a custom kind.
pub(crate) fn warnings(object: &Value, live: Option<&Value>) -> Vec<String> {
    let before = live.map(crate::object::finalizers).unwrap_or_default();
    crate::object::finalizers(object)
        .into_iter()
        .filter(|f| is_bare(f) && !before.contains(f))
        .map(|f| {
            format!(
                "metadata.finalizers: {}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers",
                Value::from(f)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_part_is_held_to_its_rule() {
        let kind = Kind {
            custom: true,
            ..Kind::default()
        };
        let told = |meta: Value| -> Vec<String> {
            let mut object = json!({"metadata": {"name": "a"}});
            for (field, value) in meta.as_object().unwrap() {
                object["metadata"][field] = value.clone();
            }
            faults(&kind, &object)
                .iter()
                .map(FieldError::to_string)
                .collect()
        };
        assert_eq!(
            told(
                json!({"labels": {"a.b/c-d_e": "X.1", "x": ""}, "annotations": {"A/b": "any thing"},
            "finalizers": ["example.com/x", "bare"], "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u"}]})
            ),
            Vec::<String>::new()
        );
        let table = [
            (
                json!({"name": "A"}),
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must co",
            ),
            (
                json!({"labels": {"a b": ""}}),
                "metadata.labels: Invalid value: \"a b\": name part must consist of alphanum",
            ),
            (
                json!({"labels": {"/b": ""}}),
                "metadata.labels: Invalid value: \"/b\": prefix part must be non-empty",
            ),
            (
                json!({"labels": {"a": "b c"}}),
                "metadata.labels: Invalid value: \"b c\": a valid label must be an empty str",
            ),
            (
                json!({"annotations": {"a/b/c": ""}}),
                "metadata.annotations: Invalid value: \"a/b/c\": a qualified name must consi",
            ),
            (
                json!({"ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n"}]}),
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            ),
            (
                json!({"finalizers": ["a b"]}),
                "metadata.finalizers: Invalid value: \"a b\": name part must consist of alph",
            ),
        ];
        for (meta, want) in table {
            let told = told(meta);
            assert!(told.len() == 1 && told[0].starts_with(want), "{told:?}");
        }
    }
}
