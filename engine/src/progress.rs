//! Shows how the fleet comes along: one live line per cluster on a terminal, a line per change elsewhere.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{Cluster, Fleet, MachineDeployment};
use futures::StreamExt;
use kube::{Api, Client, runtime::watcher};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    output::print,
    overview::{Name, Overview, Shown},
    screen,
};

/// Shortest time between two pictures.
const FRAME: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Picture {
    overview: Overview,
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
            Some(event) = fleets.next() => picture.overview.take(event),
            Some(event) = clusters.next() => picture.overview.take(event),
            Some(event) = pools.next() => picture.overview.take(event),
        }
        due.get_or_insert_with(|| Instant::now() + FRAME);
    }
}

impl Overview {
    fn take<K: Shown>(&mut self, event: watcher::Result<watcher::Event<K>>) {
        match event {
            Ok(watcher::Event::Init) => K::clear(self),
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                object.put(self);
            }
            Ok(watcher::Event::Delete(object)) => object.remove(self),
            Ok(watcher::Event::InitDone) | Err(_) => {}
        }
    }
}

impl Picture {
    /// Lines with what they are about.
    fn lines(&self) -> impl Iterator<Item = (String, String)> {
        let named = |what: &str, (namespace, name): &Name| format!("{what}{namespace}/{name}");
        let fleets = self.overview.fleets();
        let fleets = fleets.map(move |(name, line)| (named("fleet ", name), line.to_owned()));
        let clusters = self.overview.lines();
        fleets.chain(clusters.map(move |(name, line)| (named("", name), line)))
    }

    fn show(&mut self, live: bool) {
        let lines: Vec<_> = self.lines().collect();
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
