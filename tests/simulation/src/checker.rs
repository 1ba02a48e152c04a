//! The checker: it looks at the API's history and the cloud's journal from outside, and says which invariant broke.

mod cloud;
pub(crate) use self::cloud::{FOREIGN_NODE, INSTALLATION};
mod control_plane;
mod declared;
mod end;
mod git;
pub(crate) mod model;
mod pools;
mod running;
mod waves;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::Hasher,
    sync::Arc,
};

use fleetwright_api::time::Clock;
use fleetwright_provider_sim::{Cloud, Entry};
use fleetwright_store::{Event, Store, Watch};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use self::model::{Cluster, FleetObject, Machine, Pool, Set, Wish};
use crate::{
    clock::SimClock,
    places::{Posts, Repository},
    waves::Waves,
    weather::Weather,
};

/// Lines of history that a failure shows.
const SHOWN: usize = 60;

/// What broke.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    /// The invariant, such as `I3`.
    pub(crate) invariant: &'static str,
    /// What was seen.
    pub(crate) what: String,
    /// When.
    pub(crate) at: Timestamp,
    /// What came before.
    pub(crate) history: Vec<String>,
}

/// What a store has under a prefix.
fn stored<T: serde::de::DeserializeOwned>(store: &Store, prefix: &str) -> Vec<T> {
    let (entries, _) = store.range(prefix, None, 0);
    let read = |entry: &fleetwright_store::Entry| serde_json::from_slice(&entry.value.bytes()).ok();
    entries.iter().filter_map(read).collect()
}

/// What the checker knows beside the API's objects.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) clock: SimClock,
    pub(crate) weather: Arc<Weather>,
    pub(crate) repository: Arc<Repository>,
    pub(crate) posts: Arc<Mutex<Posts>>,
    pub(crate) waves: Arc<Waves>,
}

/// The machines of the API, with what happened to them.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) object: Machine,
    /// It was available once.
    pub(crate) was_available: bool,
    /// What its control plane was to be when it was made.
    pub(crate) cause: String,
    /// Since when it is available, or is not.
    pub(crate) changed: Timestamp,
}

impl Known {
    pub(crate) fn available(&self) -> bool {
        !self.object.metadata.deleting()
            && model::is_true(&self.object.status.conditions, "Available")
    }
}

/// The checker of one run.
pub(crate) struct Checker {
    pub(crate) around: Surroundings,
    pub(crate) cloud: Option<Cloud>,
    store: Store,
    watch: Watch,
    pub(crate) clusters: BTreeMap<String, Cluster>,
    pub(crate) pools: BTreeMap<String, Pool>,
    pub(crate) sets: BTreeMap<String, Set>,
    pub(crate) machines: BTreeMap<String, Known>,
    pub(crate) fleet: FleetObject,
    pub(crate) wishes: BTreeMap<String, Wish>,
    pools_seen: BTreeMap<String, pools::Seen>,
    /// The revision in which a cluster was last seen as it is to be, and when it was first.
    converged_at: BTreeMap<String, (String, Timestamp)>,
    /// The revision that a cluster came with.
    born: BTreeMap<String, String>,
    roots: git::Roots,
    /// Machines that people deleted, or that went with what they deleted.
    pub(crate) by_people: BTreeSet<String>,
    /// Pools that people scaled, and what the repository said of their replicas when they did last.
    pub(crate) scaled: BTreeMap<String, Option<i64>>,
    /// Instances that nobody of ours made.
    pub(crate) foreign: BTreeSet<String>,
    /// Instances that appeared beside those that they are copies of.
    pub(crate) duplicates: BTreeSet<String>,
    /// Machines whose member of etcd, node or instance broke last when.
    pub(crate) broken_members: BTreeMap<String, Timestamp>,
    /// Machines that went though their nodes could not be deleted in time.
    nodes_given_up: BTreeSet<String>,
    /// The faults are over.
    pub(crate) calm: bool,
    /// Names that machines have had, and the uids of their pools or clusters.
    names: BTreeMap<String, String>,
    lines: VecDeque<String>,
    keep_all: bool,
    digest: std::hash::DefaultHasher,
    pub(crate) broken: Option<Broken>,
    pub(crate) failed: Arc<Notify>,
    /// Changes of the API that count as writes.
    pub(crate) writes: u64,
    /// Calls that change something at the provider.
    pub(crate) calls: u64,
    /// Requests of the engine that are meant to change something in our API or a cluster's, and how many there were of each.
    pub(crate) asked: BTreeMap<String, u64>,
    /// Most machines that ran at a time.
    pub(crate) most_machines: usize,
    /// Machines made and gone, in order, as (verb, name).
    pub(crate) moves: Vec<(&'static str, String)>,
}

impl Checker {
    /// A checker of what happens from now on in `store`.
    pub(crate) fn new(around: Surroundings, store: &Store, keep_all: bool) -> Self {
        Self {
            around,
            cloud: None,
            store: store.clone(),
            watch: store.watch("/", store.revision()),
            clusters: BTreeMap::new(),
            pools: BTreeMap::new(),
            sets: BTreeMap::new(),
            machines: BTreeMap::new(),
            fleet: FleetObject::default(),
            wishes: BTreeMap::new(),
            pools_seen: BTreeMap::new(),
            converged_at: BTreeMap::new(),
            born: BTreeMap::new(),
            roots: git::Roots::default(),
            by_people: BTreeSet::new(),
            scaled: BTreeMap::new(),
            foreign: BTreeSet::new(),
            duplicates: BTreeSet::new(),
            broken_members: BTreeMap::new(),
            nodes_given_up: BTreeSet::new(),
            calm: false,
            names: BTreeMap::new(),
            lines: VecDeque::new(),
            keep_all,
            digest: std::hash::DefaultHasher::new(),
            broken: None,
            failed: Arc::new(Notify::new()),
            writes: 0,
            calls: 0,
            asked: BTreeMap::new(),
            most_machines: 0,
            moves: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.around.clock.now()
    }

    /// A line of history; each is part of the digest.
    pub(crate) fn line(&mut self, text: String) {
        let line = format!("{} {text}", self.now());
        self.digest.write(line.as_bytes());
        if !self.keep_all && self.lines.len() >= SHOWN {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The digest of all that happened, and the lines that were kept.
    pub(crate) fn journal(&self) -> (u64, Vec<String>) {
        (self.digest.finish(), self.lines.iter().cloned().collect())
    }

    /// An invariant is broken. Only the first time counts.
    pub(crate) fn broke(&mut self, invariant: &'static str, what: String) {
        if self.broken.is_none() {
            let from = self.lines.len().saturating_sub(SHOWN);
            self.broken = Some(Broken {
                invariant,
                what,
                at: self.now(),
                history: self.lines.iter().skip(from).cloned().collect(),
            });
            self.failed.notify_one();
        }
    }

    /// The engine asks for a change, whatever comes of it. Who leads is told again and again.
    pub(crate) fn asked(&mut self, what: String) {
        if !what.contains("/leases") {
            *self.asked.entry(what).or_default() += 1;
        }
    }

    /// Our objects of a kind as they are stored, by name.
    pub(crate) fn live(&self, plural: &str) -> BTreeMap<String, Value> {
        let all: Vec<Value> = stored(&self.store, &format!("/fleetwright.dev/{plural}/"));
        let named = |object: Value| Some((object["metadata"]["name"].as_str()?.to_owned(), object));
        all.into_iter().filter_map(named).collect()
    }

    /// Looks at what changed in the API since the last look.
    pub(crate) fn look(&mut self) {
        loop {
            match self.watch.ready() {
                Ok(events) if events.is_empty() => return,
                Ok(events) => events.iter().for_each(|event| self.event(event)),
                Err(error) => return self.broke("checker", format!("history is lost: {error}")),
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let mut parts = event.key.splitn(5, '/').skip(1);
        let (group, plural) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let _namespace = parts.next();
        let name = parts.next().unwrap_or("").to_owned();
        let value = event.value.bytes();
        self.digest.write(&value);
        if plural != "events" && plural != "leases" {
            self.writes += 1;
        }
        let verb = match (&event.previous, event.deleted) {
            (_, true) => "gone",
            (None, _) => "made",
            _ => "changed",
        };
        if group != "fleetwright.dev" {
            self.line(format!("{} {plural}/{name} {verb}", event.revision));
            return;
        }
        let bytes = &value[..];
        let note = match plural {
            "machines" => self.take(bytes, |c, o| c.machine(&name, o, event.deleted)),
            "machinesets" => self.take(bytes, |c, o| c.set(&name, o, event.deleted)),
            "machinedeployments" => self.take(bytes, |c, o| c.pool(&name, o, event.deleted)),
            "clusters" => self.take(bytes, |c, o| c.cluster(&name, o, event.deleted)),
            "fleets" => self.take(bytes, |c, o: FleetObject| {
                c.fleet = o;
                String::new()
            }),
            "commitstatuses" => self.take(bytes, |c, o| c.wish(&name, o, event.deleted)),
            _ => String::new(),
        };
        self.line(format!("{} {plural}/{name} {verb} {note}", event.revision));
    }

    fn take<O: serde::de::DeserializeOwned>(
        &mut self,
        bytes: &[u8],
        then: impl FnOnce(&mut Self, O) -> String,
    ) -> String {
        match serde_json::from_slice(bytes) {
            Ok(object) => then(self, object),
            Err(error) => {
                self.broke("checker", format!("an object cannot be read: {error}"));
                String::new()
            }
        }
    }

    fn machine(&mut self, name: &str, object: Machine, gone: bool) -> String {
        if gone {
            self.machines.remove(name);
            self.moves.push(("gone", name.to_owned()));
            self.machine_gone(&object);
            return String::new();
        }
        let before = self.machines.get(name).cloned();
        if before.is_none() {
            // A pool or a cluster that is made anew counts anew.
            let pool = object
                .metadata
                .labels
                .get(fleetwright_api::meta::LABEL_DEPLOYMENT_NAME);
            let of = match pool {
                Some(pool) => self.pools.get(pool).map(|p| &p.metadata),
                None => self
                    .clusters
                    .get(&object.spec.cluster_name)
                    .map(|c| &c.metadata),
            };
            let of = of.map(|m| m.uid.clone()).unwrap_or_default();
            if self.names.insert(name.to_owned(), of.clone()) == Some(of) {
                self.broke("I1", format!("machine name {name} is used a second time"));
            }
            self.moves.push(("create", name.to_owned()));
        }
        let available = model::is_true(&object.status.conditions, "Available");
        let worker = !object
            .metadata
            .labels
            .contains_key(fleetwright_api::meta::LABEL_CONTROL_PLANE);
        let known = Known {
            was_available: available || before.as_ref().is_some_and(|b| b.was_available),
            cause: before
                .as_ref()
                .map_or_else(|| self.control_plane_cause(&object), |b| b.cause.clone()),
            changed: match &before {
                Some(b)
                    if model::is_true(&b.object.status.conditions, "Available") == available =>
                {
                    b.changed
                }
                _ => self.now(),
            },
            object: object.clone(),
        };
        self.machines.insert(name.to_owned(), known.clone());
        let running = self.machines.values().filter(|m| m.available()).count();
        self.most_machines = self.most_machines.max(running);
        let doomed = object.metadata.deleting()
            && before
                .as_ref()
                .is_none_or(|b| !b.object.metadata.deleting());
        if doomed {
            self.moves.push(("delete", name.to_owned()));
        }
        let was = before.as_ref().is_some_and(Known::available);
        match (worker, before.is_none(), doomed) {
            (true, true, _) => self.worker_made(name),
            (true, _, true) => self.worker_doomed(name, was),
            (false, true, _) => self.control_plane_made(name),
            (false, _, true) => self.control_plane_doomed(name),
            _ => {}
        }
        self.pool_of(name);
        let ready = model::condition(&object.status.conditions, "Ready");
        format!(
            "v={} {}{}{}{}",
            object.spec.version.as_deref().unwrap_or("-"),
            if object.metadata.deleting() {
                "deleting "
            } else {
                ""
            },
            if available { "available" } else { "" },
            ready.map_or("", |r| r.reason.as_str()),
            ready.map_or(String::new(), |r| format!(
                " ({})",
                r.message.chars().take(80).collect::<String>()
            )),
        )
    }

    /// A line of the cloud's journal.
    pub(crate) fn called(&mut self, entry: &Entry) {
        self.look();
        let text = serde_json::to_string(entry).unwrap_or_default();
        if entry.verb == "list" && entry.outcome == "ok" && entry.fault.is_none() {
            self.digest.write(text.as_bytes());
        } else {
            self.line(text);
        }
        self.cloud_call(entry);
    }
}
