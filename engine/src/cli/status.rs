//! `fleetwright status`: fleets, clusters and pools at a glance.

use std::{collections::BTreeMap, fmt::Write as _};

use fleetwright_api::{
    Cluster, Fleet, MachineDeployment,
    condition::{self, kind},
    fleet::{FleetStatus, Held},
    time::{Clock as _, SystemClock},
    waves::WaveState,
};
use fleetwright_core::why::{Statement, cluster_waits, commit, pool_waits, span};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::json;

use crate::{
    client::{self, Connection},
    error::Failure,
    output::Output,
    overview::{Name, Overview, Shown, name},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.connection.client().await?;
    let fleets: Vec<Fleet> = list(&client).await?;
    let clusters: Vec<Cluster> = list(&client).await?;
    let pools: Vec<MachineDeployment> = list(&client).await?;
    args.output
        .print(&document(&fleets, &clusters, &pools), || {
            table(&fleets, &clusters, &pools, SystemClock.now())
        })
}

async fn list<K>(client: &Client) -> Result<Vec<K>, Failure>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let objects = Api::<K>::all(client.clone())
        .list(&ListParams::default())
        .await;
    objects
        .map(|l| l.items)
        .map_err(|e| client::failure(&format!("cannot list {}", K::plural(&())), e))
}

fn document(
    fleets: &[Fleet],
    clusters: &[Cluster],
    pools: &[MachineDeployment],
) -> serde_json::Value {
    json!({
        "fleets": fleets.iter().map(|f| json!({
            "namespace": f.namespace(), "name": f.name_any(), "status": f.status,
        })).collect::<Vec<_>>(),
        "clusters": clusters.iter().map(|c| json!({
            "namespace": c.namespace(), "name": c.name_any(), "version": c.spec.version, "status": c.status,
            "commit": commit(&c.metadata), "waits": cluster_waits(c),
        })).collect::<Vec<_>>(),
        "pools": pools.iter().map(|p| json!({
            "namespace": p.namespace(), "name": p.name_any(), "cluster": p.spec.cluster_name, "status": p.status,
            "commit": commit(&p.metadata), "waits": pool_waits(p),
        })).collect::<Vec<_>>(),
    })
}

/// Fleets, then clusters: a line each, and below it what it and its pools wait for and since when.
fn table(
    fleets: &[Fleet],
    clusters: &[Cluster],
    pools: &[MachineDeployment],
    now: Timestamp,
) -> String {
    let mut text = String::new();
    for fleet in fleets {
        let status = fleet.status.clone().unwrap_or_default();
        let ready = condition::get(&status.conditions, kind::READY);
        let revision = status
            .observed
            .as_ref()
            .map_or("nothing seen yet", |r| r.revision.as_str());
        let source = fleet
            .spec
            .source
            .url
            .as_deref()
            .or(fleet.spec.source.directory.as_deref())
            .unwrap_or_default();
        text += &format!(
            "fleet {}/{}  {source}  {revision}  {}\n",
            fleet.namespace().unwrap_or_default(),
            fleet.name_any(),
            ready.map_or("", |c| c.message.as_str()),
        );
        text += &below(&status, now);
    }
    let mut overview = Overview::default();
    clusters.iter().for_each(|c| c.put(&mut overview));
    pools.iter().for_each(|p| p.put(&mut overview));
    let by_name: BTreeMap<Name, &Cluster> = clusters.iter().map(|c| (name(c), c)).collect();
    let mut by_cluster = BTreeMap::<Name, Vec<&MachineDeployment>>::new();
    for pool in pools {
        let cluster = (name(pool).0, pool.spec.cluster_name.clone());
        by_cluster.entry(cluster).or_default().push(pool);
    }
    // What they wait for is said in full below.
    for (cluster, line) in overview.without_messages().lines() {
        text += &line;
        text.push('\n');
        if let Some(cluster) = by_name.get(cluster)
            && let Some(waits) = cluster_waits(cluster)
        {
            let _ = writeln!(text, "    {}", sentence(&waits, &cluster.metadata, now));
        }
        for pool in by_cluster.get(cluster).into_iter().flatten() {
            if let Some(waits) = pool_waits(pool) {
                let _ = writeln!(
                    text,
                    "    pool {}: {}",
                    pool.name_any(),
                    sentence(&waits, &pool.metadata, now)
                );
            }
        }
    }
    if text.is_empty() {
        text.push_str("no fleets and no clusters\n");
    }
    text
}

/// What an object waits for and since when, and the commit that last changed it.
fn sentence(waits: &Statement, object: &ObjectMeta, now: Timestamp) -> String {
    let text = waits.sentence(now);
    commit(object).map_or_else(
        || text.clone(),
        |commit| format!("{text}; as {commit} says"),
    )
}

/// What a Fleet follows in its branch's place, and the waves that have not passed, a line each.
fn below(status: &FleetStatus, now: Timestamp) -> String {
    let mut text = String::new();
    if let Some(held) = &status.held {
        let Held {
            number,
            head,
            approved_by,
            ..
        } = held;
        let why = match &held.merged_as {
            Some(merged) => format!("merged as {merged}, which the branch is not seen to have yet"),
            None => "not merged yet".to_owned(),
        };
        let _ = writeln!(
            text,
            "    applied on approval of {approved_by}: pull request {number} at {head}, {why}"
        );
    }
    for wave in &status.waves {
        let does = match wave.state {
            WaveState::Rolling => "rolls",
            WaveState::Soaking => "soaks",
        };
        let since = span(wave.since.0, now);
        let _ = writeln!(text, "    wave {}: {does} since {since}", wave.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use fleetwright_api::fleet::{FleetSource, FleetSpec};

    use super::*;

    #[test]
    fn an_empty_engine_says_so() {
        assert_eq!(
            table(&[], &[], &[], Timestamp::UNIX_EPOCH),
            "no fleets and no clusters\n"
        );
    }

    #[test]
    fn names_the_source_and_what_was_seen() {
        let source = FleetSource {
            url: Some("file:///srv/fleet.git".into()),
            ..Default::default()
        };
        let mut fleet = Fleet::new(
            "default",
            FleetSpec {
                source,
                ..Default::default()
            },
        );
        fleet.metadata.namespace = Some("default".into());
        assert_eq!(
            table(&[fleet], &[], &[], Timestamp::UNIX_EPOCH),
            "fleet default/default  file:///srv/fleet.git  nothing seen yet  \n"
        );
    }

    #[test]
    fn what_waits_names_the_commit_that_asks_for_it() {
        let cluster: Cluster = serde_json::from_value(json!({
            "metadata": {"name": "eu", "namespace": "prod", "generation": 1, "annotations": {
                "fleetwright.dev/revision": "3fa2c1d8e5b7a9f0c1d2e3f4a5b6c7d8e9f0a1b2",
            }},
            "spec": {"version": "v1.34.1", "controlPlane": {}},
        }))
        .unwrap();
        let text = table(&[], &[cluster], &[], Timestamp::UNIX_EPOCH);
        let want = "    its latest change is not looked at yet; as 3fa2c1d says\n";
        assert!(text.ends_with(want), "{text}");
    }

    #[test]
    fn names_what_is_applied_on_approval_and_the_waves_that_have_not_passed() {
        let status = serde_json::from_value(json!({
            "held": {"number": 7, "head": "1a2b", "base": "3c4d", "tree": "5e6f", "plan": "7a8b", "approvedBy": "kim"},
            "waves": [
                {"name": "canary", "state": "Soaking", "since": "2026-11-30T12:00:00Z"},
                {"name": "prod", "state": "Rolling", "since": "2026-11-30T12:04:30Z"},
            ],
        }));
        let now = "2026-11-30T12:05:00Z".parse().unwrap();
        assert_eq!(
            below(&status.unwrap(), now),
            "    applied on approval of kim: pull request 7 at 1a2b, not merged yet\n    \
             wave canary: soaks since 5 m\n    wave prod: rolls since 30 s\n"
        );
    }
}
