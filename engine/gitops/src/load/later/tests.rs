use fleetwright_api::fleet::Allow;
use fleetwright_core::plan::{Live, Policy, faults, plan};

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
