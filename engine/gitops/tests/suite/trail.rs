//! What Fleets write down of their decisions.

use fleetwright_api::{fleet::FleetReference, meta::ANNOTATION_ALLOW_DELETE};
use serde_json::{Value, json};

use crate::kit::{World, cluster, config_map};

/// What was written down since the last time: verdict and actions.
fn told(world: &World) -> Vec<(String, Vec<String>)> {
    let decisions = std::mem::take(&mut *world.decisions.lock());
    let line = |decision: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let actions = decision["actions"].as_array().unwrap();
        (
            text(&decision["verdict"]),
            actions.iter().map(text).collect(),
        )
    };
    decisions.iter().map(line).collect()
}

fn one(verdict: &str, actions: &[&str]) -> Vec<(String, Vec<String>)> {
    let actions = actions.iter().map(|a| (*a).to_owned());
    vec![(verdict.to_owned(), actions.collect())]
}

#[tokio::test]
async fn each_decision_is_written_down_once_with_what_it_was_made_from() {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.write("c.yaml", &config_map("c", "one"));
    fleet.look(&world).await;
    let first = world.decisions.lock()[0].clone();
    assert_eq!(
        (&first["by"], &first["time"]),
        (&json!("Fleet default/repo"), &json!("1970-01-12T13:46:40Z"))
    );
    let inputs = first["inputs"].as_object().unwrap();
    let revision = fleet
        .follower
        .fleet
        .status
        .as_ref()
        .unwrap()
        .applied
        .clone()
        .unwrap();
    assert_eq!(inputs["revision"], revision.revision);
    assert_eq!(inputs["tree"], revision.tree.unwrap());
    for digest in ["plan", "policy", "objects"] {
        assert_eq!(inputs[digest].as_str().unwrap().len(), 64, "{digest}");
    }
    assert_eq!(
        told(&world),
        one(
            "Applied",
            &["create ConfigMap default/c", "create Cluster default/a"]
        )
    );
    fleet.look(&world).await;
    assert_eq!(told(&world), []);

    // Refused: once, however often it is looked at; and again when the files are others.
    fleet.write("c.yaml", "a: [");
    for _ in 0..2 {
        fleet.look(&world).await;
    }
    let refusal = world.decisions.lock()[0].clone();
    assert!(
        refusal["reason"].as_str().unwrap().starts_with("c.yaml:1:"),
        "{refusal}"
    );
    assert_eq!(told(&world), one("Refused", &[]));
    fleet.remove("a.yaml");
    fleet.write("c.yaml", &config_map("c", "two"));
    for _ in 0..2 {
        fleet.look(&world).await;
    }
    // The rest of the revision is carried out, the delete is not.
    assert_eq!(
        told(&world),
        one("Refused", &["change ConfigMap default/c"])
    );

    // A write without an answer may have been made.
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.write("c.yaml", &config_map("c", "three"));
    *world.away.lock() = Some("lost PATCH /api/v1/namespaces/default/configmaps/c");
    fleet.look(&world).await;
    *world.away.lock() = None;
    assert_eq!(
        told(&world),
        one("Failed", &["change ConfigMap default/c, without an answer"])
    );
}

#[tokio::test]
async fn consent_and_what_is_waited_for_are_written_down() {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.look(&world).await;
    let uid = world.field("Cluster", "a", "/metadata/uid").await;
    let consent = format!("{ANNOTATION_ALLOW_DELETE}: {}", uid.as_str().unwrap());
    let with = format!("{{name: a, annotations: {{{consent}}}}}");
    fleet.write(
        "a.yaml",
        &cluster("a", "v1.33.2").replace("{name: a}", &with),
    );
    fleet.look(&world).await;
    told(&world);
    fleet.remove("a.yaml");
    fleet.look(&world).await;
    let words = format!("delete Cluster default/a, with consent ({consent})");
    assert_eq!(told(&world), one("Applied", &[&words]));

    fleet.write("c.yaml", &config_map("c", "one"));
    fleet
        .change(|spec| {
            spec.depends_on = vec![FleetReference {
                namespace: None,
                name: "infra".into(),
            }];
        })
        .await;
    for _ in 0..2 {
        fleet.look(&world).await;
    }
    let held = world.decisions.lock()[0].clone();
    assert!(
        held["reason"]
            .as_str()
            .unwrap()
            .starts_with("waits for Fleet default/infra"),
        "{held}"
    );
    assert_eq!(told(&world), one("Held", &[]));
}
