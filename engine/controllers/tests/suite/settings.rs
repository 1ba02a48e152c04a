//! Settings of machines and clusters of the simulated cloud.

use serde_json::{Value, json};

/// Puts `from` over `to`, object by object.
pub(crate) fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from,
    }
}

/// Settings of a machine that boots fast.
pub(crate) fn config(kind: &str) -> Value {
    json!({
        "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig",
        "account": "sim-eu", "instanceType": kind, "bootSeconds": 0.2,
    })
}

/// A cluster's settings with one workload.
pub(crate) fn workload(name: &str, replicas: usize, min_available: Option<usize>) -> Value {
    let mut workload = json!({"name": name, "replicas": replicas, "terminationSeconds": 0});
    if let Some(min) = min_available {
        workload["minAvailable"] = json!(min);
    }
    json!({"providerConfig": {
        "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimClusterConfig",
        "account": "sim-eu", "workloads": [workload],
    }})
}
