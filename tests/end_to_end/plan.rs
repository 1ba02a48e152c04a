//! `validate`, `plan` and `apply`, and that what happens is what was planned.

use std::{collections::BTreeMap, path::Path, process::Output};

use fleetwright_api::{Fleet, MachineDeployment};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::kit::{Engine, fleet, fleetwright, send};

async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = fleetwright(args).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn repository(dir: &Path, name: &str, content: &str) -> String {
    let repo = dir.join(name);
    std::fs::create_dir_all(&repo).unwrap();
    std::fs::write(repo.join("a.yaml"), content).unwrap();
    repo.to_str().unwrap().to_owned()
}

/// Machines in the order in which they came and went, by the set or control plane that they belong to.
fn order(moves: impl Iterator<Item = (String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (verb, name) in moves {
        let (owner, _) = name.rsplit_once('-').unwrap();
        out.entry(format!("{verb} {owner}")).or_default().push(name);
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_replaced_as_the_plan_said() {
    let dir = tempfile::tempdir().unwrap();
    let followed = repository(dir.path(), "repo", &fleet("v1.33.2", Some(3)));
    let data = dir.path().join("data");
    let engine = Engine::up(&followed, &data, &[]).await;
    engine.until_at("v1.33.2").await;
    let before = engine.journal().len();

    let next = repository(dir.path(), "next", &fleet("v1.34.1", Some(4)));
    let [by, place] = engine.connection();
    let (code, out, err) = run(&["plan", &next, by, place, "-o", "json"]).await;
    assert_eq!(code, Some(0), "{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    let head = [&plan["apiVersion"], &plan["kind"], &plan["fleet"]];
    assert_eq!(
        head,
        ["fleetwright.dev/v1alpha1", "Plan", "default/default"]
    );
    let digest = plan["digest"].as_str().unwrap();
    let made = plan["summary"]["machinesMade"].as_u64().unwrap();
    assert!(digest.len() == 64 && made > 0, "{out}");
    let (code, comment, err) = run(&["plan", &next, by, place, "-o", "markdown"]).await;
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "### Fleetwright: `default/default`",
        &format!("; plan `{}`", &digest[..12]),
        "\n    image: ubuntu-24.04\n",
    ] {
        assert!(comment.contains(part), "{part} is missing in\n{comment}");
    }
    let steps = plan["rollouts"].as_array().unwrap().iter();
    let steps = steps.flat_map(|r| r["steps"].as_array().unwrap());
    let planned = order(steps.flat_map(|step| {
        ["create", "delete"].into_iter().flat_map(move |verb| {
            let names = step[verb].as_array().into_iter().flatten();
            names.map(move |name| (verb.to_owned(), name.as_str().unwrap().to_owned()))
        })
    }));
    // The fourth machine comes from the set that there is: an upgrade does not hold it up.
    assert_eq!(planned.len(), 5, "{out}");

    let (code, text, _) = run(&["plan", &next, by, place]).await;
    assert_eq!(code, Some(0));
    for part in [
        "-   version: v1.33.2",
        "+   version: v1.34.1",
        "spec.version: v1.33.2 -> v1.34.1",
        "\n    image: ubuntu-24.04\n",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }

    repository(dir.path(), "repo", &fleet("v1.34.1", Some(4)));
    engine.until_at("v1.34.1").await;
    let journal = engine.journal();
    let happened = order(journal[before..].iter().map(|entry| {
        let text = |field: &str| entry[field].as_str().unwrap().to_owned();
        (text("verb"), text("machine"))
    }));
    assert_eq!(happened, planned);

    let (code, out, _) = run(&["plan", by, place]).await;
    assert_eq!((code, out.as_str()), (Some(0), "No changes.\n"));

    // What somebody scaled stays, unless the commit itself says another number.
    let pools = Api::<MachineDeployment>::namespaced(engine.client.clone(), "default");
    let by_hand = PatchParams {
        field_manager: Some("kubectl".into()),
        ..PatchParams::default()
    };
    let five = Patch::Merge(json!({"spec": {"replicas": 5}}));
    pools.patch("a-web", &by_hand, &five).await.unwrap();
    let (_, out, _) = run(&["plan", by, place]).await;
    let stays = "= MachineDeployment default/a-web: .spec.replicas is held by kubectl and stays\nNo changes.\n";
    assert_eq!(out, stays);
    let more = repository(dir.path(), "more", &fleet("v1.34.1", Some(6)));
    let (_, out, _) = run(&["plan", &more, by, place]).await;
    assert!(out.contains("spec.replicas is taken from kubectl"), "{out}");
    assert!(out.contains("+   replicas: 6"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_missing_is_named_beforehand() {
    let dir = tempfile::tempdir().unwrap();
    let followed = repository(dir.path(), "repo", &fleet("v1.33.2", Some(1)));
    let data = dir.path().join("data");
    let engine = Engine::up_embedded(&followed, &data, &[]).await;
    engine.until_at("v1.33.2").await;
    let url = format!("{}/versions", engine.process.told("simcloud"));
    let (status, body) = send("PUT", &url, &[], r#"{"versions": ["v1.33.2", "v1.34.1"]}"#).await;
    assert!(status.contains(" 20"), "{status} {body}");
    let [by, place] = engine.connection();
    for (version, blocked) in [("v1.34.1", false), ("v1.34.2", true)] {
        let next = repository(dir.path(), "next", &fleet(version, Some(1)));
        let (code, text, err) = run(&["plan", &next, by, place]).await;
        assert_eq!(code, Some(i32::from(blocked)), "{err}");
        // No image is written: what would hold it is.
        let place = "a.yaml:11:27: control plane of default/a: spec.controlPlane.machines.template.spec.providerConfig.image: stays at v1.33.2";
        assert_eq!(err.contains(place), blocked, "{err}");
        let why = "stays at v1.33.2 on the way to v1.34.2: v1.34.2 for the control plane: the simulated cloud has no image";
        assert_eq!(text.contains(why), blocked, "{text}");
        assert_eq!(text.contains("a-cp-1"), !blocked, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_fleet_follows_is_not_applied_over_unless_it_is_suspended() {
    let dir = tempfile::tempdir().unwrap();
    let followed = repository(dir.path(), "repo", &fleet("v1.33.2", Some(1)));
    let data = dir.path().join("data");
    let engine = Engine::up(&followed, &data, &[]).await;
    engine.until_at("v1.33.2").await;
    let next = repository(dir.path(), "next", &fleet("v1.33.2", Some(2)));
    let [by, place] = engine.connection();

    let (code, _, err) = run(&["apply", &next, "--yes", by, place]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("would undo this"), "{err}");

    let fleets = Api::<Fleet>::namespaced(engine.client.clone(), "default");
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    fleets
        .patch("default", &PatchParams::default(), &suspend)
        .await
        .unwrap();
    let (code, _, err) = run(&["apply", &next, by, place]).await;
    assert_eq!(code, Some(2), "nobody to ask: {err}");
    assert_eq!(engine.pool().await.spec.replicas, Some(1));
    let (code, out, err) = run(&["apply", &next, "--yes", by, place]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.ends_with("Applied: 1 written, 0 deleted.\n"), "{out}");
    assert_eq!(engine.pool().await.spec.replicas, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_with_their_places_and_end_with_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let good = repository(dir.path(), "good", &fleet("v1.33.2", None));
    let (code, out, err) = run(&["validate", &good]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("2 objects in 1 files, no mistakes"), "{out}");

    let broken = fleet("v1.33.2", None).replace("clusterName", "clusterNam");
    let bad = repository(
        dir.path(),
        "bad",
        &format!("{broken}---\nkind: Secret\napiVersion: v1\n"),
    );
    let (code, _, err) = run(&["validate", &bad]).await;
    assert_eq!(code, Some(1));
    for place in [
        "/a.yaml:23:3: unknown field",
        "/a.yaml:29:7: Secret is refused",
    ] {
        assert!(err.contains(place), "{err}");
    }

    let even = fleet("v1.33.2", None).replace("machines:\n", "machines:\n      replicas: 2\n");
    let refused = repository(dir.path(), "even", &even);
    let (code, out, _) = run(&["validate", &refused, "-o", "json"]).await;
    assert_eq!(code, Some(1));
    let out: Value = serde_json::from_str(&out).unwrap();
    let message = out["mistakes"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("an even number keeps no better quorum"),
        "{out}"
    );
    let line = even.lines().position(|line| line.contains("replicas: 2"));
    assert_eq!(out["mistakes"][0]["line"], line.unwrap() + 1);

    let (code, _, err) = run(&["plan", &good, "--data", dir.path().to_str().unwrap()]).await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("start the engine"), "{err}");
}

/// What would fail at AWS after the merge is told before it.
#[cfg(feature = "aws")]
#[tokio::test]
async fn what_a_cluster_on_aws_lacks_is_told_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let example = std::fs::read_to_string("../docs/providers/aws-example/cluster.yaml").unwrap();
    let without = |parts: &[&str]| -> String {
        let stays = |line: &&str| !parts.iter().any(|part| line.contains(part));
        let lines = example.lines().filter(stays);
        lines.map(|line| format!("{line}\n")).collect()
    };
    let manifest = ["bootstrapManifests:", "path: manifests/"];
    let good = repository(dir.path(), "good", &without(&manifest));
    let (code, _, err) = run(&["validate", &good]).await;
    assert_eq!(code, Some(0), "{err}");

    let profile = [&manifest[..], &["Profile: fleetwright-workers"]].concat();
    let balancer = [&manifest[..], &["loadBalancer:", "subnets: [subnet-"]].concat();
    let neither = without(&balancer);
    let own = "  providerConfig:\n    apiVersion: aws.fleetwright.dev/v1alpha1\n    kind: AWSClusterConfig\n    account: aws-eu\n";
    // What is wrong with a map as a whole is told where it begins: so many lines above this one.
    for (text, part, above, column, said) in [
        (
            without(&profile),
            "instanceType: m7i.xlarge",
            3,
            9,
            "providerConfig.iamInstanceProfile: Required value: a node reads its secrets by the rights of its instance profile",
        ),
        (
            neither.clone(),
            "kind: AWSClusterConfig",
            1,
            5,
            "spec.providerConfig sets none of loadBalancer or controlPlaneEndpoint: the API of a control plane of AWSMachineConfig",
        ),
        (
            neither.replace(own, ""),
            "version: v1.34.1",
            0,
            3,
            "spec.providerConfig is missing: a control plane of AWSMachineConfig needs AWSClusterConfig with loadBalancer",
        ),
    ] {
        let bad = repository(dir.path(), "bad", &text);
        let (code, _, err) = run(&["validate", &bad]).await;
        let line = text.lines().position(|line| line.contains(part)).unwrap();
        let said = format!("/a.yaml:{}:{column}: {said}", line + 1 - above);
        assert_eq!(code, Some(1), "{said}: {err}");
        assert!(
            err.contains("1 mistake ") && err.contains(&said),
            "{said}: {err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_gives_accounts_and_limits_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let content = fleet("v1.33.2", Some(1)).replace("sim-eu", "lab");
    let followed = repository(dir.path(), "repo", &content);
    let admin = dir.path().join("admin.yaml");
    let text = "
apiVersion: fleetwright.dev/v1alpha1
kind: ProviderAccount
metadata: {name: lab}
spec: {provider: sim, region: eu}
---
apiVersion: fleetwright.dev/v1alpha1
kind: Fleet
metadata: {name: default, namespace: default}
spec: {allow: {accounts: [lab]}}
";
    std::fs::write(&admin, text).unwrap();
    let data = dir.path().join("data");
    let engine = Engine::up(&followed, &data, &["--admin", admin.to_str().unwrap()]).await;
    engine.until_at("v1.33.2").await;
    // The limit holds: another account is refused, and nothing changes.
    repository(dir.path(), "next", &fleet("v1.33.2", Some(2)));
    let next = dir.path().join("next");
    let [by, place] = engine.connection();
    let (code, _, err) = run(&["plan", next.to_str().unwrap(), by, place]).await;
    assert_eq!(code, Some(1));
    assert!(
        err.contains("the Fleet does not allow ProviderAccount sim-eu"),
        "{err}"
    );
}
