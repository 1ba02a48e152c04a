//! A cluster's keys and certificates: made once, kept in Secrets and in escrow, and never made again for a cluster that runs.

use std::sync::Arc;

use fleetwright_api::{Cluster, Machine, condition::reason, meta};
use fleetwright_bootstrap::pki::{
    ClusterPki,
    secrets::{Found, Purpose},
};
use fleetwright_core::outcome::Hold;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};

use crate::{cache::name_of, reconcile::Shared};

/// The keys that are there, that were in escrow, or new ones where there never were any.
pub(super) async fn keys(
    shared: &Shared,
    cluster: &Cluster,
    control_plane: &[Machine],
    by: &str,
) -> Result<Arc<ClusterPki>, Hold> {
    let key = name_of(cluster);
    if let Some(pki) = shared.grounds.with(&key, |known| known.pki.clone()) {
        return Ok(pki);
    }
    let (namespace, name) = &key;
    let reference = shared.cluster_ref(namespace, name);
    let wrong = |error: String| Hold {
        why: error,
        for_good: Some(reason::TERMINAL),
    };
    let secrets = read(shared, namespace, name).await?;
    let escrow = shared.context.escrow.as_ref();
    let found = ClusterPki::find(name, &secrets).map_err(|e| wrong(e.to_string()))?;
    let mut escrowed = match escrow {
        Some(escrow) => {
            let newest = escrow.newest(&reference).await;
            newest.map_err(|e| Hold::passing(e.to_string()))?.is_some()
        }
        None => false,
    };
    let now = shared.now();
    // No instance carries its key, on its way up or gone wrong.
    let is_new = is_new(cluster, control_plane) && !shared.inventory.has_any(&reference.key);
    let lacking = !matches!(found, Found::All(_));
    let pki = match found {
        Found::All(pki) => *pki,
        Found::Nothing | Found::Lacking(_) if is_new => {
            ClusterPki::complete(name, &secrets, now).map_err(|e| wrong(e.to_string()))?
        }
        Found::Nothing | Found::Lacking(_) => {
            let taken = match escrow {
                Some(escrow) => escrow.take(&reference).await,
                None => Ok(None),
            };
            let lost = "the cluster runs, and its keys and certificates are gone: it is watched and not changed";
            match taken {
                Ok(Some(pki)) => pki,
                Ok(None) => {
                    let names = Purpose::ALL.map(|p| p.secret_name(name)).join(", ");
                    return Err(wrong(format!("{lost} until Secrets {names} are put back")));
                }
                Err(error) => return Err(wrong(format!("{lost}; {error}"))),
            }
        }
    };
    if let Some(escrow) = escrow
        && (!escrowed || is_new && lacking)
    {
        // Before anything is made with them. What is there may be of a cluster of this name before, or of keys whose storing was cut off.
        let put = escrow.put(&reference, &pki, now).await;
        put.map_err(|e| Hold::passing(e.to_string()))?;
        escrowed = true;
    }
    store(shared, cluster, &pki, &secrets, by).await?;
    let pki = Arc::new(pki);
    shared.grounds.with(&key, |known| {
        known.pki = Some(Arc::clone(&pki));
        known.escrowed = escrowed;
    });
    Ok(pki)
}

/// Whether nothing can have been made with keys of the cluster yet.
fn is_new(cluster: &Cluster, control_plane: &[Machine]) -> bool {
    let status = cluster.status.as_ref();
    let initialized = status
        .and_then(|s| s.initialization.as_ref())
        .is_some_and(|i| i.control_plane_initialized);
    !initialized && control_plane.iter().all(|m| m.spec.provider_id.is_none())
}

async fn read(shared: &Shared, namespace: &str, name: &str) -> Result<Vec<Secret>, Hold> {
    let api = Api::<Secret>::namespaced(shared.context.client.clone(), namespace);
    let mut secrets = Vec::new();
    for purpose in Purpose::ALL {
        let secret = purpose.secret_name(name);
        let found = api.get_opt(&secret).await;
        let found = found.map_err(|e| {
            Hold::passing(format!("Secret {namespace}/{secret} cannot be read: {e}"))
        })?;
        secrets.extend(found);
    }
    Ok(secrets)
}

async fn store(
    shared: &Shared,
    cluster: &Cluster,
    pki: &ClusterPki,
    there: &[Secret],
    by: &str,
) -> Result<(), Hold> {
    let (namespace, name) = name_of(cluster);
    let api = Api::<Secret>::namespaced(shared.context.client.clone(), &namespace);
    let params = PostParams {
        field_manager: Some(by.to_owned()),
        ..PostParams::default()
    };
    for mut secret in pki.secrets(&namespace, &name) {
        if there
            .iter()
            .any(|s| s.metadata.name == secret.metadata.name)
        {
            continue;
        }
        secret.metadata.owner_references = meta::controller_owner(cluster).map(|o| vec![o]);
        // One that somebody made meanwhile is read by the next look: it may be another's.
        api.create(&params, &secret).await.map_err(|e| {
            let secret = secret.metadata.name.as_deref().unwrap_or_default();
            Hold::passing(format!("Secret {namespace}/{secret} cannot be made: {e}"))
        })?;
    }
    Ok(())
}
