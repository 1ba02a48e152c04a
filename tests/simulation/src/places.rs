//! What else the engine talks to: the provider, the ways to clusters, the repository and the forge.

use std::{collections::BTreeMap, io, sync::Arc};

use async_trait::async_trait;
use fleetwright_api::{
    ProviderConfig, commit_status::StatusContent, drift::InstanceSettings, fleet::FleetSource,
};
use fleetwright_gitops::{
    load::SourceFile,
    read::Repositories,
    source::{Snapshot, SourceError},
};
use fleetwright_provider_sim::Cloud;
use fleetwright_providers::{
    Account, ClusterConnections, ClusterRef, ConfigError, ConfigSchema, ConnectionError,
    CreateInstance, EtcdMember, EtcdMembers, Instance, ListScope, Provider, ProviderError,
    UpdateInstance,
};
use fleetwright_webhook::forge::{Destination, Forge, PostError};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    life::Life,
    weather::{Kind, Weather},
    wire::{self, Overheard},
};

/// The cloud as one engine reaches it, with the schemas of the engine's release.
pub(crate) struct Reach {
    /// The cloud.
    pub(crate) cloud: Cloud,
    /// The engine's life.
    pub(crate) life: Arc<Life>,
    /// The weather.
    pub(crate) weather: Arc<Weather>,
    /// The release: each has other defaults.
    pub(crate) release: usize,
    /// Who listens.
    pub(crate) overheard: Overheard,
}

/// Defaults of the fields of a machine's settings that change from release to release.
const DEFAULTS: [(&str, [&str; 3]); 2] = [
    ("instanceType", ["sim.small", "sim.medium", "sim.large"]),
    ("image", ["ubuntu-24.04", "ubuntu-26.04", "debian-13"]),
];

/// The schemas of a release: defaults change, and a field comes to be.
pub(crate) fn schemas(release: usize) -> Vec<ConfigSchema> {
    let mut all = fleetwright_provider_sim::config::schemas();
    for schema in &mut all {
        let properties = &mut schema.schema["properties"];
        for (field, defaults) in DEFAULTS {
            if properties[field].is_object() {
                properties[field]["default"] = json!(defaults[release % defaults.len()]);
            }
        }
        if release > 0 && schema.kind == fleetwright_provider_sim::config::MACHINE_CONFIG {
            properties["bootMode"] = json!({"type": "string", "default": "uefi"});
        }
    }
    all
}

#[async_trait]
impl Provider for Reach {
    fn name(&self) -> &str {
        self.cloud.name()
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        schemas(self.release)
    }

    fn settings(&self, config: &ProviderConfig) -> InstanceSettings {
        self.cloud.settings(config)
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        // The cloud itself knows no field of a later release.
        let mut order = order.clone();
        if let Some(config) = order.config.as_object_mut() {
            config.remove("bootMode");
        }
        self.life.guard(self.cloud.create(account, &order)).await
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        self.life.guard(self.cloud.get(account, id)).await
    }

    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        self.life.guard(self.cloud.list(account, scope)).await
    }

    async fn update(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        self.life
            .guard(self.cloud.update(account, id, change))
            .await
    }

    async fn delete(&self, account: &Account, id: &str, key: &str) -> Result<(), ProviderError> {
        self.life.guard(self.cloud.delete(account, id, key)).await
    }

    fn lists_catch_up_after(&self) -> std::time::Duration {
        self.cloud.lists_catch_up_after()
    }

    fn failure_domains(&self, account: &Account, config: &ProviderConfig) -> Vec<String> {
        self.cloud.failure_domains(account, config)
    }

    async fn missing_image(
        &self,
        account: &Account,
        version: &str,
        config: &Value,
    ) -> Result<Option<ConfigError>, ProviderError> {
        let asked = self.cloud.missing_image(account, version, config);
        self.life.guard(asked).await
    }
}

#[async_trait]
impl EtcdMembers for Reach {
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        self.etcd_answers(cluster)?;
        self.life.guard(self.cloud.members(cluster)).await
    }

    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError> {
        self.etcd_answers(cluster)?;
        let removal = EtcdMembers::remove(&self.cloud, cluster, name);
        self.life.guard(removal).await
    }
}

impl Reach {
    fn reachable(&self, cluster: &ClusterRef) -> Result<(), ConnectionError> {
        if self.weather.is_cut(&cluster.key) {
            self.weather.count(Kind::Unreachable, 1);
            return Err(ConnectionError::Broken("no route to host".into()));
        }
        Ok(())
    }

    fn etcd_answers(&self, cluster: &ClusterRef) -> Result<(), ConnectionError> {
        self.reachable(cluster)?;
        if self.weather.hits(Kind::EtcdAway) {
            return Err(ConnectionError::Broken("etcd does not answer".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl ClusterConnections for Reach {
    async fn client(&self, cluster: &ClusterRef) -> Result<kube::Client, ConnectionError> {
        self.reachable(cluster)?;
        let inner = self.life.guard(self.cloud.client(cluster)).await?;
        let (life, weather) = (Arc::clone(&self.life), Arc::clone(&self.weather));
        let overheard = Arc::clone(&self.overheard);
        Ok(wire::workload(
            inner,
            &cluster.key,
            life,
            weather,
            overheard,
        ))
    }

    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        self.cloud.kubeconfig(cluster).await
    }
}

/// A commit.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// Its id.
    pub(crate) sha: String,
    /// When it was pushed.
    pub(crate) at: Timestamp,
    /// Id of its tree.
    pub(crate) tree: String,
    /// Its documents, one a file.
    pub(crate) files: BTreeMap<String, Value>,
}

impl Commit {
    fn snapshot(&self) -> Snapshot {
        let file = |(path, document): (&String, &Value)| SourceFile {
            path: path.clone(),
            content: Ok(document.to_string().into_bytes()),
        };
        Snapshot {
            revision: self.sha.clone(),
            tree: self.tree.clone(),
            files: self.files.iter().map(file).collect(),
        }
    }
}

/// The repository: its commits, the newest last.
pub(crate) struct Repository {
    commits: Mutex<Vec<Commit>>,
    weather: Arc<Weather>,
}

impl Repository {
    /// One without commits.
    pub(crate) fn new(weather: Arc<Weather>) -> Self {
        Self {
            commits: Mutex::default(),
            weather,
        }
    }

    /// Pushes a commit; gives its id.
    pub(crate) fn push(&self, files: BTreeMap<String, Value>, at: Timestamp) -> String {
        let mut commits = self.commits.lock();
        let text = serde_json::to_string(&files).unwrap_or_default();
        let id = |more: &str| fleetwright_api::names::short_hash([text.as_str(), more], 40);
        let commit = Commit {
            sha: id(&format!("commit {}", commits.len())),
            at,
            tree: id("tree"),
            files,
        };
        let sha = commit.sha.clone();
        commits.push(commit);
        sha
    }

    /// The newest.
    pub(crate) fn head(&self) -> Option<Commit> {
        self.commits.lock().last().cloned()
    }

    /// Looks at all commits without a copy.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&[Commit]) -> T) -> T {
        look(&self.commits.lock())
    }
}

impl Repositories for Repository {
    fn read(&self, _: &FleetSource) -> Result<Snapshot, SourceError> {
        let failed = || SourceError::Io {
            path: "the repository".into(),
            source: io::Error::new(io::ErrorKind::TimedOut, "the forge does not answer"),
        };
        if self.weather.hits(Kind::SourceFails) {
            return Err(failed());
        }
        Ok(self.head().ok_or_else(failed)?.snapshot())
    }

    fn before(&self, _: &FleetSource, tree: &str) -> Option<Snapshot> {
        let commits = self.commits.lock();
        let commit = commits.iter().find(|c| c.tree == tree)?;
        Some(commit.snapshot())
    }
}

/// What the forge was told: when, of which commit, and what.
pub(crate) type Posts = Vec<(Timestamp, (String, String), StatusContent)>;

/// The forge: it keeps what it took.
pub(crate) struct SimForge {
    /// All posts in order.
    pub(crate) posts: Arc<Mutex<Posts>>,
    /// The engine's life.
    pub(crate) life: Arc<Life>,
    /// The weather.
    pub(crate) weather: Arc<Weather>,
    /// Whoever looks on.
    pub(crate) after: wire::After,
}

#[async_trait]
impl Forge for SimForge {
    async fn post(
        &self,
        destination: &Destination<'_>,
        content: &StatusContent,
        now: Timestamp,
    ) -> Result<(), PostError> {
        let call = async {
            tokio::time::sleep(self.weather.millis(20, 400)).await;
            if self.weather.hits(Kind::ForgeFails) {
                return Err(PostError::Passing("503 Service Unavailable".into()));
            }
            let of = (destination.sha.to_owned(), destination.context.to_owned());
            let post = (now, of, content.clone());
            self.posts.lock().push(post);
            (self.after)();
            if self.weather.hits(Kind::ForgeAnswerLost) {
                return Err(PostError::Passing("the connection was cut".into()));
            }
            Ok(())
        };
        self.life.guard(call).await
    }
}
