//! Shows how the fleet comes along: one live line per cluster on a terminal, a line per change elsewhere.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{
    Cluster, Fleet, MachineDeployment,
    condition::{self, kind},
};
use futures::StreamExt;
use kube::{Api, Client, ResourceExt, runtime::watcher};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{output::print, overview, screen};

/// Shortest time between two pictures.
const FRAME: Duration = Duration::from_millis(200);

type Name = (String, String);

#[derive(Default)]
struct Picture {
    fleets: BTreeMap<Name, Fleet>,
    clusters: BTreeMap<Name, Cluster>,
    pools: BTreeMap<Name, MachineDeployment>,
    /// What was printed last, by what it is about, where there is no live picture.
    printed: BTreeMap<String, String>,
}

/// Shows it until `stop` is cancelled.
pub(crate) async fn show(client: Client, stop: CancellationToken) {
    let live = screen::is_live();
    let mut fleets = watcher::watcher(
        Api::<Fleet>::all(client.clone()),
        watcher::Config::default(),
    )
    .boxed();
    let mut clusters = watcher::watcher(
        Api::<Cluster>::all(client.clone()),
        watcher::Config::default(),
    )
    .boxed();
    let mut pools = watcher::watcher(
        Api::<MachineDeployment>::all(client),
        watcher::Config::default(),
    )
    .boxed();
    let mut picture = Picture::default();
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                screen::leave();
                return;
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                picture.show(live);
                continue;
            }
            Some(event) = fleets.next() => take(&mut picture.fleets, event),
            Some(event) = clusters.next() => take(&mut picture.clusters, event),
            Some(event) = pools.next() => take(&mut picture.pools, event),
        }
        due.get_or_insert_with(|| Instant::now() + FRAME);
    }
}

fn take<K: kube::Resource<DynamicType = ()>>(
    known: &mut BTreeMap<Name, K>,
    event: watcher::Result<watcher::Event<K>>,
) {
    let name = |o: &K| (o.namespace().unwrap_or_default(), o.name_any());
    match event {
        Ok(watcher::Event::Init) => known.clear(),
        Ok(watcher::Event::Apply(mut object) | watcher::Event::InitApply(mut object)) => {
            object.meta_mut().managed_fields = None;
            known.insert(name(&object), object);
        }
        Ok(watcher::Event::Delete(object)) => drop(known.remove(&name(&object))),
        Ok(watcher::Event::InitDone) | Err(_) => {}
    }
}

impl Picture {
    fn lines(&self) -> Vec<(String, String)> {
        let fleets = self.fleets.values().map(|fleet| {
            let status = fleet.status.clone().unwrap_or_default();
            let ready = condition::get(&status.conditions, kind::READY);
            let text = ready.map_or("looking at the source", |c| {
                c.message.lines().next().unwrap_or_default()
            });
            let mark = if ready.is_some_and(|c| c.status == "False") {
                '✗'
            } else {
                ' '
            };
            let name = format!("fleet {}", fleet.name_any());
            (name.clone(), format!("{mark} {name}: {text}"))
        });
        let clusters: Vec<Cluster> = self.clusters.values().cloned().collect();
        let pools: Vec<MachineDeployment> = self.pools.values().cloned().collect();
        let lines = overview::lines(&clusters, &pools)
            .into_iter()
            .map(|line| (line.cluster.clone(), line.render(usize::MAX)));
        fleets.chain(lines).collect()
    }

    fn show(&mut self, live: bool) {
        let lines = self.lines();
        if live {
            screen::draw(lines.iter().map(|(_, line)| line.as_str()));
            return;
        }
        for (name, line) in lines {
            if self.printed.get(&name) != Some(&line) {
                print(&format!("{line}\n"));
                self.printed.insert(name, line);
            }
        }
    }
}
