//! The sync loop: one follower per Fleet, woken by polls, requests, edits and the progress of what was applied.

use std::{collections::BTreeMap, fmt::Debug, path::Path, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Fleet, MachineDeployment, ProviderAccount, fleet::DEFAULT_INTERVAL_SECONDS,
    meta::LABEL_FLEET, names::fleet_hash, random::Random,
};
use futures::{StreamExt, stream::BoxStream};
use kube::{Api, Client, ResourceExt, runtime::watcher};
use notify::Watcher as _;
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    fleets::{self, Watched, asks},
    follow::{Context, Follower},
    settle::Seen,
};

/// How long a directory must be quiet before it is read.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How long progress is gathered before it is told, so that a rollout of many machines is not told machine by machine.
const GATHER: Duration = Duration::from_millis(100);
/// Longest pause after failures.
const LONGEST: Duration = Duration::from_secs(300);

/// Follows all Fleets.
pub struct Sync {
    context: Context,
}

type Name = (String, String);

impl Sync {
    /// A loop that has not started.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    /// Runs until `token` is cancelled. What is under way is cut off: every step can be cut off anywhere.
    pub async fn run(self, token: CancellationToken) {
        let context = self.context;
        let client = context.client.clone();
        fleets::each(client, token, |watched| follow(context.clone(), watched)).await;
    }
}

async fn follow(context: Context, watched: Watched) {
    let Watched {
        fleet: mut fleets,
        mut all,
        stop,
    } = watched;
    let first = fleets.borrow_and_update().clone();
    let mut follower = Follower::new(context.clone(), first);
    let mut seen = Seen::default();
    let mut progress = progress(&context.client, &follower.fleet);
    let (mut edits, mut guard) = edits(&follower.fleet);
    let mut watched_directory = follower.fleet.spec.source.directory.clone();
    let mut look_at = Instant::now();
    let mut settle_at: Option<Instant> = None;
    let mut failures = 0u32;
    loop {
        let settle = settle_at.unwrap_or(look_at);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = fleets.changed() => {
                if changed.is_err() {
                    return;
                }
                let fleet = fleets.borrow_and_update().clone();
                if asks(&fleet) != asks(&follower.fleet) {
                    look_at = Instant::now();
                }
                if fleet.spec.source.directory != watched_directory {
                    watched_directory.clone_from(&fleet.spec.source.directory);
                    (edits, guard) = self::edits(&fleet);
                }
                follower.fleet = fleet;
            }
            Ok(()) = all.changed(), if follower.waits() => {
                if follower.may_go_on(&all.borrow_and_update()) {
                    look_at = Instant::now();
                }
            }
            () = edits.next() => {
                // Each edit begins the wait anew, within bounds.
                let latest = Instant::now() + 5 * DEBOUNCE;
                while Instant::now() < latest
                    && tokio::time::timeout(DEBOUNCE, edits.next()).await.is_ok() {}
                look_at = Instant::now();
            }
            () = tokio::time::sleep_until(look_at), if progress.is_complete() => {
                follower.others = Arc::clone(&all.borrow_and_update());
                failures = match follower.look(&seen).await {
                    Ok(true) => 0,
                    Ok(false) | Err(_) => failures.saturating_add(1),
                };
                look_at = Instant::now() + pause(&follower.fleet, failures, context.random.as_ref());
                settle_at = settle_at.or_else(|| due(&follower));
            }
            () = tokio::time::sleep_until(settle), if progress.is_complete() && settle_at.is_some() => {
                settle_at = match follower.settle(&seen).await {
                    Ok(()) => due(&follower),
                    Err(error) => {
                        tracing::warn!(%error, "cannot tell the Fleet's progress");
                        Some(Instant::now() + Duration::from_secs(1))
                    }
                };
            }
            // Last, so that a busy fleet does not hold up a look.
            Some(()) = progress.next_into(&mut seen) => {
                let soon = Instant::now() + GATHER;
                if follower.is_going() {
                    look_at = look_at.min(soon);
                }
                settle_at = Some(settle_at.map_or(soon, |at| at.min(soon)));
            }
        }
        if follower.wants_look() {
            look_at = Instant::now();
        }
        // The watch of a directory lives as long as this does.
        let _ = &guard;
    }
}

/// When to settle though nothing happens.
fn due(follower: &Follower) -> Option<Instant> {
    // A moment later, so that the deadline has been reached then.
    Some(Instant::now() + follower.due()? + GATHER)
}

/// Time to the next look that nobody asks for: the interval, give or take a tenth, or a growing pause after failures.
fn pause(fleet: &Fleet, failures: u32, random: &dyn Random) -> Duration {
    let seconds = fleet
        .spec
        .source
        .interval_seconds
        .unwrap_or(DEFAULT_INTERVAL_SECONDS)
        .max(1);
    let interval = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    let base = match failures {
        0 => interval,
        n => Duration::from_secs(1 << n.min(8))
            .min(LONGEST)
            .min(interval.max(Duration::from_secs(30))),
    };
    let mut byte = [0u8; 1];
    random.fill(&mut byte);
    base.mul_f64(0.9 + 0.2 * f64::from(byte[0]) / 255.0)
}

/// Edits of a Fleet's directory, and what keeps the watch alive. A Fleet of a repository has none.
fn edits(fleet: &Fleet) -> (Edits, Option<notify::RecommendedWatcher>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let Some(directory) = &fleet.spec.source.directory else {
        return (Edits(None), None);
    };
    let watch = || -> notify::Result<notify::RecommendedWatcher> {
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading is no edit; an error may hide one.
                if !event.is_ok_and(|e| e.kind.is_access()) {
                    sender.send(()).ok();
                }
            })?;
        watcher.watch(Path::new(directory), notify::RecursiveMode::Recursive)?;
        Ok(watcher)
    };
    match watch() {
        Ok(watcher) => (Edits(Some(receiver)), Some(watcher)),
        Err(error) => {
            tracing::warn!(%directory, %error, "the directory cannot be watched: it is read at each interval only");
            (Edits(None), None)
        }
    }
}

struct Edits(Option<mpsc::UnboundedReceiver<()>>);

impl Edits {
    async fn next(&mut self) {
        if let Some(receiver) = &mut self.0
            && receiver.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// The watches of a Fleet's clusters and pools, and of the accounts.
struct Progress {
    clusters: Listing<Cluster>,
    pools: Listing<MachineDeployment>,
    accounts: Listing<ProviderAccount>,
}

/// The watch of a kind. What it lists anew takes the place of what was there as a whole: what is not listed yet is not gone.
struct Listing<K> {
    events: BoxStream<'static, watcher::Result<watcher::Event<K>>>,
    listing: BTreeMap<Name, K>,
    /// There was a whole list.
    complete: bool,
}

fn progress(client: &Client, fleet: &Fleet) -> Progress {
    let hash = fleet_hash(&fleet.namespace().unwrap_or_default(), &fleet.name_any());
    let ours = watcher::Config::default().labels(&format!("{LABEL_FLEET}={hash}"));
    Progress {
        clusters: Listing::of(client, ours.clone()),
        pools: Listing::of(client, ours),
        accounts: Listing::of(client, watcher::Config::default()),
    }
}

impl Progress {
    /// Whether what was seen says of every object whether it is there.
    fn is_complete(&self) -> bool {
        self.clusters.complete && self.pools.complete && self.accounts.complete
    }

    /// Takes the next change into `seen`.
    async fn next_into(&mut self, seen: &mut Seen) -> Option<()> {
        tokio::select! {
            biased;
            event = self.clusters.events.next() => self.clusters.take(&mut seen.clusters, event?).await,
            event = self.pools.events.next() => self.pools.take(&mut seen.pools, event?).await,
            event = self.accounts.events.next() => self.accounts.take(&mut seen.accounts, event?).await,
        }
        Some(())
    }
}

impl<K> Listing<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn of(client: &Client, config: watcher::Config) -> Self {
        Self {
            events: watcher::watcher(Api::<K>::all(client.clone()), config).boxed(),
            listing: BTreeMap::new(),
            complete: false,
        }
    }

    async fn take(
        &mut self,
        seen: &mut BTreeMap<Name, K>,
        event: watcher::Result<watcher::Event<K>>,
    ) {
        let lean = |mut object: K| {
            object.meta_mut().managed_fields = None;
            let name = (object.namespace().unwrap_or_default(), object.name_any());
            (name, object)
        };
        match event {
            Ok(watcher::Event::Init) => self.listing.clear(),
            Ok(watcher::Event::InitApply(object)) => self.listing.extend([lean(object)]),
            Ok(watcher::Event::InitDone) => {
                *seen = std::mem::take(&mut self.listing);
                self.complete = true;
            }
            Ok(watcher::Event::Apply(object)) => seen.extend([lean(object)]),
            Ok(watcher::Event::Delete(object)) => drop(seen.remove(&lean(object).0)),
            Err(error) => {
                tracing::warn!(%error, "cannot watch the Fleet's objects");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
