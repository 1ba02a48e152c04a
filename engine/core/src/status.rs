//! Statuses from what was observed: counts, phases and conditions. A condition's transition time stays while its status does.

mod cluster;
mod machine;
mod pool;
#[cfg(test)]
mod tests;

use fleetwright_api::condition::{self, Condition, Status};
use jiff::Timestamp;

pub use self::{
    cluster::{ClusterFacts, cluster, has_converged, pool_unconverged, unconverged},
    machine::{MachineObservation, NodeHealth, NodeObservation, UpToDate, available_at, machine},
    pool::{incomplete, is_complete, machine_deployment, machine_set, recount},
};

/// Conditions under construction, of one object at one time.
struct Conditions<'a> {
    list: &'a mut Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions<'_> {
    fn set(&mut self, kind: &str, status: Status, reason: &str, message: impl Into<String>) {
        condition::set(
            self.list,
            kind,
            status,
            reason,
            message,
            self.generation,
            self.now,
        );
    }

    /// A condition whose reasons are its type and `Not` before it.
    fn flag(&mut self, kind: &str, on: bool, message: impl Into<String>) {
        let negative = format!("Not{kind}");
        let reason = if on { kind } else { &negative };
        let message = if on { message.into() } else { String::new() };
        self.set(kind, on.into(), reason, message);
    }
}

/// The sum of machines' conditions of one type: the first few names of those where it is not True.
fn aggregate<'a>(
    machines: impl Iterator<Item = (&'a str, &'a [Condition])>,
    kind: &str,
) -> (usize, Vec<String>, bool) {
    let (mut total, mut bad, mut unknown) = (0, Vec::new(), false);
    for (name, conditions) in machines {
        total += 1;
        match condition::get(conditions, kind) {
            Some(c) if c.status == "True" => {}
            Some(c) if c.status == "False" && !c.message.is_empty() => {
                bad.push(format!("{name}: {}", c.message));
            }
            Some(c) if c.status == "False" => bad.push(format!("{name}: {}", c.reason)),
            _ => {
                unknown = true;
                bad.push(format!("{name}: not known yet"));
            }
        }
    }
    (total, bad, unknown)
}

/// At most three of `items` in one message.
fn few(items: &[String]) -> String {
    let mut text = items.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    if items.len() > 3 {
        text.push_str(&format!("; and {} more", items.len() - 3));
    }
    text
}

/// `<name>` for the positive kind: all machines have condition `of`.
fn all_machines<'a>(
    out: &mut Conditions<'_>,
    kind: &str,
    of: &str,
    machines: impl Iterator<Item = (&'a str, &'a [Condition])>,
) {
    let (total, bad, unknown) = aggregate(machines, of);
    if total == 0 {
        out.set(kind, Status::True, condition::reason::NO_REPLICAS, "");
    } else if bad.is_empty() {
        out.set(kind, Status::True, of, "");
    } else if unknown && bad.iter().all(|b| b.ends_with("not known yet")) {
        out.set(kind, Status::Unknown, &format!("{of}Unknown"), few(&bad));
    } else {
        out.set(kind, Status::False, &format!("Not{of}"), few(&bad));
    }
}
