//! Invariant I3 seen from outside: a watch of all Machines, whose every event is counted against the bounds of its pool.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use fleetwright_api::{Machine, condition, meta::LABEL_DEPLOYMENT_NAME};
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::watcher::{self, Event},
};
use tokio::{sync::oneshot, task::JoinSet};

/// What a pool may come to, and what it came to.
#[derive(Clone, Copy, Debug)]
struct Pool {
    replicas: usize,
    surge: usize,
    most: usize,
    fewest: usize,
}

/// What was seen of the pools.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Events that changed something.
    pub(crate) events: usize,
    /// Pools with more machines than replicas and surge, or fewer available than replicas: each a sentence.
    pub(crate) broken: Vec<String>,
    /// Machines of pools that were there at the start and are gone.
    pub(crate) replaced: usize,
}

/// A running count.
pub(crate) struct Bounds {
    tasks: JoinSet<anyhow::Result<Seen>>,
    stop: oneshot::Sender<()>,
}

/// Of each machine: its pool, and whether it stays and is available.
type Machines = BTreeMap<String, (String, bool, bool)>;

fn look(machine: &Machine) -> Option<(String, bool, bool)> {
    let pool = machine.labels().get(LABEL_DEPLOYMENT_NAME)?.clone();
    let stays = machine.metadata.deletion_timestamp.is_none();
    let conditions = machine.status.as_ref().map(|s| s.conditions.as_slice());
    let available = condition::is_true(conditions.unwrap_or_default(), condition::kind::AVAILABLE);
    Some((pool, stays, stays && available))
}

impl Bounds {
    /// Begins to watch; returns once all machines were listed. Of each pool `shape` gives the replicas and the surge.
    pub(crate) async fn watch(
        client: Client,
        shape: BTreeMap<String, (usize, usize)>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(count(client, shape, ready, stopped));
        is_ready.await.context("the watch of the machines ended")?;
        Ok(Self { tasks, stop })
    }

    /// Ends the watch.
    pub(crate) async fn end(mut self) -> anyhow::Result<Seen> {
        self.stop.send(()).ok();
        self.tasks.join_next().await.context("nobody watched")??
    }
}

async fn count(
    client: Client,
    shape: BTreeMap<String, (usize, usize)>,
    ready: oneshot::Sender<()>,
    mut stop: oneshot::Receiver<()>,
) -> anyhow::Result<Seen> {
    let machines = Api::<Machine>::namespaced(client, "default");
    let mut events = watcher::watcher(machines, watcher::Config::default()).boxed();
    let mut known = Machines::new();
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    let (mut ready, mut seen, mut first) = (Some(ready), 0, BTreeSet::new());
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stop => break,
            event = events.next() => event.context("the watch ended")?,
        };
        // A gap in the history would be a gap in the proof.
        let (name, now) = match event.context("the watch broke")? {
            Event::Init => {
                anyhow::ensure!(ready.is_some(), "the watch had to begin anew");
                continue;
            }
            Event::InitDone => {
                first = known.keys().cloned().collect();
                for (name, (replicas, surge)) in &shape {
                    let (most, fewest) = counts.get(name).copied().unwrap_or_default();
                    let pool = Pool {
                        replicas: *replicas,
                        surge: *surge,
                        most,
                        fewest,
                    };
                    pools.insert(name.clone(), pool);
                }
                ready.take().map(|ready| ready.send(()));
                continue;
            }
            Event::InitApply(machine) | Event::Apply(machine) => {
                (machine.name_any(), look(&machine))
            }
            Event::Delete(machine) => (machine.name_any(), None),
        };
        seen += usize::from(ready.is_none());
        let before = match &now {
            Some(now) => known.insert(name, now.clone()),
            None => known.remove(&name),
        };
        let pool = now
            .as_ref()
            .or(before.as_ref())
            .map(|(pool, ..)| pool.clone());
        if let Some((pool, stays, available)) = before {
            let (all, up) = counts.entry(pool).or_default();
            (*all, *up) = (*all - usize::from(stays), *up - usize::from(available));
        }
        if let Some((pool, stays, available)) = now {
            let (all, up) = counts.entry(pool).or_default();
            (*all, *up) = (*all + usize::from(stays), *up + usize::from(available));
        }
        let Some(name) = pool else { continue };
        let (all, up) = counts.get(&name).copied().unwrap_or_default();
        if let Some(pool) = pools.get_mut(&name) {
            (pool.most, pool.fewest) = (pool.most.max(all), pool.fewest.min(up));
        }
    }
    let broken = pools.iter().filter_map(|(name, pool)| {
        let Pool {
            replicas,
            surge,
            most,
            fewest,
        } = *pool;
        (most > replicas + surge || fewest < replicas).then(|| {
            format!(
                "pool {name} of {replicas} had up to {most} machines and down to {fewest} available"
            )
        })
    });
    Ok(Seen {
        events: seen,
        broken: broken.collect(),
        replaced: first
            .iter()
            .filter(|name| !known.contains_key(*name))
            .count(),
    })
}
