//! Executes a plan by server-side apply.

use std::collections::BTreeMap;

use fleetwright_api::{
    meta::{ANNOTATION_REVISION, LABEL_FLEET, MANAGER_HANDOVER, fleet_manager},
    names::fleet_hash,
};
use fleetwright_core::plan::{Desired, Key, Plan, Policy, partial};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// Why a plan could not be executed to its end. Applying again is safe.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {key}")]
pub struct ApplyError {
    /// What was done.
    pub verb: &'static str,
    /// To which object.
    pub key: Box<Key>,
    /// The API's answer.
    #[source]
    pub source: Box<kube::Error>,
}

/// An API for the objects of a kind that Git may hold.
pub fn api_of(client: &Client, key: &Key) -> Api<DynamicObject> {
    let (group, version) = key
        .api_version
        .split_once('/')
        .unwrap_or(("", &key.api_version));
    let plural = format!("{}s", key.kind.to_lowercase());
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, &key.kind),
        &plural,
    );
    if key.namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &key.namespace, &resource)
    }
}

/// Executes `plan`: handovers, creates and changes, then deletes. `live_uids` are the uids that the plan was
/// made from: an object that was replaced since is not deleted. With `force`, fields of other managers are taken.
///
/// # Errors
/// The first refusal of the API; what was applied before it stays.
pub async fn apply(
    client: &Client,
    plan: &Plan,
    desired: &[Desired],
    live_uids: &BTreeMap<Key, String>,
    policy: &Policy,
    revision: &str,
    force: bool,
) -> Result<(), ApplyError> {
    let documents: BTreeMap<Key, &Value> = desired
        .iter()
        .map(|d| (Key::of(&d.document), &d.document))
        .collect();
    let hash = fleet_hash(&policy.namespace, &policy.fleet);
    let manager = fleet_manager(&policy.namespace, &policy.fleet);
    for change in plan.creates.iter().chain(&plan.changes) {
        let key = &change.key;
        let failed = |verb| {
            move |source| ApplyError {
                verb,
                key: Box::new(key.clone()),
                source: Box::new(source),
            }
        };
        let api = api_of(client, key);
        if !change.handover.is_empty() {
            let keep = partial(key, &change.handover);
            let params = PatchParams::apply(MANAGER_HANDOVER).force();
            api.patch(&key.name, &params, &Patch::Apply(&keep))
                .await
                .map_err(failed("hand over fields of"))?;
        }
        let Some(document) = documents.get(key) else {
            continue;
        };
        let sent = marked(document, &hash, revision);
        let mut params = PatchParams::apply(&manager);
        params.force = force;
        api.patch(&key.name, &params, &Patch::Apply(&sent))
            .await
            .map_err(failed("apply"))?;
    }
    for delete in &plan.deletes {
        let key = &delete.key;
        let Some(uid) = live_uids.get(key) else {
            continue;
        };
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api_of(client, key).delete(&key.name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                return Err(ApplyError {
                    verb: "delete",
                    key: Box::new(key.clone()),
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}

/// The document with the inventory's label and the revision's annotation.
fn marked(document: &Value, hash: &str, revision: &str) -> Value {
    let mut sent = document.clone();
    for (field, name, value) in [
        ("labels", LABEL_FLEET, hash),
        ("annotations", ANNOTATION_REVISION, revision),
    ] {
        if let Some(metadata) = sent.get_mut("metadata").and_then(Value::as_object_mut) {
            let map = metadata.entry(field).or_insert_with(|| json!({}));
            if map.is_null() {
                *map = json!({});
            }
            if let Some(map) = map.as_object_mut() {
                map.insert(name.to_owned(), value.into());
            }
        }
    }
    sent
}
