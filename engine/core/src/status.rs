//! Statuses from what was observed: counts, phases and conditions. A condition's transition time stays while its status does.

mod bootstrap;
mod cluster;
mod control_plane;
mod group;
mod health_check;
mod in_sync;
mod machine;
mod managed;
mod pool;
#[cfg(test)]
mod tests;
mod workers;

use fleetwright_api::{
    Machine,
    condition::{self, Condition, Status, reason},
};
use jiff::Timestamp;

pub use self::{
    bootstrap::manifests_refused,
    cluster::{
        ClusterFacts, cluster, has_converged, pool_unconverged, unconverged, upgrade_blocked,
    },
    group::{GroupNodes, group},
    health_check::health_check,
    machine::{
        CONNECTION_GRACE_SECONDS, MachineObservation, NodeHealth, NodeObservation, UpToDate,
        available_at, machine,
    },
    pool::{incomplete, is_complete, machine_deployment, machine_set, next_turn, recount},
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

/// Says that an object is paused because its Cluster is.
pub fn pause(conditions: &mut Vec<Condition>, generation: Option<i64>, now: Timestamp) {
    let text = "its Cluster is paused";
    let kind = condition::kind::PAUSED;
    condition::set(conditions, kind, Status::True, kind, text, generation, now);
}

/// Reasons of a provider's refusal that no retry mends: settings or account must change.
const FOR_GOOD: [&str; 2] = [reason::TERMINAL, reason::CREDENTIALS_REFUSED];

/// The reason for which a provider refuses to make some of these machines, and which in words: first what no retry mends.
fn refusal<'a>(machines: impl Iterator<Item = &'a Machine>) -> Option<(&'a str, String)> {
    let refused: Vec<(&str, String)> = machines
        .filter_map(|m| {
            let list = &m.status.as_ref()?.conditions;
            let c = condition::get(list, condition::kind::INFRASTRUCTURE_READY)?;
            let said = FOR_GOOD.contains(&c.reason.as_str()) || c.reason == reason::QUOTA_EXCEEDED;
            let name = m.metadata.name.as_deref().unwrap_or_default();
            (said && c.status == "False")
                .then(|| (c.reason.as_str(), format!("{name}: {}", c.message)))
        })
        .collect();
    let first = refused.iter().find(|(r, _)| FOR_GOOD.contains(r));
    let reason = first.or(refused.first())?.0;
    let same: Vec<String> = refused
        .iter()
        .filter(|(r, _)| *r == reason)
        .map(|(_, text)| text.clone())
        .collect();
    Some((reason, few(&same)))
}

/// What stands in the way of a pool's machines, or of a cluster's control plane, for good: until settings or an account change.
pub fn refused(conditions: &[Condition]) -> Option<&str> {
    let c = condition::get(conditions, condition::kind::SCALING_UP)?;
    (c.status == "True" && FOR_GOOD.contains(&c.reason.as_str())).then_some(c.message.as_str())
}

/// At most three of `items` in one message.
pub(crate) fn few(items: &[String]) -> String {
    let mut text = items.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    if items.len() > 3 {
        text.push_str(&format!("; and {} more", items.len() - 3));
    }
    text
}

/// Sums up condition `of` of all `items` as condition `to`: with `good` as reason when all have it, `Not<good>` when one is known
/// not to, `<good>Unknown` when only unknown ones are left, and `none` when there are no items.
fn all_have<'a>(
    out: &mut Conditions<'_>,
    to: &str,
    of: &str,
    (good, none): (&str, &str),
    items: impl Iterator<Item = (&'a str, &'a [Condition])>,
) {
    let (mut total, mut bad, mut unknown) = (0, Vec::new(), Vec::new());
    for (name, conditions) in items {
        total += 1;
        match condition::get(conditions, of) {
            Some(c) if c.status == "True" => {}
            Some(c) => {
                let text = if c.message.is_empty() {
                    &c.reason
                } else {
                    &c.message
                };
                let list = if c.status == "False" {
                    &mut bad
                } else {
                    &mut unknown
                };
                list.push(format!("{name}: {text}"));
            }
            None => unknown.push(format!("{name}: not known yet")),
        }
    }
    if total == 0 {
        out.set(to, Status::True, none, "");
    } else if !bad.is_empty() {
        bad.append(&mut unknown);
        out.set(to, Status::False, &format!("Not{good}"), few(&bad));
    } else if !unknown.is_empty() {
        out.set(
            to,
            Status::Unknown,
            &format!("{good}Unknown"),
            few(&unknown),
        );
    } else {
        out.set(to, Status::True, good, "");
    }
}

/// [`all_have`] of machines, for a condition whose good reason is its own name.
fn all_machines<'a>(
    out: &mut Conditions<'_>,
    to: &str,
    of: &str,
    machines: impl Iterator<Item = (&'a str, &'a [Condition])>,
) {
    all_have(out, to, of, (of, condition::reason::NO_REPLICAS), machines);
}
