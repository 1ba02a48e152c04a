//! An engine's outbox over a real API server on disk.

use std::{path::Path, sync::Arc};

use fleetwright_api::{
    CommitStatus, Fleet,
    cluster::LocalSecretRef,
    commit_status::{CommitState, CommitStatusSpec, StatusContent},
    condition, crds,
    fleet::{FleetSource, FleetSpec, Forge as FleetForge, ForgeType},
    random::SeededRandom,
    secret::SecretText,
    time::SystemClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_store::Store;
use fleetwright_webhook::{
    forge::{Defaults, Forges},
    outbox::Outbox,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::wait::{Condition, await_condition},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::stub::{Forge, PATIENCE};

pub(crate) const SHA: &str = "0123456789012345678901234567890123456789";
/// Context of statuses whose names are letters; digits at the end of a name are one of it.
pub(crate) const CONTEXT: &str = "fleetwright/test/default.repo";

fn is_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// An API on disk and an outbox over it. Dropping it is a crash: nothing is told to end.
pub(crate) struct Engine {
    pub(crate) client: Client,
    pub(crate) statuses: Api<CommitStatus>,
    kind: ForgeType,
    tasks: JoinSet<()>,
}

impl Engine {
    pub(crate) async fn start(dir: &Path, forge: &Forge, token: Option<&str>) -> Self {
        Self::with_secret(dir, forge, token, None).await
    }

    /// One whose Fleet has a Secret for its forge.
    pub(crate) async fn with_secret(
        dir: &Path,
        forge: &Forge,
        token: Option<&str>,
        secret: Option<Secret>,
    ) -> Self {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        // What a killed engine had open is closed when its last task is gone.
        let open = async {
            loop {
                let file = dir.join("state.db");
                let opened = tokio::task::spawn_blocking(|| Store::open(file)).await;
                if let Ok(store) = opened.unwrap() {
                    break store;
                }
            }
        };
        let store = tokio::time::timeout(PATIENCE, open).await.unwrap();
        let server = ApiServer::new(store, Options::new(clock.clone(), random.clone())).unwrap();
        let ours: Result<Vec<Value>, _> = crds::all().iter().map(serde_json::to_value).collect();
        server.install_crds(&ours.unwrap()).await.unwrap();
        let client = server.client("default");
        let fleets = Api::<Fleet>::namespaced(client.clone(), "default");
        let fleet = Fleet::new(
            "repo",
            FleetSpec {
                source: FleetSource {
                    url: Some("https://example.org/acme/fleet".into()),
                    ..FleetSource::default()
                },
                forge: Some(FleetForge {
                    kind: forge.kind,
                    secret_ref: secret
                        .as_ref()
                        .map(|s| LocalSecretRef { name: s.name_any() }),
                    api_url: Some(forge.url.clone()),
                    repository: "acme/fleet".into(),
                    ..FleetForge::default()
                }),
                ..FleetSpec::default()
            },
        );
        if let Some(secret) = secret {
            let secrets = Api::<Secret>::namespaced(client.clone(), "default");
            secrets
                .create(&PostParams::default(), &secret)
                .await
                .unwrap();
        }
        let created = fleets.create(&PostParams::default(), &fleet).await;
        assert!(created.as_ref().err().is_none_or(is_there), "{created:?}");
        let defaults = Defaults {
            token: token.map(SecretText::new),
            api_url: None,
        };
        let forges = Arc::new(Forges::new().unwrap());
        let outbox = Outbox::new(client.clone(), forges, defaults, clock, random, uncounted());
        let mut tasks = JoinSet::new();
        tasks.spawn(outbox.run(CancellationToken::new()));
        Self {
            statuses: Api::namespaced(client.clone(), "default"),
            kind: forge.kind,
            client,
            tasks,
        }
    }

    pub(crate) async fn want(&self, name: &str, state: CommitState, description: &str) {
        let wanted = StatusContent {
            state,
            description: description.into(),
            target_url: None,
        };
        let Some(there) = self.statuses.get_opt(name).await.unwrap() else {
            let spec = CommitStatusSpec {
                fleet: "repo".into(),
                forge: self.kind,
                reference: Some("main".into()),
                repository: "acme/fleet".into(),
                note: false,
                sha: SHA.into(),
                context: format!("{CONTEXT}{}", name.trim_start_matches(char::is_alphabetic)),
                wanted,
                observation: 1,
            };
            let status = CommitStatus::new(name, spec);
            self.statuses
                .create(&PostParams::default(), &status)
                .await
                .unwrap();
            return;
        };
        if there.spec.wanted == wanted {
            return;
        }
        let observation = there.spec.observation + 1;
        let patch = Patch::Merge(json!({"spec": {"wanted": wanted, "observation": observation}}));
        self.statuses
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        done: impl Condition<CommitStatus>,
    ) -> CommitStatus {
        let wait = await_condition(self.statuses.clone(), name, done);
        let done = tokio::time::timeout(PATIENCE, wait).await;
        let done = done
            .unwrap_or_else(|_| panic!("{what} did not come"))
            .unwrap();
        done.unwrap()
    }

    /// Waits until the object says that the forge has this state.
    pub(crate) async fn until_posted(&self, name: &str, state: CommitState) -> CommitStatus {
        self.until(
            name,
            "the record of the post",
            move |s: Option<&CommitStatus>| {
                let posted = s.and_then(|s| s.status.as_ref()?.posted.as_ref());
                posted.is_some_and(|p| p.state == state)
            },
        )
        .await
    }

    /// Waits until the object says why it could not be posted.
    pub(crate) async fn until_reason(&self, name: &str, reason: &'static str) -> CommitStatus {
        self.until(name, reason, move |s: Option<&CommitStatus>| {
            let status = s.and_then(|s| s.status.as_ref());
            status
                .and_then(|s| condition::get(&s.conditions, "Posted"))
                .is_some_and(|c| c.reason == reason)
        })
        .await
    }

    /// The process dies.
    pub(crate) async fn kill(mut self) {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        drop(self.client);
    }
}

pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) forge: Forge,
    pub(crate) engine: Engine,
    _tasks: JoinSet<()>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::of(ForgeType::Github).await
    }

    pub(crate) async fn of(kind: ForgeType) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let forge = Forge::of(kind, &mut tasks).await;
        let engine = Engine::start(dir.path(), &forge, Some("t0ken")).await;
        Self {
            dir,
            forge,
            engine,
            _tasks: tasks,
        }
    }
}

/// Metrics that nobody looks at.
pub(crate) fn uncounted() -> fleetwright_webhook::Metrics {
    fleetwright_webhook::Metrics::register(&mut prometheus_client::registry::Registry::default())
}
