//! The values that a plan is made from: the Fleet's policy, what its files say, and what the API holds.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    API_VERSION, Fleet,
    fleet::{Allow, DEFAULT_PRUNE_MAX_MACHINES},
    meta::{ANNOTATION_AUTOSCALER_MAX, ANNOTATION_AUTOSCALER_MIN, LABEL_CLUSTER_NAME, LABEL_FLEET},
    names::fleet_hash,
};
use fleetwright_core::{
    catalogue::Catalogue,
    plan::{Desired, Key, Live, Plan, Policy, belonging::Fleets, has_quota},
};
use fleetwright_schema::managed;
use kube::{
    Api, Client, Resource as _, ResourceExt,
    api::{DynamicObject, ListParams},
    core::Request,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    apply::{api_of, resource_of},
    load::{LoadContext, Loaded, SourceFile, dangling, load},
};

/// Clusters whose machines are listed in one request: their names must fit into its address.
const CLUSTERS_AT_ONCE: usize = 50;
/// Machines of other clusters that tell how long one takes to come.
const OTHERS: u32 = 200;
/// Kinds that Git may hold, as (`apiVersion`, kind, whether all of them are listed).
const KINDS: &[(&str, &str, bool)] = &[
    (API_VERSION, "Cluster", true),
    (API_VERSION, "MachineDeployment", true),
    (API_VERSION, "MachineDrainRule", false),
    (API_VERSION, "MachineHealthCheck", false),
    ("v1", "ConfigMap", false),
    ("v1", "Namespace", false),
];

/// The live state could not be read: nothing may be concluded.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from the API")]
pub struct GatherError {
    /// What was read.
    pub what: String,
    /// Why it failed.
    #[source]
    pub source: Box<kube::Error>,
}

fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> GatherError {
    let what = what.into();
    move |source| GatherError {
        what,
        source: Box::new(source),
    }
}

/// What the planner must know of a Fleet.
pub fn policy_of(fleet: &Fleet) -> Policy {
    let most = fleet.spec.prune.as_ref().and_then(|p| p.max_machines);
    Policy {
        namespace: fleet.namespace().unwrap_or_else(|| "default".into()),
        fleet: fleet.name_any(),
        max_machines: usize::try_from(most.unwrap_or(DEFAULT_PRUNE_MAX_MACHINES)).unwrap_or(0),
        drift: fleet.spec.drift.clone().unwrap_or_default(),
        versions: fleet.spec.allowed_versions(),
        allow: fleet.spec.allow.clone().unwrap_or_default(),
        disruption: fleet.spec.disruption.clone(),
        waves: fleet.spec.waves.clone(),
        windows: fleet.spec.windows.clone(),
    }
}

/// The Clusters that there are, as (namespace, name): pools in Git may belong to them.
///
/// # Errors
/// [`GatherError`].
pub async fn live_clusters(client: &Client) -> Result<BTreeSet<(String, String)>, GatherError> {
    let resource = resource_of(API_VERSION, "Cluster");
    let list = Api::<DynamicObject>::all_with(client.clone(), &resource)
        .list(&ListParams::default())
        .await
        .map_err(failed("Clusters"))?;
    Ok(list
        .items
        .iter()
        .map(|c| (c.namespace().unwrap_or_default(), c.name_any()))
        .collect())
}

/// Loads files, with the schemas of `catalogue`; pools may belong to `live_clusters`.
pub fn load_files(
    files: &[SourceFile],
    catalogue: &Catalogue,
    allow: &Allow,
    live_clusters: &BTreeSet<(String, String)>,
) -> Loaded {
    let provider_schema = &|version: &str, kind: &str| catalogue.schema(version, kind);
    let context = LoadContext {
        provider_schema,
        allow,
    };
    let mut loaded = load(files, &context);
    loaded
        .errors
        .extend(dangling(&loaded.outside, live_clusters));
    loaded
}

/// The planner's view of what was loaded. The replicas of pools with the autoscaler's bounds are the autoscaler's.
pub fn desired_of(loaded: &Loaded) -> Vec<Desired> {
    loaded
        .objects
        .iter()
        .map(|object| {
            let mut document = object.document.clone();
            let annotations = document.pointer("/metadata/annotations");
            let scaled = [ANNOTATION_AUTOSCALER_MIN, ANNOTATION_AUTOSCALER_MAX]
                .iter()
                .all(|name| annotations.is_some_and(|a| a.get(name).is_some()));
            if scaled
                && object.key.kind == "MachineDeployment"
                && let Some(spec) = document.get_mut("spec").and_then(Value::as_object_mut)
            {
                spec.remove("replicas");
            }
            Desired {
                document,
                source: format!("{}:{}", object.file, object.line),
                origins: object.origins.clone(),
            }
        })
        .collect()
}

/// Documents by key.
pub fn by_key(desired: &[Desired]) -> BTreeMap<Key, Value> {
    desired
        .iter()
        .map(|d| (Key::of(&d.document), d.document.clone()))
        .collect()
}

/// Reads what the API holds of the kinds that Git may hold: all Clusters and pools, of the others the Fleet's and those
/// that `desired` names, and which Fleets there are. Machines come with it only when something would be deleted: they must be counted.
///
/// # Errors
/// [`GatherError`]; a partial answer is never given.
pub async fn gather(
    client: &Client,
    desired: &[Desired],
    policy: &Policy,
) -> Result<Live, GatherError> {
    let hash = fleet_hash(&policy.namespace, &policy.fleet);
    let wanted: BTreeSet<Key> = desired.iter().map(|d| Key::of(&d.document)).collect();
    let mut found: BTreeMap<Key, Value> = BTreeMap::new();
    let mut orphans = false;
    for (api_version, kind, whole) in KINDS {
        let mut params = ListParams::default();
        if !whole {
            params = params.labels(&format!("{LABEL_FLEET}={hash}"));
        }
        let list = values(client, (api_version, kind), &params).await;
        for mut value in list.map_err(failed(format!("{kind}s")))? {
            say_kind(&mut value, api_version, kind);
            let label = value.pointer("/metadata/labels");
            let label = label.and_then(|labels| labels.get(LABEL_FLEET)?.as_str());
            let ours = label == Some(&hash);
            let key = Key::of(&value);
            let is_wanted = wanted.contains(&key);
            orphans |= ours && !is_wanted && *whole;
            if ours || is_wanted || *whole {
                found.insert(key, value);
            }
        }
    }
    for key in &wanted {
        let listed = KINDS
            .iter()
            .any(|(_, kind, whole)| *whole && *kind == key.kind);
        if listed || found.contains_key(key) {
            continue;
        }
        let object = api_of(client, key)
            .get_opt(&key.name)
            .await
            .map_err(failed(key.to_string()))?;
        if let Some(object) = object {
            let mut value = serde_json::to_value(object).unwrap_or_default();
            say_kind(&mut value, &key.api_version, &key.kind);
            found.insert(key.clone(), value);
        }
    }
    let mut live = Live {
        objects: found.into_values().collect(),
        // After the objects: a Fleet that is not among them now had made none of them, or is gone.
        fleets: Some(fleets(client).await.map_err(failed("Fleets"))?),
        ..Live::default()
    };
    if orphans {
        let all = ListParams::default().labels(LABEL_CLUSTER_NAME);
        live.machines = list(client, &all, "Machines").await?;
    }
    Ok(live)
}

/// The Fleets that there are.
///
/// # Errors
/// The API cannot be read.
pub(crate) async fn fleets(client: &Client) -> Result<Fleets, kube::Error> {
    let all = Api::<Fleet>::all(client.clone());
    let all = all.list(&ListParams::default()).await?.into_iter();
    let named = all.map(|fleet| {
        let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
        let hash = fleet_hash(&namespace, &name);
        (hash, format!("{namespace}/{name}"))
    });
    Ok(named.collect())
}

/// Adds what a forecast needs of the clusters that `plan` touches: the accounts, their sets and Machines. All Machines where the Fleet has a
/// disruption budget or an account a quota of instances: all of them spend of it. Where the clusters have none, some Machines of others:
/// they tell how long one takes.
///
/// # Errors
/// [`GatherError`]; a partial answer is never given.
pub async fn gather_machines(
    client: &Client,
    plan: &Plan,
    policy: &Policy,
    live: &mut Live,
) -> Result<(), GatherError> {
    let names: BTreeSet<String> = plan.clusters().into_iter().map(|key| key.name).collect();
    live.machines.clear();
    if names.is_empty() {
        return Ok(());
    }
    live.accounts = list(client, &ListParams::default(), "ProviderAccounts").await?;
    let whole = policy.disruption.is_some() || live.accounts.iter().any(has_quota);
    for some in names
        .iter()
        .cloned()
        .collect::<Vec<_>>()
        .chunks(CLUSTERS_AT_ONCE)
    {
        let labels = format!("{LABEL_CLUSTER_NAME} in ({})", some.join(","));
        let params = ListParams::default().labels(&labels);
        live.sets
            .extend(list(client, &params, "MachineSets").await?);
        if !whole {
            live.machines
                .extend(list(client, &params, "Machines").await?);
        }
    }
    let all = ListParams::default().labels(LABEL_CLUSTER_NAME);
    if whole {
        live.machines = list(client, &all, "Machines").await?;
    } else if live.machines.is_empty() {
        live.machines = list(client, &all.limit(OTHERS), "Machines").await?;
    }
    Ok(())
}

async fn list<K>(client: &Client, params: &ListParams, what: &str) -> Result<Vec<K>, GatherError>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let list = Api::<K>::all(client.clone()).list(params).await;
    list.map(|l| l.items).map_err(failed(what))
}

/// All objects of a kind as they are sent, their managed fields packed. A typed list would be read twice, and be there beside its values.
async fn values(
    client: &Client,
    (api_version, kind): (&str, &str),
    params: &ListParams,
) -> Result<Vec<Value>, kube::Error> {
    #[derive(Deserialize)]
    struct Listed {
        items: Vec<Packed>,
    }
    // One by one, so that never all of them are there unpacked.
    struct Packed(Value);
    impl<'de> Deserialize<'de> for Packed {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let mut value = Value::deserialize(deserializer)?;
            managed::pack(&mut value);
            Ok(Self(value))
        }
    }
    let path = DynamicObject::url_path(&resource_of(api_version, kind), None);
    let request = Request::new(path).list(params);
    let request = request.map_err(kube::Error::BuildRequest)?;
    let listed: Listed = client.request(request).await?;
    Ok(listed.items.into_iter().map(|item| item.0).collect())
}

/// Items of lists do not always say their kind themselves.
fn say_kind(object: &mut Value, api_version: &str, kind: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
    }
}
