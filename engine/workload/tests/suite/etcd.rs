//! Real etcd members on loopback, each behind the port-forward of its pod in a workload cluster.

use std::{path::PathBuf, sync::Arc};

use age::secrecy::ExposeSecret as _;
use fleetwright_api::time::SystemClock;
use fleetwright_bootstrap::escrow::SnapshotSealer;
use fleetwright_providers::{ClusterRef, EtcdMember, EtcdMembers};
use fleetwright_tests::{
    etcd,
    pki::Authority,
    tools::tool,
    workload::{TOKEN, Workload},
};
use fleetwright_workload::{Connections, Etcd};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use tokio::process::Command;

use crate::kit::{Kit, cluster, pass};

struct Members {
    kit: Kit,
    workload: Workload,
    etcd: Etcd,
    /// The members themselves.
    all: etcd::Members,
    _dir: tempfile::TempDir,
}

impl Members {
    /// These members; `None` where there is no etcd here.
    async fn start(names: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("etcd-ca");
        let (kit, workload) = (Kit::new(), Workload::start().await);
        let kubeconfig = workload.kubeconfig(&json!({"token": TOKEN}));
        kit.secret("eu", "value", &kubeconfig).await;
        kit.authority(
            "eu-etcd",
            &authority.identity.certificate,
            &authority.identity.key,
        )
        .await;
        let connections = Arc::new(Connections::new(
            kit.api.clone(),
            Arc::new(fleetwright_api::random::OsRandom),
        ));
        let etcd = Etcd::new(kit.api.clone(), connections, Arc::new(SystemClock));
        let mut members = Self {
            kit,
            workload,
            etcd,
            all: etcd::Members::new(authority, dir.path())?,
            _dir: dir,
        };
        for name in names {
            members.add(name).await;
        }
        let initial = members.all.initial(names);
        for name in names {
            members.all.begin(name, "new", &initial);
        }
        for name in names {
            members.all.until_ready(name).await;
        }
        Some(members)
    }

    fn cluster() -> ClusterRef {
        ClusterRef {
            provider: Some("aws".into()),
            ..cluster("eu")
        }
    }

    /// A member and its pod: nothing runs yet.
    async fn add(&mut self, name: &str) {
        let port = self.all.add(name);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("etcd-{name}"), "labels": {"component": "etcd", "tier": "control-plane"}},
            "spec": {"nodeName": name, "containers": [{"name": "etcd", "image": "etcd"}]},
        });
        let pods = Api::<Pod>::namespaced(self.workload.client(), "kube-system");
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
        self.workload.forward(&format!("etcd-{name}"), port);
    }

    /// Removes a member. etcd changes nothing of its members in the first seconds after they have found each other.
    async fn remove(&self, name: &str) {
        let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while let Err(error) = self.etcd.remove(&Self::cluster(), name).await {
            let why = error.to_string();
            assert!(why.ends_with("unhealthy cluster"), "{why}");
            assert!(tokio::time::Instant::now() < end, "{why}");
        }
    }

    /// What we say of the members, once it is what `done` wants.
    async fn until(&self, what: &str, done: impl Fn(&[EtcdMember]) -> bool) -> Vec<EtcdMember> {
        let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let told = self.etcd.members(&Self::cluster()).await;
            if let Ok(members) = &told
                && done(members)
            {
                return members.clone();
            }
            assert!(
                tokio::time::Instant::now() < end,
                "it does not come: {what}: {told:?}"
            );
            tokio::task::yield_now().await;
        }
    }
}

fn named(members: &[EtcdMember]) -> Vec<&str> {
    members.iter().map(|m| m.name.as_str()).collect()
}

fn healthy(members: &[EtcdMember]) -> Vec<&str> {
    let well = members.iter().filter(|m| m.healthy);
    well.map(|m| m.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_seen_and_the_one_that_leads_is_removed_after_another_leads() {
    let Some(mut etcd) = Members::start(&["a", "b", "c"]).await else {
        return;
    };
    let all = etcd
        .until("all are well", |m| healthy(m) == ["a", "b", "c"])
        .await;
    assert!(all.iter().all(|m| !m.learner && !m.starting));
    let leader = etcd.all.leader(&["a", "b", "c"]).await;
    etcd.remove(&leader).await;
    let left: Vec<String> = ["a", "b", "c"]
        .into_iter()
        .filter(|name| *name != leader)
        .map(str::to_owned)
        .collect();
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    // At once, without an election in between: the other led before.
    let now = etcd.etcd.members(&Members::cluster()).await.unwrap();
    assert_eq!(healthy(&now), left);
    assert!(left.contains(&etcd.all.leader(&left).await.as_str()));
    // Again, and one that never was.
    for name in [leader.as_str(), "stranger"] {
        etcd.etcd.remove(&Members::cluster(), name).await.unwrap();
    }
    let now = etcd.etcd.members(&Members::cluster()).await.unwrap();
    assert_eq!(named(&now), left);

    // A learner is added, and starts.
    etcd.add("d").await;
    let peer = etcd.all.peer("d");
    let add = ["member", "add", "d", "--learner", "--peer-urls", &peer];
    etcd.all.etcdctl(&left, &add).await;
    let all = etcd.until("it is known", |m| m.len() == 3).await;
    let learner = all.iter().find(|m| m.learner).unwrap();
    assert!(learner.starting && !learner.healthy, "{learner:?}");
    assert_eq!(learner.name, peer);
    let mut names = left.clone();
    names.push("d");
    let initial = etcd.all.initial(&names);
    etcd.all.begin("d", "existing", &initial);
    etcd.all.until_ready("d").await;
    let all = etcd
        .until("it has started", |m| {
            m.iter().all(|m| !m.starting && m.healthy)
        })
        .await;
    let learners: Vec<&str> = all
        .iter()
        .filter(|m| m.learner)
        .map(|m| m.name.as_str())
        .collect();
    assert_eq!(learners, ["d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_kept_is_restored_to_what_was_there() {
    let Some(mut etcd) = Members::start(&["a", "b", "c"]).await else {
        return;
    };
    let (Some(age), three) = (tool("age"), ["a", "b", "c"]) else {
        return;
    };
    // More than one part, and more than what TLS and WebSockets carry at once.
    let large = "x".repeat(100_000);
    for n in 0..4 {
        let key = format!("large-{n}");
        etcd.all.etcdctl(&three, &["put", &key, &large]).await;
    }
    etcd.all.etcdctl(&three, &["put", "fleet", "before"]).await;
    let identity = age::x25519::Identity::generate();
    let mut sealer = SnapshotSealer::new(&[identity.to_public().to_string()]).unwrap();
    let cluster = Members::cluster();
    let mut coming = etcd.etcd.snapshot(&cluster).await.unwrap();
    let mut sealed = Vec::new();
    while let Some(part) = coming.part().await.unwrap() {
        sealed.extend(sealer.part(&part).unwrap());
    }
    sealed.extend(sealer.finish().unwrap());
    etcd.all.etcdctl(&three, &["put", "fleet", "after"]).await;
    etcd.all.etcdctl(&three, &["put", "later", "x"]).await;

    // All is lost but the file and its key: what docs/etcd-restore.md says.
    for name in three {
        etcd.all.kill(name).await;
    }
    let (file, key, snapshot) = (
        etcd.all.path("eu.age"),
        etcd.all.path("key.txt"),
        etcd.all.path("eu.db"),
    );
    std::fs::write(&file, sealed).unwrap();
    std::fs::write(&key, identity.to_string().expose_secret()).unwrap();
    let run = async |program: &PathBuf, arguments: &[&str]| {
        let said = Command::new(program)
            .env("ETCDCTL_API", "3")
            .args(arguments)
            .output()
            .await
            .unwrap();
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "{arguments:?}: {words}");
    };
    let decrypt = [
        "--decrypt",
        "--identity",
        &key,
        "--output",
        &snapshot,
        &file,
    ];
    run(&age, &decrypt).await;
    etcd.add("n").await;
    let (peer, data) = (etcd.all.peer("n"), etcd.all.path("n"));
    let one = format!("n={peer}");
    let etcdctl = etcd.all.tool().to_owned();
    let restore = [
        "snapshot",
        "restore",
        &snapshot,
        "--name",
        "n",
        "--initial-cluster",
        &one,
        "--initial-advertise-peer-urls",
        &peer,
        "--data-dir",
        &data,
    ];
    run(&etcdctl, &restore).await;
    etcd.all.begin("n", "new", &one);
    etcd.all.until_ready("n").await;
    let value = async |key: &str| {
        let said = etcd
            .all
            .etcdctl(&["n"], &["get", "--print-value-only", key])
            .await;
        said.trim_end().to_owned()
    };
    assert_eq!(value("fleet").await, "before");
    assert_eq!(value("later").await, "");
    assert_eq!(value("large-3").await, large);
    // It is a cluster of one that others may join.
    let all = etcd.until("it leads itself", |m| healthy(m) == ["n"]).await;
    assert_eq!(named(&all), ["n"]);
}

/// An API server that says nothing of a port, nor when it is given up.
#[tokio::test]
async fn a_port_forward_ends_with_who_asked() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let kubeconfig = workload.kubeconfig(&json!({"token": TOKEN}));
    kit.secret("eu", "value", &kubeconfig).await;
    let authority = Authority::new("etcd-ca").identity;
    kit.authority("eu-etcd", &authority.certificate, &authority.key)
        .await;
    let pods = Api::<Pod>::namespaced(workload.client(), "kube-system");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "etcd-a", "labels": {"component": "etcd", "tier": "control-plane"}},
        "spec": {"containers": [{"name": "etcd", "image": "etcd"}]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let mut news = workload.swallow("etcd-a");
    let connections = Arc::new(Connections::new(
        kit.api.clone(),
        Arc::new(fleetwright_api::random::OsRandom),
    ));
    let etcd = Etcd::new(kit.api.clone(), connections, Arc::new(SystemClock));
    let passes = async {
        news.recv().await.unwrap();
        pass(std::time::Duration::from_secs(11)).await;
    };
    let cluster = Members::cluster();
    let (asked, ()) = tokio::join!(etcd.members(&cluster), passes);
    assert_eq!(
        asked.unwrap_err().to_string(),
        "no member of etcd answers: etcd-a: no answer"
    );
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), news.recv());
    ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_down_is_told_and_removed_and_without_quorum_nobody_knows() {
    let Some(mut etcd) = Members::start(&["a", "b", "c"]).await else {
        return;
    };
    etcd.until("all are well", |m| {
        m.len() == 3 && m.iter().all(|m| m.healthy)
    })
    .await;
    etcd.all.kill("c").await;
    let seen = etcd
        .until("two are well", |m| healthy(m) == ["a", "b"])
        .await;
    assert_eq!(named(&seen), ["a", "b", "c"]);
    etcd.remove("c").await;
    let seen = etcd.etcd.members(&Members::cluster()).await.unwrap();
    assert_eq!(healthy(&seen), ["a", "b"]);
    assert_eq!(seen.len(), 2);

    // The other of two: what is left has no quorum, and says nothing of members.
    etcd.all.kill("b").await;
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let why = loop {
        match etcd.etcd.members(&Members::cluster()).await {
            Err(error) => break error.to_string(),
            Ok(_) => assert!(tokio::time::Instant::now() < end, "a quorum of one"),
        }
    };
    assert!(why.contains("it has no quorum"), "{why}");
    let refused = etcd.etcd.remove(&Members::cluster(), "b").await;
    assert!(refused.is_err());
    etcd.all.kill("a").await;
    let why = etcd.etcd.members(&Members::cluster()).await.unwrap_err();
    let why = why.to_string();
    assert!(
        why.starts_with("no member of etcd answers: etcd-a: "),
        "{why}"
    );
    // No pods, and no authority.
    let pods = Api::<Pod>::namespaced(etcd.workload.client(), "kube-system");
    for name in ["a", "b", "c"] {
        let params = DeleteParams::default().grace_period(0);
        pods.delete(&format!("etcd-{name}"), &params).await.unwrap();
    }
    let why = etcd.etcd.members(&Members::cluster()).await.unwrap_err();
    assert!(
        why.to_string().starts_with("no pod in kube-system has"),
        "{why}"
    );
    etcd.kit.remove("eu-etcd").await;
    let why = etcd.etcd.members(&Members::cluster()).await.unwrap_err();
    assert_eq!(
        why.to_string(),
        "etcd's authority in Secret default/eu-etcd: there is no such Secret"
    );
}
