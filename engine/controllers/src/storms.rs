//! What machines of all clusters that break have in common: counted as news of them comes in, asked when one is to be replaced.

use fleetwright_api::{Machine, MachineSet, meta};
use fleetwright_core::{
    cluster::is_control_plane,
    health::{Sight, Tally, WideStorm},
    why::Record,
};
use kube::Resource;
use parking_lot::Mutex;

use crate::{cache::name_of, reconcile::Shared, wake};

/// The machines of this engine by what they have in common.
#[derive(Default)]
pub(crate) struct Storms(Mutex<Tally>);

impl Storms {
    /// Takes news of a machine in, and wakes who replaces those that a storm holds from now on or no longer.
    pub(crate) fn follow(&self, shared: &Shared, machine: &Machine) {
        let name = name_of(machine);
        let turned = {
            let mut tally = self.0.lock();
            // What is known now, not what the news says, which may come in another order.
            let known = shared.caches.get::<Machine>(&name.0, &name.1);
            let sight = known.map(|m| Sight::of(&m, commit(shared, &m).as_deref()));
            tally.put(&name, sight, shared.now())
        };
        for (namespace, name) in turned {
            if let Some(machine) = shared.caches.get::<Machine>(&namespace, &name) {
                wake::who_replaces(shared, &machine);
            }
        }
    }

    /// The storm over several clusters that a broken machine is in.
    pub(crate) fn over(&self, shared: &Shared, machine: &Machine) -> Option<WideStorm> {
        self.0.lock().storm(&name_of(machine), shared.now())
    }
}

/// The commit that a machine was made for: its set's, or its own where it is of the control plane.
fn commit(shared: &Shared, machine: &Machine) -> Option<String> {
    let record = if is_control_plane(machine) {
        Record::on(machine.meta())
    } else {
        let owner = meta::controller_of(machine)?;
        let (namespace, _) = name_of(machine);
        let set = shared.caches.get::<MachineSet>(&namespace, &owner.name)?;
        Record::on(&set.metadata)
    };
    record?.commit
}
