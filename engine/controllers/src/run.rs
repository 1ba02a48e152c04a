//! Runs everything: the watches that fill the caches, the lists of the accounts, the nodes' watches and the
//! workers. One JoinSet owns all tasks, one token ends them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Fleet, Machine, MachineDeployment, MachineDrainRule, MachineHealthCheck, MachineSet,
    ProviderAccount, version::Version,
};
use fleetwright_core::outcome::Outcome;
use fleetwright_providers::ClusterRef;
use futures::StreamExt;
use kube::{Api, ResourceExt, api::GetParams, runtime::watcher};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bootstrap::makes_nodes,
    budgets::Budgets,
    cache::{Cached, Caches, name_of},
    certificates::Certificates,
    context::Context,
    drift::Drifts,
    etcd::Etcds,
    images::Images,
    inventory::Inventory,
    lists::list_accounts,
    nodes::Nodes,
    provided::Looks,
    queue::{Key, Queue},
    reconcile::{Shared, Tokens, reconcile},
    refusals::Refusals,
    rooms::Rooms,
    snapshots::Snapshots,
};

/// Reconciles that run at the same time: each waits for the API or a provider most of its time.
const WORKERS: usize = 64;
/// Shortest and longest rest of a pool, a set or a Cluster between two looks at it.
const SHORTEST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_millis(250);

/// The controllers of one engine.
pub struct Controllers {
    shared: Arc<Shared>,
    follow: UnboundedReceiver<Follow>,
}

impl Controllers {
    /// Controllers that have not started.
    pub fn new(context: Context) -> Self {
        let (sender, follow) = unbounded_channel();
        let catalogue = context.catalogue();
        let group_labels = context.group_labels();
        let shared = Arc::new(Shared {
            context,
            catalogue,
            caches: Caches::default(),
            queue: Queue::default(),
            nodes: Nodes::default(),
            inventory: Inventory::default(),
            credentials: Default::default(),
            grounds: Default::default(),
            approvals: Default::default(),
            refusals: Refusals::default(),
            budgets: Budgets::default(),
            storms: Default::default(),
            rooms: Rooms::default(),
            etcds: Etcds::default(),
            certificates: Certificates::default(),
            snapshots: Snapshots::default(),
            manifests: Default::default(),
            drifts: Drifts::default(),
            images: Images::default(),
            control_planes: Looks::default(),
            tokens: Tokens::default(),
            groups: Looks::default(),
            together: Default::default(),
            group_labels,
            doubtful: parking_lot::Mutex::default(),
            synced_wake: tokio::sync::Notify::new(),
            follow: sender,
            goes: parking_lot::Mutex::default(),
        });
        Self { shared, follow }
    }

    /// Runs until `token` is cancelled. What is under way is cut off: every step can be cut off anywhere.
    pub async fn run(self, token: CancellationToken) {
        let Self { shared, follow } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(watch::<Cluster>(Arc::clone(&shared)));
        tasks.spawn(watch::<MachineDeployment>(Arc::clone(&shared)));
        tasks.spawn(watch::<MachineSet>(Arc::clone(&shared)));
        tasks.spawn(watch::<Machine>(Arc::clone(&shared)));
        tasks.spawn(watch::<ProviderAccount>(Arc::clone(&shared)));
        tasks.spawn(watch::<MachineHealthCheck>(Arc::clone(&shared)));
        tasks.spawn(watch::<MachineDrainRule>(Arc::clone(&shared)));
        tasks.spawn(watch::<Fleet>(Arc::clone(&shared)));
        tasks.spawn(list_accounts(Arc::clone(&shared)));
        tasks.spawn(follow_clusters(Arc::clone(&shared), follow));
        tasks.spawn(work(shared));
        tokio::select! {
            biased;
            () = token.cancelled() => {}
            ended = tasks.join_next() => {
                if let Some(Err(error)) = ended {
                    tracing::error!(%error, "a controller task ended");
                }
            }
        }
        tasks.shutdown().await;
    }
}

/// Keeps one kind's cache, and wakes who looks at what changed.
async fn watch<K>(shared: Arc<Shared>)
where
    K: Cached + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let api = Api::<K>::all(shared.context.client.clone());
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    let mut listed = BTreeSet::new();
    let mut pause = Duration::from_millis(100);
    while let Some(event) = events.next().await {
        match event {
            // The list is asked for after this.
            Ok(watcher::Event::Init) => {
                listed.clear();
                K::of(&shared.caches).write().begin_list();
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(name_of(&object));
                shared.learn(object);
            }
            Ok(watcher::Event::InitDone) => {
                pause = Duration::from_millis(100);
                let missing = K::of(&shared.caches).write().keep_only(&listed);
                let gone = missing.gone.iter();
                gone.for_each(|object| K::wake(&shared, Some(object), None));
                listed.clear();
                shared.synced_wake.notify_waiters();
                for object in missing.unsure {
                    look_again(&shared, object.as_ref()).await;
                }
            }
            Ok(watcher::Event::Apply(object)) => shared.learn(object),
            Ok(watcher::Event::Delete(object)) => shared.forget(&object),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "the watch broke");
                tokio::time::sleep(pause).await;
                pause = next(pause);
            }
        }
    }
}

fn next(pause: Duration) -> Duration {
    (pause * 2).min(Duration::from_secs(10))
}

/// Asks the API whether an object is there that a list did not show, until it says so.
async fn look_again<K>(shared: &Shared, object: &K)
where
    K: Cached + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut pause = Duration::from_millis(100);
    loop {
        let path = K::url_path(&(), object.meta().namespace.as_deref());
        let request = kube::core::Request::new(path).get(&object.name_any(), &GetParams::default());
        let read = match request {
            Ok(request) => shared.context.client.request::<K>(request).await,
            Err(error) => Err(kube::Error::BuildRequest(error)),
        };
        match read {
            Ok(now) => {
                if now.meta().uid != object.meta().uid {
                    shared.forget(object);
                }
                return shared.learn(now);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return shared.forget(object),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), name = object.name_any(), %error, "an object cannot be read");
                tokio::time::sleep(pause).await;
                pause = next(pause);
            }
        }
    }
}

/// What goes on beside the reconciles of a cluster.
pub(crate) enum Follow {
    /// The watch of its nodes, and of what they ask for.
    Nodes(ClusterRef),
    /// A snapshot of its etcd, of which this version runs.
    Snapshot(ClusterRef, Version),
}

/// Starts what goes on beside the reconciles, and owns it.
async fn follow_clusters(shared: Arc<Shared>, mut follow: UnboundedReceiver<Follow>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            wish = follow.recv() => match wish {
                Some(Follow::Nodes(cluster)) => {
                    if makes_nodes(&shared, &cluster.namespace, &cluster.name) {
                        shared.approvals.follow(&shared, cluster.clone(), &mut tasks);
                    }
                    shared.nodes.follow(&shared, cluster, &mut tasks);
                }
                Some(Follow::Snapshot(cluster, version)) => {
                    let snapshots = &shared.snapshots;
                    snapshots.begin(&shared, (cluster, version), &mut tasks);
                }
                None => return,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Takes keys from the queue and reconciles them.
async fn work(shared: Arc<Shared>) {
    // Decisions are made of complete caches only: nothing is made or deleted for what is not yet seen.
    while !shared.caches.synced() {
        tokio::select! {
            biased;
            () = shared.synced_wake.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    let mut running: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = running.join_next() => {}
            key = shared.queue.next(), if running.len() < WORKERS => {
                running.spawn(one(Arc::clone(&shared), key));
            }
        }
    }
}

/// What is made of many machines is woken by each of them, and looks at all of them: it rests in proportion to what a look
/// takes, so that its cost does not grow with the square of their number.
fn rest(key: &Key, begun: Instant) -> Duration {
    match key {
        Key::Machine(..) => Duration::ZERO,
        _ => (begun.elapsed() * 4).clamp(SHORTEST_REST, LONGEST_REST),
    }
}

async fn one(shared: Arc<Shared>, key: Key) {
    let begun = Instant::now();
    let result = reconcile(&shared, &key).await;
    let (namespace, name) = key.namespaced();
    let word = match &result {
        Ok(Outcome::Wait {
            reason,
            retry_after,
        }) => {
            tracing::debug!(controller = key.controller(), %namespace, %name, %reason, "waits");
            shared.queue.done(&key, rest(&key, begun), *retry_after);
            "wait"
        }
        Ok(outcome) => {
            shared.queue.done(&key, rest(&key, begun), None);
            match outcome {
                Outcome::Changed => "changed",
                Outcome::Deleted => "deleted",
                _ => "done",
            }
        }
        Err(error) if error.is_conflict() => {
            shared.queue.failed(&key, Some(Duration::from_millis(20)));
            "conflict"
        }
        Err(error) => {
            let cause = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::warn!(controller = key.controller(), %namespace, %name, %error, %cause, "reconcile failed");
            shared.queue.failed(&key, error.retry_after());
            "error"
        }
    };
    shared
        .context
        .metrics
        .reconciled(key.controller(), word, begun.elapsed().as_secs_f64());
    shared.context.metrics.queued(shared.queue.len());
}
