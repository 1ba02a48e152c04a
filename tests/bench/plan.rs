//! Plans of a large fleet that is as its repository says: what a look costs that finds nothing to do, in this process.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::Context as _;
use fleetwright_api::{
    crds,
    fleet::Allow,
    random::OsRandom,
    time::{Clock as _, SystemClock},
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_core::{
    catalogue::Catalogue,
    plan::{Desired, Key, Live, Plan, Policy, forecast, plan},
};
use fleetwright_gitops::{
    apply::{Settings, api_of, apply},
    gather::{by_key, desired_of, gather, gather_machines, load_files},
    load::SourceFile,
};
use fleetwright_provider_sim::config::schemas;
use fleetwright_store::Store;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{Args, process::Usage, table::Table};

/// Pools of each cluster.
const POOLS: usize = 5;
/// How often each thing is measured; the shortest time counts.
const TIMES: usize = 3;
/// Bounds of a plan of 2,000 clusters in which nothing changed.
const SECONDS: f64 = 1.0;
const MIB: f64 = 500.0 * 1e6 / (1024.0 * 1024.0);
/// Statuses that are written at the same time.
const AT_ONCE: usize = 32;

/// A fleet whose objects an API server holds as they are declared, with the statuses that controllers write.
struct Fleet {
    client: Client,
    catalogue: Catalogue,
    policy: Policy,
    desired: Vec<Desired>,
    documents: BTreeMap<Key, Value>,
}

/// What planning took.
struct Taken {
    seconds: f64,
    /// Highest memory less that before, in MiB.
    grown: f64,
    /// Highest memory of the whole process, in MiB.
    peak: f64,
}

/// Prints the figures.
pub(crate) async fn report(args: &Args) -> anyhow::Result<()> {
    let fleet = Fleet::make(args.clusters).await?;
    let few = fleet.with_few_changes();
    let title = format!(
        "Plans of {} clusters with {} pools",
        args.clusters,
        args.clusters * POOLS
    );
    let head = [
        "what",
        "s",
        "memory growth MiB",
        "whole process MiB",
        "changes",
    ];
    let mut table = Table::new(title, &head);
    let mut row = |what: &str, taken: &Taken, changes: usize| {
        table.row([
            what.to_owned(),
            format!("{:.3}", taken.seconds),
            format!("{:.0}", taken.grown),
            format!("{:.0}", taken.peak),
            changes.to_string(),
        ]);
    };
    let (taken, _) = measured(async || gather(&fleet.client, &fleet.desired, &fleet.policy).await)
        .await
        .context("gathering")?;
    row("read from the API", &taken, 0);
    let whole = async |desired: &[Desired]| -> anyhow::Result<Plan> {
        let mut live = gather(&fleet.client, desired, &fleet.policy).await?;
        let mut plan = fleet.plan(desired, &live);
        gather_machines(&fleet.client, &plan, &fleet.policy, &mut live).await?;
        fleet.forecast(&mut plan, &live);
        Ok(plan)
    };
    let (taken, plan) = measured(async || whole(&fleet.desired).await).await?;
    anyhow::ensure!(plan.is_empty(), "nothing changed, and yet there is a plan");
    row("read and planned, nothing changed", &taken, 0);
    let live = gather(&fleet.client, &fleet.desired, &fleet.policy).await?;
    let pure = async |desired: &[Desired]| -> anyhow::Result<Plan> {
        let mut plan = fleet.plan(desired, &live);
        fleet.forecast(&mut plan, &live);
        Ok(plan)
    };
    let (taken, plan) = measured(async || pure(&fleet.desired).await).await?;
    anyhow::ensure!(plan.is_empty(), "nothing changed, and yet there is a plan");
    row("planned, nothing changed", &taken, 0);
    let (taken, plan) = measured(async || pure(&few).await).await?;
    row(
        "planned, one pool in a hundred changed",
        &taken,
        plan.changes.len(),
    );
    let bound = [
        "bound, nothing changed".into(),
        format!("{SECONDS}"),
        format!("{MIB:.0}"),
    ];
    table.row(bound);
    table.print();
    Ok(())
}

/// Does it [`TIMES`] times.
async fn measured<T, E>(does: impl AsyncFn() -> Result<T, E>) -> anyhow::Result<(Taken, T)>
where
    E: Into<anyhow::Error>,
{
    let mut taken = Taken {
        seconds: f64::INFINITY,
        grown: 0.0,
        peak: 0.0,
    };
    let mut made = None;
    for _ in 0..TIMES {
        drop(made.take());
        // The highest memory is counted anew from here (proc(5)).
        std::fs::write("/proc/self/clear_refs", "5")?;
        let before = Usage::of("self")?.resident;
        let begun = Instant::now();
        made = Some(does().await.map_err(Into::into)?);
        taken.seconds = taken.seconds.min(begun.elapsed().as_secs_f64());
        taken.peak = Usage::of("self")?.peak.max(taken.peak);
        taken.grown = (taken.peak - before).max(taken.grown);
    }
    Ok((taken, made.context("nothing was done")?))
}

impl Fleet {
    async fn make(clusters: usize) -> anyhow::Result<Self> {
        let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
        let server = ApiServer::new(Store::memory(), options)?;
        let kinds = crds::all();
        let kinds = kinds.iter().map(serde_json::to_value);
        server
            .install_crds(&kinds.collect::<Result<Vec<_>, _>>()?)
            .await?;
        let mut catalogue = Catalogue::default();
        for schema in schemas() {
            catalogue.insert(&schema.api_version, &schema.kind, schema.schema);
        }
        let files: Vec<SourceFile> = (0..clusters)
            .map(|n| SourceFile {
                path: format!("c{n:04}.yaml"),
                content: Ok(documents(n).into_bytes()),
            })
            .collect();
        let allow = Allow::default();
        let loaded = load_files(&files, &catalogue, &allow, &Default::default());
        anyhow::ensure!(loaded.errors.is_empty(), "{:?}", loaded.errors.first());
        let desired = desired_of(&loaded);
        let fleet = Self {
            client: server.client("default"),
            catalogue,
            policy: Policy {
                namespace: "default".into(),
                fleet: "default".into(),
                ..Policy::default()
            },
            documents: by_key(&desired),
            desired,
        };
        let nothing = Live::default();
        let settings = Settings {
            revision: "1111111111111111111111111111111111111111",
            allow: &allow,
            previous: None,
        };
        let plan = fleet.plan(&fleet.desired, &nothing);
        let Self {
            client,
            desired,
            policy,
            ..
        } = &fleet;
        let applied = apply(client, &plan, desired, &nothing, policy, settings).await;
        anyhow::ensure!(applied.errors.is_empty(), "{:?}", applied.errors.first());
        stream::iter(fleet.documents.keys())
            .map(|key| status(client, key))
            .buffered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(fleet)
    }

    fn plan(&self, desired: &[Desired], live: &Live) -> Plan {
        let previous = Some(&self.documents);
        plan(desired, previous, live, &self.policy, &self.catalogue)
    }

    fn forecast(&self, plan: &mut Plan, live: &Live) {
        forecast(plan, live, &self.policy, &self.catalogue, SystemClock.now());
    }

    /// The same with other replicas of one pool in a hundred.
    fn with_few_changes(&self) -> Vec<Desired> {
        let mut desired = self.desired.clone();
        let pools = desired
            .iter_mut()
            .filter(|d| d.document["kind"] == "MachineDeployment");
        for pool in pools.step_by(100) {
            pool.document["spec"]["replicas"] = json!(4);
        }
        desired
    }
}

fn documents(n: usize) -> String {
    let account = ["sim-eu", "sim-us", "sim-ap"][n % 3];
    let config = format!(
        "{{apiVersion: sim.fleetwright.dev/v1alpha1, kind: SimMachineConfig, account: {account}, instanceType: sim.medium}}"
    );
    let labels = format!("{{env: prod, region: r{}}}", n % 7);
    let mut text = format!(
        "apiVersion: fleetwright.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: c{n:04}, labels: {labels}}}\nspec:\n  version: v1.33.2\n  \
         controlPlane: {{machines: {{replicas: 3, template: {{spec: {{providerConfig: {config}}}}}}}}}\n"
    );
    for pool in 0..POOLS {
        text += &format!(
            "---\napiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\nmetadata: {{name: c{n:04}-p{pool}, labels: {labels}}}\nspec:\n  \
             clusterName: c{n:04}\n  replicas: 3\n  rollout: {{strategy: {{rollingUpdate: {{maxSurge: 20%, maxUnavailable: 0}}}}}}\n  \
             template: {{metadata: {{labels: {{pool: p{pool}}}}}, spec: {{providerConfig: {config}, taints: [{{key: dedicated, value: p{pool}, effect: NoSchedule, propagation: Always}}]}}}}\n"
        );
    }
    text
}

/// Writes a status as large as controllers write it.
async fn status(client: &Client, key: &Key) -> anyhow::Result<()> {
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions: Vec<Value> = [
        "Available",
        "Ready",
        "RollingOut",
        "ScalingUp",
        "ScalingDown",
        "Remediating",
        "Paused",
    ]
    .map(condition)
    .into();
    let patch = json!({"status": {"observedGeneration": 1, "version": "v1.33.2", "conditions": conditions}});
    let params = PatchParams {
        field_manager: Some("fleetwright-bench".into()),
        ..PatchParams::default()
    };
    api_of(client, key)
        .patch_status(&key.name, &params, &Patch::Merge(patch))
        .await
        .with_context(|| format!("the status of {key}"))?;
    Ok(())
}
