//! Machines of several clusters that break together, and accounts that do not answer.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    Machine, MachineDeployment,
    condition::{kind, reason},
    meta,
};
use serde_json::{Value, json};

use crate::kit::{Kit, config, of_machine};

const CLUSTERS: [&str; 3] = ["ap", "eu", "us"];
const COMMIT: &str = "3fa2c1d8e5b7a9f0c1d2e3f4a5b6c7d8e9f0a1b2";

fn web(cluster: &str) -> String {
    format!("{cluster}-web")
}

/// Nothing of the pool is replaced, so that all of its machines break before any goes.
fn held() -> Value {
    json!({"remediation": {"maxInFlight": 0}})
}

impl Kit {
    /// Clusters, each with a pool of so many machines and a health check over it.
    async fn clusters(&mut self, clusters: &[&str], machines: i32, more: Value) {
        for cluster in clusters {
            self.cluster(cluster, "v1.33.2", 1, json!({})).await;
            self.pool(&web(cluster), cluster, machines, more.clone())
                .await;
            self.check(&web(cluster), cluster, 1, json!({})).await;
        }
        for cluster in clusters {
            self.until_settled(cluster).await;
        }
    }

    async fn break_all(&mut self, broken: &[(&'static str, String)]) {
        for (cluster, machine) in broken {
            self.node_is(cluster, machine, "False").await;
        }
    }

    fn all_of(&self, clusters: &[&'static str]) -> Vec<(&'static str, String)> {
        let of = |c: &&'static str| {
            let cluster = *c;
            let names = self.names(&web(cluster));
            names.into_iter().map(move |name| (cluster, name))
        };
        clusters.iter().flat_map(of).collect()
    }

    /// Waits until all these machines and the checks of all these clusters say that a storm holds them; gives what they say.
    async fn until_stormy(&mut self, broken: &[(&'static str, String)]) -> BTreeSet<String> {
        let broken = broken.to_vec();
        self.until("all machines and checks say that there is a storm", |w| {
            let mut told = BTreeSet::new();
            for (cluster, machine) in &broken {
                let line = of_machine(w.machines.get(machine)?, kind::OWNER_REMEDIATED);
                let text = line.strip_prefix("False RemediationDeferred: ")?;
                let check = w.checks.get(&format!("{cluster}-web-check"))?;
                let conditions = &check.status.as_ref()?.conditions;
                let said = fleetwright_api::condition::get(conditions, kind::REMEDIATION_ALLOWED)?;
                if !text.contains("in several clusters") || said.reason != reason::REMEDIATION_STORM
                {
                    return None;
                }
                told.insert(text.to_owned());
            }
            Some(told)
        })
        .await
    }

    /// The pools may replace what they like from now on.
    async fn let_go(&mut self, clusters: &[&str]) {
        for cluster in clusters {
            let free = json!({"spec": {"remediation": null}});
            self.patch::<MachineDeployment>(&web(cluster), free).await;
        }
    }

    /// The storm holds them while it lasts, and once it has passed all are replaced.
    async fn passes(&mut self, clusters: &[&str], broken: Vec<(&'static str, String)>) {
        let held = broken.clone();
        self.let_go(clusters).await;
        // A pool more is looked at beside them, so that whatever would be done has been done.
        self.pool("other", clusters[0], 1, json!({})).await;
        self.until("another pool is up, and none of them goes", |w| {
            let goes = |m: &Machine| m.metadata.deletion_timestamp.is_some();
            for (_, name) in &held {
                assert!(
                    w.machines.get(name).is_some_and(|m| !goes(m)),
                    "{name} goes"
                );
            }
            let other = w.workers("other");
            other
                .first()
                .is_some_and(|m| crate::kit::is_available(m))
                .then_some(())
        })
        .await;
        // Those who wait look again at the moment that they were told, by a clock that tests put forward: a start asks all.
        self.stop_controllers().await;
        self.ward.ahead(700);
        self.start_controllers();
        let clusters: Vec<String> = clusters.iter().map(|c| (*c).to_owned()).collect();
        self.until("all are replaced", move |w| {
            let gone = broken.iter().all(|(_, m)| !w.machines.contains_key(m));
            (gone && clusters.iter().all(|c| w.settled(c))).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_one_zone_that_break_in_three_clusters_are_a_storm_until_it_passes() {
    let mut kit = Kit::start().await;
    let mut zone = held();
    zone["template"] = json!({"spec": {"failureDomain": "eu-b"}});
    kit.clusters(&CLUSTERS, 2, zone).await;
    let broken = kit.all_of(&CLUSTERS);
    kit.break_all(&broken).await;
    let told = kit.until_stormy(&broken).await;
    // The control planes are in another zone: what the broken ones alone have in common is told.
    let head = " of all 6 machines of failure domain eu-b of account sim-eu broke within 10 m, in several clusters: ";
    assert!(told.iter().all(|t| t.contains(head)), "{told:?}");
    kit.passes(&CLUSTERS, broken).await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_breaks_machines_in_several_clusters_is_a_storm() {
    let mut kit = Kit::start().await;
    kit.clusters(&CLUSTERS, 2, held()).await;
    for cluster in CLUSTERS {
        let patch = json!({
            "metadata": {"annotations": {meta::ANNOTATION_REVISION: COMMIT}},
            "spec": {"template": {"spec": {"providerConfig": config("sim.medium")}}},
        });
        kit.patch::<MachineDeployment>(&web(cluster), patch).await;
    }
    kit.until("all have rolled", |w| {
        let new = |m: &&Machine| {
            let config = m.spec.content.provider_config.to_value();
            config["instanceType"] == "sim.medium"
        };
        let rolled = |c: &&str| w.settled(c) && w.workers(&web(c)).iter().all(new);
        CLUSTERS.iter().all(rolled).then_some(())
    })
    .await;
    let broken = kit.all_of(&CLUSTERS);
    kit.break_all(&broken).await;
    let told = kit.until_stormy(&broken).await;
    let head = " of all 6 machines of commit 3fa2c1d broke within 10 m, in several clusters: ";
    assert!(told.iter().all(|t| t.contains(head)), "{told:?}");
    kit.stop().await;
}

/// As many as a storm takes, in as many clusters, of the same image and zone: but few of all that there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unrelated_failures_in_many_clusters_are_remediated() {
    const MANY: [&str; 5] = ["ap", "eu", "ja", "us", "za"];
    let mut kit = Kit::start().await;
    kit.clusters(&MANY, 4, held()).await;
    let broken: Vec<(&'static str, String)> = MANY
        .iter()
        .map(|c| (*c, kit.names(&web(c))[0].clone()))
        .collect();
    kit.break_all(&broken).await;
    for (_, machine) in &broken {
        kit.until_marked(machine).await;
    }
    kit.let_go(&MANY).await;
    let gone = broken.clone();
    kit.until("all are replaced", move |w| {
        let storm =
            |m: &&Machine| of_machine(m, kind::OWNER_REMEDIATED).contains("several clusters");
        assert!(!w.machines.values().any(|m| storm(&m)), "a storm is told");
        let gone = gone.iter().all(|(_, m)| !w.machines.contains_key(m));
        (gone && MANY.iter().all(|c| w.settled(c))).then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_an_account_that_cannot_be_listed_are_kept_and_those_of_others_replaced() {
    let mut kit = Kit::start().await;
    kit.account("sim-us", "us", BTreeMap::new()).await;
    let there = json!({"spec": {"providerConfig": {"account": "sim-us"}}});
    let control_plane = json!({"controlPlane": {"machines": {"template": there}}});
    kit.cluster("us", "v1.33.2", 1, control_plane).await;
    kit.pool("us-web", "us", 2, json!({"template": there}))
        .await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    for cluster in ["us", "eu"] {
        kit.check(&web(cluster), cluster, 5, json!({})).await;
        kit.until_settled(cluster).await;
    }
    kit.ward.unlist_account("sim-us", true);
    let (here, there) = (
        kit.names("eu-web")[0].clone(),
        kit.names("us-web")[0].clone(),
    );
    // A node that falls silent has its account listed at once.
    kit.node_is("us", &there, "Unknown").await;
    kit.node_is("eu", &here, "Unknown").await;
    let line = kit.until_says(&there, "cannot be listed").await;
    assert_eq!(
        line,
        "False RemediationDeferred: account sim-us cannot be listed (Unavailable): nothing is replaced while no other machine could be made"
    );
    kit.until_replaced("eu", &here).await;
    // Also the controllers that start while it is so keep it.
    kit.stop_controllers().await;
    kit.start_controllers();
    kit.pool("eu-db", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let kept = &kit.world.machines[&there];
    assert!(kept.metadata.deletion_timestamp.is_none());
    assert_eq!(of_machine(kept, kind::OWNER_REMEDIATED), line);
    kit.ward.unlist_account("sim-us", false);
    kit.until_replaced("us", &there).await;
    kit.stop().await;
}
