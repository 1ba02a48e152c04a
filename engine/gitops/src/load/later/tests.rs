use fleetwright_api::fleet::Allow;
use fleetwright_core::plan::{BlockerKind, Live, Mistake, Policy, faults, plan};

use super::*;
use crate::{
    gather::desired_of,
    load::{
        Loaded,
        tests::{CLUSTER, POOL, run},
    },
};

const BASE: &str = "apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
base: true
spec:
  rollout:
    strategy:
      rollingUpdate:
        maxSurge: '50'
";

fn files() -> Vec<(&'static str, String)> {
    let built = |name: &str| {
        POOL.replace("name: web", &format!("name: {name}"))
            .replace("metadata:", "bases: [base.yaml]\nmetadata:")
    };
    vec![
        ("base.yaml", BASE.to_owned()),
        (
            "cluster.yaml",
            format!("---\n{}", CLUSTER.replace("replicas: 3", "replicas: 2")),
        ),
        (
            "pools.yaml",
            format!("{}---\n{}", built("web"), built("api")),
        ),
    ]
}

fn loaded() -> Loaded {
    let files = files();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
    let loaded = run(&files, Allow::default());
    assert_eq!(loaded.errors, []);
    loaded
}

/// What only the API's rules refuse is told at the value too.
#[test]
fn rules_point_at_the_value_that_breaks_them_and_name_who_uses_it() {
    let loaded = loaded();
    let sources: Vec<SourceFile> = files()
        .into_iter()
        .map(|(path, text)| SourceFile {
            path: path.into(),
            content: Ok(text.into_bytes()),
        })
        .collect();
    let found = loaded.objects.iter().flat_map(|object| {
        let faults = faults(&object.document).into_iter();
        faults.map(move |fault| (object, fault))
    });
    let mistakes = refused(found.collect(), &sources);
    let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 3, "{shown:#?}");
    let surge = "base.yaml:8:19: spec.rollout.strategy.rollingUpdate.maxSurge: Invalid value: ";
    for (at, (begin, end)) in [
        (
            surge,
            "(used by MachineDeployment default/api, pools.yaml:13)",
        ),
        (
            surge,
            "(used by MachineDeployment default/web, pools.yaml:1)",
        ),
        (
            "cluster.yaml:10:17: spec.controlPlane.machines.replicas: Invalid value: 2: ",
            "set 1, 3, 5, 7 or 9",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(
            shown[at].starts_with(begin) && shown[at].ends_with(end),
            "{shown:#?}"
        );
    }
}

#[test]
fn a_plan_says_of_what_it_refuses_where_it_was_written() {
    let live = Live::default();
    let plan = plan(
        &desired_of(&loaded()),
        None,
        &live,
        &Policy::default(),
        &Default::default(),
    );
    let web = plan.refused.iter().find(|r| r.key.name == "web").unwrap();
    assert!(
        web.reason.starts_with("pools.yaml:1: spec.rollout"),
        "{}",
        web.reason
    );
    assert!(web.reason.ends_with("(from base.yaml:8)"), "{}", web.reason);
}

#[test]
fn what_there_is_none_of_stands_where_it_is_asked_for() {
    let image = "base: true\nspec:\n  template:\n    spec:\n      providerConfig:\n        apiVersion: sim/v1\n        kind: M\n        account: sim-eu\n        size: 3\n";
    let base = format!("apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\n{image}");
    let config = "  template:\n    spec:\n      providerConfig: {apiVersion: sim/v1, kind: M, account: sim-eu}\n";
    let built = POOL
        .replace("metadata:", "bases: [base.yaml]\nmetadata:")
        .replace(config, "")
        .replace("name: web", "name: built");
    let pools = format!("{POOL}---\n{built}");
    let files = [
        ("base.yaml", base.as_str()),
        ("cluster.yaml", CLUSTER),
        ("pools.yaml", pools.as_str()),
    ];
    let loaded = run(&files, Allow::default());
    assert_eq!(loaded.errors, []);
    let sources: Vec<SourceFile> = files
        .iter()
        .map(|(path, text)| SourceFile {
            path: (*path).into(),
            content: Ok(text.as_bytes().to_vec()),
        })
        .collect();
    let pool = |name: &str| ("MachineDeployment", name.to_owned());
    let settings = "spec.template.spec.providerConfig";
    let machines = "spec.controlPlane.machines.template.spec.providerConfig";
    // (whose field, its path, where it is written)
    let rows = [
        (
            pool("web"),
            format!("{settings}.account"),
            Some("pools.yaml:10:62"),
        ),
        (
            pool("web"),
            format!("{settings}.size"),
            Some("pools.yaml:10:23"),
        ),
        (
            pool("built"),
            format!("{settings}.size"),
            Some("base.yaml:11:15"),
        ),
        (
            ("Cluster", "alpha".to_owned()),
            format!("{machines}.size"),
            Some("cluster.yaml:12:80"),
        ),
        (pool("elsewhere"), format!("{settings}.size"), None),
    ];
    let blocker = |(kind, name): &(&str, String), field: &str| {
        let object = Key {
            api_version: "fleetwright.dev/v1alpha1".into(),
            kind: (*kind).into(),
            namespace: "default".into(),
            name: name.clone(),
        };
        PlanBlocker {
            kind: BlockerKind::MissingImage,
            object: None,
            wave: None,
            reason: String::new(),
            mistake: Some(Mistake {
                object,
                field: field.to_owned(),
                place: None,
            }),
            until: None,
        }
    };
    let mut blockers: Vec<PlanBlocker> = rows.iter().map(|(k, f, _)| blocker(k, f)).collect();
    place(&mut blockers, &desired_of(&loaded), &sources);
    let told = blockers.iter().map(|b| {
        let place = b.mistake.as_ref().unwrap().place.as_ref();
        place.map(ToString::to_string)
    });
    let told: Vec<Option<String>> = told.collect();
    let wanted: Vec<Option<String>> = rows.iter().map(|r| r.2.map(str::to_owned)).collect();
    assert_eq!(told, wanted);
}
