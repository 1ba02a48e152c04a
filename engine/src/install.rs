//! Prepares a Kubernetes for engines: our kinds, and what an engine runs as there.

pub(crate) mod manifests;
mod upgrade;

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind, TypeMeta},
    runtime::{conditions, wait::await_condition},
};
use serde_json::Value;

use self::upgrade::{Upgrade, upgrade};
use crate::{client, error::Failure, output::print};

const FIELD_MANAGER: &str = "fleetwright-install";
/// How long the API server may take to serve a kind.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a definition is looked at anew that somebody else changes meanwhile.
const TRIES: usize = 5;

/// Writes our definitions, never taking a version away that objects are stored in, and waits until they are served.
///
/// # Errors
/// The API refuses, or the cluster has definitions of a release that this one does not know.
pub(crate) async fn definitions(client: &Client) -> Result<(), Failure> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let all = manifests::definitions();
    for ours in &all {
        definition(&api, ours).await?;
    }
    for ours in &all {
        let name = ours.name_any();
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        match tokio::time::timeout(PATIENCE, served).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let error = anyhow::Error::new(error).context(format!("cannot watch {name}"));
                return Err(Failure::from(error));
            }
            Err(_) => {
                let text = format!(
                    "{name} was not established in {} s: its conditions say why",
                    PATIENCE.as_secs()
                );
                return Err(Failure::input(text));
            }
        }
    }
    Ok(())
}

async fn definition(
    api: &Api<CustomResourceDefinition>,
    ours: &CustomResourceDefinition,
) -> Result<(), Failure> {
    let name = ours.name_any();
    let failed = |e| client::failure(&format!("cannot apply {name}"), e);
    let mut tries = 0;
    loop {
        tries += 1;
        let live = api.get_opt(&name).await.map_err(failed)?;
        let next = match upgrade(live.as_ref(), ours) {
            Ok(Upgrade::Write(next)) => next,
            Ok(Upgrade::Keep(release)) => {
                print(&format!("kept       {name}, of release {release}\n"));
                return Ok(());
            }
            Err(refused) => return Err(Failure::input(refused.to_string())),
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(&name, &params, &Patch::Apply(&next)).await {
            Ok(_) => {
                print(&format!("applied    {name}\n"));
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Writes everything else.
///
/// # Errors
/// The API refuses.
pub(crate) async fn objects(client: &Client, objects: &[Value]) -> Result<(), Failure> {
    for object in objects {
        let (api, name, what) = place_of(client, object)?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(object))
            .await
            .map_err(|e| client::failure(&format!("cannot apply {what}"), e))?;
        print(&format!("applied    {what}\n"));
    }
    Ok(())
}

fn place_of(
    client: &Client,
    object: &Value,
) -> Result<(Api<DynamicObject>, String, String), Failure> {
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::from(anyhow::anyhow!("an object of ours is none: {e}"))
    };
    let types = TypeMeta {
        api_version: text(object, "/apiVersion"),
        kind: text(object, "/kind"),
    };
    let kind = GroupVersionKind::try_from(&types).map_err(|e| wrong(&e))?;
    let resource = ApiResource::from_gvk(&kind);
    let (name, namespace) = (
        text(object, "/metadata/name"),
        text(object, "/metadata/namespace"),
    );
    let api = match namespace.as_str() {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let what = format!("{} {name}", kind.kind);
    Ok((api, name, what))
}

fn text(object: &Value, pointer: &str) -> String {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}
