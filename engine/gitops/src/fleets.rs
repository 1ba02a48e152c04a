//! A task for each Fleet, from when it is seen until it is gone.

use std::collections::BTreeMap;

use fleetwright_api::{Fleet, meta::ANNOTATION_REQUESTED_AT};
use futures::StreamExt;
use kube::{Api, Client, ResourceExt, runtime::watcher};
use std::time::Duration;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Runs `task` for each Fleet, until `token` is cancelled. It gets the Fleet as it is seen, and a token that is cancelled when the
/// Fleet is gone. What is under way at the end is cut off.
pub async fn each<F>(
    client: Client,
    token: CancellationToken,
    task: impl Fn(watch::Receiver<Fleet>, CancellationToken) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let fleets = Api::<Fleet>::all(client);
    let mut events = watcher::watcher(fleets, watcher::Config::default()).boxed();
    let mut running: BTreeMap<(String, String), (watch::Sender<Fleet>, CancellationToken)> =
        BTreeMap::new();
    let mut listed = Vec::new();
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
            Some(Ok(watcher::Event::InitDone)) => running.retain(|name, (_, stop)| {
                let stays = listed.contains(name);
                if !stays {
                    stop.cancel();
                }
                stays
            }),
            Some(Ok(watcher::Event::InitApply(fleet) | watcher::Event::Apply(fleet))) => {
                let name = name(&fleet);
                listed.push(name.clone());
                if let Some((sender, _)) = running.get(&name) {
                    sender.send_replace(fleet);
                    continue;
                }
                let (sender, receiver) = watch::channel(fleet);
                let stop = token.child_token();
                tasks.spawn(task(receiver, stop.clone()));
                running.insert(name, (sender, stop));
            }
            Some(Ok(watcher::Event::Delete(fleet))) => {
                if let Some((_, stop)) = running.remove(&name(&fleet)) {
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

/// What of a Fleet asks for a look when it changes.
#[must_use]
pub fn asks(fleet: &Fleet) -> (Option<i64>, Option<String>) {
    (
        fleet.metadata.generation,
        fleet.annotations().get(ANNOTATION_REQUESTED_AT).cloned(),
    )
}
