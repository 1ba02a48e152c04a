//! The bodies of requests: read, and held against the kind that they should be of.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::Call;
use crate::error::{ApiError, ApiResult, Cause};
use crate::object::text;
use crate::{core_schemas, core_types, decode, proto};

const YAML: &[&str] = &["application/yaml", "application/apply-patch+yaml"];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The media types of whole objects.
pub(super) const OBJECTS: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Reads a body by its media type, with the fields that stand in it twice; `None` for one that is not understood.
pub(crate) fn read(
    content_type: &str,
    body: &Bytes,
) -> Option<Result<(Value, Vec<String>), String>> {
    match content_type {
        PROTOBUF => proto::object(body).map(|object| Ok((object, Vec::new()))),
        yaml if YAML.contains(&yaml) => Some(decode::yaml(body).map(|value| (value, Vec::new()))),
        _ => Some(decode::json(body)),
    }
}

/// The beginning of a body, as messages quote it.
fn summary(body: &[u8]) -> String {
    const LONGEST: usize = 30;
    let (shown, more) = match body.get(..LONGEST) {
        Some(head) if body.len() > LONGEST => (head, " ..."),
        _ => (body, ""),
    };
    match shown.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned() + more,
        Some(_) => shown.iter().map(|b| format!("{b:02x}")).collect::<String>() + more,
    }
}

/// What Go's parser calls a value.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Call<'_> {
    /// The body as a value, and the fields that stand in it twice.
    pub(crate) fn value(&self) -> ApiResult<(Value, Vec<String>)> {
        read(self.content_type, &self.body)
            .ok_or_else(|| ApiError::media_type(OBJECTS))?
            .map_err(|fault| match self.content_type {
                "application/apply-patch+yaml" => {
                    let text =
                        format!("error decoding YAML: error converting YAML to JSON: {fault}");
                    ApiError::bad_request(text)
                }
                "application/strategic-merge-patch+json" => ApiError::bad_request(fault),
                patch if patch.ends_with("-patch+json") => {
                    ApiError::bad_request(format!("error decoding patch: {fault}"))
                }
                "application/json" => self.unrecognized(&format!(
                    "couldn't get version/kind; json parse error: {fault}"
                )),
                _ => self.unrecognized(&fault),
            })
    }

    fn unrecognized(&self, fault: &str) -> ApiError {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {fault} ({})",
            self.kind.kind,
            summary(&self.body)
        ))
    }

    /// The body as an object of the kind, without fields that the kind has not.
    pub(crate) fn object(&self) -> ApiResult<Value> {
        if !OBJECTS.split(", ").any(|media| media == self.content_type) {
            return Err(ApiError::media_type(OBJECTS));
        }
        let (mut object, duplicates) = self.value()?;
        self.typed(&mut object)?;
        self.check_type(&object)?;
        self.known_fields(&mut object, &duplicates)?;
        crate::metadata::normalize(&mut object);
        self.plain(&mut object);
        Ok(object)
    }

    /// Brings a core object into the form in which Kubernetes writes it: without empty lists and maps.
    fn plain(&self, object: &mut Value) {
        if !self.kind.custom {
            core_types::plain(self.kind.compiled().root(), object);
        }
    }

    /// What a patch made, as an object of the kind, without fields that the kind has not; `duplicates` are those that the
    /// patch gives twice.
    pub(crate) fn patched(&self, mut object: Value, duplicates: &[String]) -> ApiResult<Value> {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default();
        if self.kind.custom && !version.is_empty() && version != self.kind.api_version() {
            let text = format!(
                "Invalid value: {version:?}: must be {}",
                self.kind.api_version()
            );
            let cause = Cause::new("FieldValueInvalid", "apiVersion", text);
            let group = version.split_once('/').map_or("", |(group, _)| group);
            return Err(ApiError::invalid(group, kind, &self.target.name, &[cause]));
        }
        if kind.is_empty() {
            let fault = format!("Object 'Kind' is missing in '{object}'");
            return Err(ApiError::patch(&object, &fault));
        }
        if let Some(fault) = self.mismatch(&object) {
            return Err(ApiError::patch(&object, &fault));
        }
        self.check_type(&object)?;
        // The refusal of unknown fields quotes what had them.
        let strict = self.query.get("fieldValidation") == "Strict";
        let as_it_came = if strict { object.clone() } else { Value::Null };
        let refuse = |fault: String| ApiError::patch(&as_it_came, &fault);
        self.known_fields_or(&mut object, duplicates, refuse)?;
        crate::metadata::normalize(&mut object);
        self.plain(&mut object);
        Ok(object)
    }

    /// The first field of a wrong type.
    fn mismatch(&self, object: &Value) -> Option<String> {
        if self.kind.custom {
            let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
            return core_types::mismatch(meta, &object["metadata"]);
        }
        let (version, own) = (&self.kind.version, &self.kind.kind);
        let name = core_schemas::name_of(&self.kind.group, version, own);
        core_types::mismatch(&name, object)
    }

    /// Refuses what says of itself no kind; core kinds may leave it out.
    fn typed(&self, object: &mut Value) -> ApiResult<()> {
        let fault = |what: String| {
            Err(self.unrecognized(&format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {what}"
            )))
        };
        if !object.is_object() {
            return fault(format!(
                "{} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                go_type(object)
            ));
        }
        for (field, name, own) in [
            ("kind", "Kind", self.kind.kind.clone()),
            ("apiVersion", "apiVersion", self.kind.api_version()),
        ] {
            match &object[field] {
                Value::String(text) if !text.is_empty() => {}
                Value::Null | Value::String(_) if !self.kind.custom => object[field] = own.into(),
                Value::Null | Value::String(_) => {
                    let raw = match self.content_type {
                        "application/json" => String::from_utf8_lossy(&self.body),
                        _ => Cow::Owned(object.to_string()),
                    };
                    return Err(
                        self.unrecognized(&format!("Object '{name}' is missing in '{raw}'"))
                    );
                }
                other => {
                    return fault(format!(
                        "{} into Go struct field .{field} of type string",
                        go_type(other)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether an object says that it is of this kind. One of a custom kind that does not is neither defaulted nor pruned,
    /// and is refused with everything else that is wrong with it.
    pub(crate) fn is_own(&self, object: &Value) -> bool {
        object["kind"] == self.kind.kind.as_str()
    }

    /// Refuses an object of another version, of another core kind, or with fields of wrong types.
    pub(crate) fn check_type(&self, object: &Value) -> ApiResult<()> {
        let (own, kind) = (
            self.kind.kind.as_str(),
            object["kind"].as_str().unwrap_or_default(),
        );
        let (want, got) = (
            self.kind.api_version(),
            object["apiVersion"].as_str().unwrap_or_default(),
        );
        if got != want {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({got}) does not match the expected API version ({want})"
            )));
        }
        let version = self.kind.version.as_str();
        let unfit = |fault: String| {
            Err(ApiError::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {own}: {fault}"
            )))
        };
        if !self.kind.custom && kind != own {
            let group = match self.kind.group.split('.').next() {
                Some("") | None => "core",
                Some(group) => group,
            };
            return unfit(format!(
                "converting ({version}.{kind}) to ({group}.{own}): unknown conversion"
            ));
        }
        self.mismatch(object).map_or(Ok(()), unfit)
    }

    /// Writes the quantities of the core kinds that have some as texts.
    pub(crate) fn quantities(&self, object: &mut Value) {
        const WITH: [&str; 5] = [
            "daemonsets",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
        ];
        if !self.kind.custom && WITH.contains(&self.kind.plural.as_str()) {
            let (group, version) = (&self.kind.group, &self.kind.version);
            let name = core_schemas::name_of(group, version, &self.kind.kind);
            core_types::quantities(&name, object);
        }
    }

    pub(crate) fn check_namespace(&self, object: &Value) -> ApiResult<()> {
        let namespace = text(object, "namespace");
        if !namespace.is_empty() && namespace != self.target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(())
    }
}
