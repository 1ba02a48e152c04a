//! The audit trail: what controllers write down of machines and sets that come and go.

use std::sync::Arc;

use fleetwright_api::{MachineDeployment, decision::Trail};
use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::kit::Kit;

/// Decisions that were written down.
pub(crate) type Decisions = Arc<Mutex<Vec<Value>>>;

/// A trail, and what is written there.
pub(crate) fn recorder() -> (Trail, Decisions) {
    let decisions = Decisions::default();
    let written = Arc::clone(&decisions);
    let trail = Trail::new(move |decision| {
        let decision = serde_json::to_value(decision).unwrap();
        written.lock().push(decision);
    });
    (trail, decisions)
}

/// What `by` was written down to have done, a line each, with what every record must have.
fn done(kit: &Kit, by: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for decision in kit.decisions.lock().iter().filter(|d| d["by"] == by) {
        let objects = decision["inputs"]["objects"].as_str().unwrap();
        assert_eq!(
            (objects.len(), &decision["verdict"]),
            (64, &"Applied".into()),
            "{decision}"
        );
        let actions = decision["actions"].as_array().unwrap().iter();
        lines.extend(actions.map(|a| a.as_str().unwrap().to_owned()));
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_machine_that_comes_or_goes_is_a_decision_with_its_reason() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let set = kit.world.sets.keys().next().unwrap().clone();
    let first = kit.world.control_plane("eu")[0].name_any();
    let lines = done(&kit, "Cluster default/eu");
    assert!(
        matches!(lines.as_slice(), [line] if line.starts_with(&format!("create Machine default/{first}: "))),
        "{lines:?}"
    );
    let lines = done(&kit, "MachineDeployment default/eu-web");
    assert!(
        lines[0].starts_with(&format!("create MachineSet default/{set}")),
        "{lines:?}"
    );
    let by_set = format!("MachineSet default/{set}");
    let mut made = done(&kit, &by_set);
    made.sort();
    let workers = kit.world.workers("eu-web");
    let mut wanted: Vec<String> = workers
        .iter()
        .map(|m| format!("create Machine default/{}", m.name_any()))
        .collect();
    wanted.sort();
    assert_eq!(made, wanted);

    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 1}}))
        .await;
    kit.until("one worker", |w| {
        (w.settled("eu") && w.workers("eu-web").len() == 1).then_some(())
    })
    .await;
    let stays = kit.world.workers("eu-web")[0].name_any();
    let lines = done(&kit, &by_set);
    let gone: Vec<&String> = lines.iter().filter(|l| l.starts_with("delete ")).collect();
    assert_eq!(gone.len(), 1, "{lines:?}");
    assert!(
        !gone[0].contains(&stays) && gone[0].contains(": "),
        "{gone:?}"
    );
    let lines = done(&kit, "MachineDeployment default/eu-web");
    assert!(
        lines.iter().any(|l| l.contains(" from 2 to 1: ")),
        "{lines:?}"
    );
    kit.stop().await;
}
