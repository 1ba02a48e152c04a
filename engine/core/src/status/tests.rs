//! Statuses, row by row: every condition with every reason and message that it can have.

mod bootstrap;
mod cluster;
mod etcd;
mod group;
mod health;
mod machine;
mod managed;
mod pool;
mod refusals;

use fleetwright_api::{
    Machine,
    condition::{self, Condition, Status},
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn read<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// A condition as one line: status, reason, message.
fn line(conditions: &[Condition], kind: &str) -> String {
    condition::get(conditions, kind).map_or_else(
        || "none".to_owned(),
        |c| {
            format!("{} {}: {}", c.status, c.reason, c.message)
                .trim_end_matches(": ")
                .to_owned()
        },
    )
}

/// Conditions from `Type=Status` or `Type=Status:Reason:message`, separated by commas.
fn conditions(text: &str) -> Vec<Condition> {
    let mut list = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (kind, rest) = part.split_once('=').unwrap();
        let mut rest = rest.splitn(3, ':');
        let status = match rest.next().unwrap() {
            "True" => Status::True,
            "False" => Status::False,
            _ => Status::Unknown,
        };
        let reason = rest.next().unwrap_or("X");
        let message = rest.next().unwrap_or_default();
        condition::set(&mut list, kind, status, reason, message, None, at(0));
    }
    list
}

/// A machine with these conditions, in a set of this name.
fn member(name: &str, set: &str, deleting: bool, text: &str) -> Machine {
    let mut machine: Machine = read(json!({
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "MachineSet", "name": set, "uid": "u", "controller": true}],
        },
        "spec": {"clusterName": "c", "providerConfig": {}},
        "status": {},
    }));
    machine.status.as_mut().unwrap().conditions = conditions(text);
    machine.metadata.deletion_timestamp = deleting.then(|| fleetwright_api::time::k8s_time(at(0)));
    machine
}
