//! A task for each Fleet, from when it is seen until it is gone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetwright_api::{Fleet, fleet::Held, meta::ANNOTATION_REQUESTED_AT};
use futures::StreamExt;
use kube::{Api, Client, ResourceExt, runtime::watcher};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::depends::Fleets;

/// What a Fleet's task sees.
pub struct Watched {
    /// The Fleet.
    pub fleet: watch::Receiver<Fleet>,
    /// All Fleets.
    pub all: watch::Receiver<Arc<Fleets>>,
    /// Is cancelled when the Fleet is gone.
    pub stop: CancellationToken,
}

/// Runs `task` for each Fleet, until `token` is cancelled. What is under way at the end is cut off.
pub async fn each<F>(client: Client, token: CancellationToken, task: impl Fn(Watched) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let fleets = Api::<Fleet>::all(client);
    let mut events = watcher::watcher(fleets, watcher::Config::default()).boxed();
    let mut running: BTreeMap<(String, String), (watch::Sender<Fleet>, CancellationToken)> =
        BTreeMap::new();
    let mut listed = Vec::new();
    let all = watch::Sender::new(Arc::<Fleets>::default());
    let mut tasks = JoinSet::new();
    loop {
        let event = tokio::select! {
            biased;
            () = token.cancelled() => break,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a Fleet's task ended");
                }
                continue;
            }
            event = events.next() => event,
        };
        let name = |fleet: &Fleet| (fleet.namespace().unwrap_or_default(), fleet.name_any());
        match event {
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitDone)) => {
                all.send_modify(|all| Arc::make_mut(all).retain(|name, _| listed.contains(name)));
                running.retain(|name, (_, stop)| {
                    let stays = listed.contains(name);
                    if !stays {
                        stop.cancel();
                    }
                    stays
                });
            }
            Some(Ok(watcher::Event::InitApply(fleet) | watcher::Event::Apply(fleet))) => {
                let name = name(&fleet);
                all.send_modify(|all| {
                    let mut seen = fleet.clone();
                    seen.metadata.managed_fields = None;
                    Arc::make_mut(all).insert(name.clone(), seen);
                });
                listed.push(name.clone());
                if let Some((sender, _)) = running.get(&name) {
                    sender.send_replace(fleet);
                    continue;
                }
                let (sender, receiver) = watch::channel(fleet);
                let stop = token.child_token();
                tasks.spawn(task(Watched {
                    fleet: receiver,
                    all: all.subscribe(),
                    stop: stop.clone(),
                }));
                running.insert(name, (sender, stop));
            }
            Some(Ok(watcher::Event::Delete(fleet))) => {
                let name = name(&fleet);
                all.send_modify(|all| drop(Arc::make_mut(all).remove(&name)));
                if let Some((_, stop)) = running.remove(&name) {
                    stop.cancel();
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot watch Fleets");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            None => break,
        }
    }
    tasks.shutdown().await;
}

/// What of a Fleet asks for a look when it changes: its generation, a request, and the pull request that is applied before its merge.
#[must_use]
pub fn asks(fleet: &Fleet) -> (Option<i64>, bool, Option<String>, Option<Held>) {
    (
        fleet.metadata.generation,
        fleet.metadata.deletion_timestamp.is_some(),
        fleet.annotations().get(ANNOTATION_REQUESTED_AT).cloned(),
        fleet.status.as_ref().and_then(|status| status.held.clone()),
    )
}
