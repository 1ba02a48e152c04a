//! Objects that an administrator gives to `up`: what no repository may hold.

use std::path::Path;

use fleetwright_api::API_VERSION;
use fleetwright_core::yaml;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

use crate::{client, error::Failure, setup};

const FIELD_MANAGER: &str = "fleetwright-admin";
/// Kinds that the file may hold, in the order in which they are applied; cluster-scoped ones say so.
const KINDS: [(&str, &str, bool); 4] = [
    ("v1", "Namespace", true),
    ("v1", "Secret", false),
    (API_VERSION, "ProviderAccount", true),
    (API_VERSION, "Fleet", false),
];

/// Applies the objects of `file`.
///
/// # Errors
/// The file cannot be read or has mistakes, each with its place; or the API refuses an object.
pub(crate) async fn apply(client: &Client, file: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))?;
    for object in read(file, &text)? {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
            object
                .api_version
                .split_once('/')
                .map_or("", |(group, _)| group),
            object.api_version.rsplit('/').next().unwrap_or_default(),
            object.kind,
        ));
        let api: Api<DynamicObject> = if object.namespace.is_empty() {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), &object.namespace, &resource)
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let body = Patch::Apply(&object.document);
        let done = api.patch(&object.name, &params, &body).await;
        done.map_err(|e| {
            let what = format!(
                "{}: cannot apply {} {}",
                object.place, object.kind, object.name
            );
            client::failure(&what, e)
        })?;
    }
    Ok(())
}

struct Object {
    place: String,
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    document: Value,
}

fn read(file: &Path, text: &str) -> Result<Vec<Object>, Failure> {
    let at = |place: yaml::Place| format!("{}:{}:{}", file.display(), place.line, place.column);
    let documents =
        yaml::parse(text).map_err(|e| Failure::input(format!("{}: {}", at(e.place), e.message)))?;
    let (mut objects, mut mistakes) = (Vec::new(), Vec::new());
    for node in &documents {
        let mut document = node.to_value();
        let text = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let place = at(node.place);
        let Some((rank, known)) = KINDS
            .iter()
            .enumerate()
            .find(|(_, k)| k.0 == version && k.1 == kind)
        else {
            mistakes.push(format!(
                "{place}: {kind:?} of {version:?} may not stand here: Namespace, Secret, ProviderAccount and Fleet may"
            ));
            continue;
        };
        let name = text("/metadata/name").to_owned();
        if name.is_empty() {
            mistakes.push(format!("{place}: metadata.name is missing"));
            continue;
        }
        let namespace = match text("/metadata/namespace") {
            _ if known.2 => String::new(),
            "" => "default".to_owned(),
            given => given.to_owned(),
        };
        if (known.1, namespace.as_str(), name.as_str()) == ("Fleet", "default", setup::FLEET)
            && let Some(spec) = document.get_mut("spec").and_then(Value::as_object_mut)
        {
            // What this one follows is said by the argument of `up`.
            spec.remove("source");
        }
        if !namespace.is_empty() {
            document["metadata"]["namespace"] = namespace.clone().into();
        }
        let object = Object {
            place,
            api_version: known.0,
            kind: known.1,
            namespace,
            name,
            document,
        };
        objects.push((rank, object));
    }
    if !mistakes.is_empty() {
        return Err(Failure::input(mistakes.join("\n")));
    }
    objects.sort_by_key(|(rank, _)| *rank);
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_in_the_order_in_which_they_need_each_other() {
        let text = "apiVersion: fleetwright.dev/v1alpha1\nkind: ProviderAccount\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
        let read = read(Path::new("x.yaml"), text).unwrap();
        let seen: Vec<_> = read
            .iter()
            .map(|o| (o.kind, o.namespace.as_str()))
            .collect();
        assert_eq!(seen, [("Secret", "default"), ("ProviderAccount", "")]);
    }

    #[test]
    fn all_mistakes_come_at_once_with_their_places() {
        let text = "kind: Pod\napiVersion: v1\n---\napiVersion: v1\nkind: Namespace\n";
        let failure = read(Path::new("x.yaml"), text).err().unwrap().message;
        assert_eq!(
            failure,
            "x.yaml:1:1: \"Pod\" of \"v1\" may not stand here: Namespace, Secret, ProviderAccount and Fleet may\nx.yaml:4:1: metadata.name is missing"
        );
        assert!(read(Path::new("x.yaml"), "a: [").is_err());
    }
}
