//! docs/providers/aws.md and aws-eks.md name everything that can be said, and the rights that it takes.

use std::collections::BTreeSet;

use fleetwright_provider_aws::schemas;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../../../docs/providers/aws.md");
const EKS_PAGE: &str = include_str!("../../../../docs/providers/aws-eks.md");
/// Most characters of a managed policy, without white space.
const LONGEST: usize = 6144;

/// The policies of both pages: that of EC2 and that of EKS.
pub(crate) fn policies() -> [Value; 2] {
    [PAGE, EKS_PAGE].map(|page| {
        let policy = page.split("```json").nth(1).unwrap();
        let policy = policy.split("```").next().unwrap();
        serde_json::from_str(policy).unwrap()
    })
}

/// All field names of a schema, at any depth.
fn fields(schema: &Value, names: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        assert!(field["description"].is_string(), "{name} is not described");
        names.insert(name.clone());
        fields(field, names);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], names);
    }
}

#[test]
fn the_pages_name_every_field() {
    let mut names = BTreeSet::new();
    for schema in schemas() {
        names.insert(schema.kind);
        fields(&schema.schema, &mut names);
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|n| {
            [PAGE, EKS_PAGE]
                .iter()
                .all(|page| !page.contains(&format!("`{n}`")))
        })
        .collect();
    assert!(names.len() > 40 && missing.is_empty(), "{missing:?}");
}

/// Operations that these sources call.
fn called(sources: &[&str]) -> BTreeSet<String> {
    let mut called = BTreeSet::new();
    for source in sources {
        for verb in ["reads(\"", "writes(\""] {
            let rest = source.split(verb).skip(1);
            called.extend(rest.map(|r| r.split('"').next().unwrap().to_owned()));
        }
    }
    called
}

/// Actions of a statement, with their services.
fn actions(statement: &Value) -> impl Iterator<Item = (&str, &str)> {
    let actions = statement["Action"].as_array().unwrap().iter();
    actions.map(|a| a.as_str().unwrap().split_once(':').unwrap())
}

/// What the code calls is what the policies allow, and no more.
#[test]
fn the_policies_allow_what_is_called() {
    let ec2 = [
        include_str!("../../src/bootstrap.rs"),
        include_str!("../../src/endpoint.rs"),
        include_str!("../../src/images.rs"),
        include_str!("../../src/instance.rs"),
        include_str!("../../src/provider.rs"),
        include_str!("../../src/spot.rs"),
        include_str!("../../src/update.rs"),
    ];
    let eks = [
        include_str!("../../src/eks.rs"),
        include_str!("../../src/eks/control_plane.rs"),
        include_str!("../../src/eks/group.rs"),
        include_str!("../../src/eks/provider.rs"),
        include_str!("../../src/eks/token.rs"),
    ];
    let [of_ec2, of_eks] = policies();
    for (policy, sources, services, least) in [
        (
            of_ec2,
            &ec2[..],
            &["ec2", "elasticloadbalancing", "ssm"][..],
            30,
        ),
        (of_eks, &eks[..], &["eks"], 14),
    ] {
        let statements = policy["Statement"].as_array().unwrap().iter();
        let allowed: BTreeSet<String> = statements
            .flat_map(actions)
            // What calls need beside the right to them.
            .filter(|(service, name)| services.contains(service) && *name != "AddTagsToResource")
            .map(|(_, name)| name.to_owned())
            .collect();
        let called = called(sources);
        assert!(called.len() > least, "{called:?}");
        assert_eq!(called, allowed);
        let length = policy.to_string().len();
        assert!(length <= LONGEST, "{length} characters");
    }
    assert!(PAGE.contains("`sts:AssumeRole`"));
}

/// Whoever has the keys can neither end nor change what is not the installation's, nor make it so by its tags.
#[test]
fn what_is_there_is_the_installations_or_out_of_reach() {
    let ours = json!({"StringEquals": {"aws:ResourceTag/fleetwright.dev/installation": "default"}});
    let mut bound = BTreeSet::new();
    for policy in policies() {
        for statement in policy["Statement"].as_array().unwrap() {
            let conditions = statement["Condition"].to_string();
            assert!(!conditions.contains('*'), "{conditions}");
            for (service, name) in actions(statement) {
                let makes = ["Create", "Run"].iter().any(|verb| name.starts_with(verb))
                    && name != "CreateTags";
                let reads = ["Describe", "Get", "List"]
                    .iter()
                    .any(|verb| name.starts_with(verb));
                if makes || reads || statement["Condition"] == ours {
                    bound.insert(name.to_owned());
                    continue;
                }
                let condition = &statement["Condition"]["StringEquals"];
                let resource = statement["Resource"].to_string();
                match (service, name) {
                    ("ec2", "CreateTags") => {
                        assert_eq!(condition["ec2:CreateAction"], "RunInstances");
                    }
                    ("elasticloadbalancing", "AddTags") => {
                        let makers =
                            json!(["CreateListener", "CreateLoadBalancer", "CreateTargetGroup"]);
                        assert_eq!(condition["elasticloadbalancing:CreateAction"], makers);
                    }
                    // EKS has no such condition, which its page says.
                    ("eks", "TagResource") => {
                        assert_eq!(
                            condition["aws:RequestTag/fleetwright.dev/installation"],
                            "default"
                        );
                        assert!(
                            EKS_PAGE.contains("EKS knows no condition that tells tags of a create")
                        );
                    }
                    // Groups that an instance is given carry no tags of ours.
                    ("ec2", "ModifyInstanceAttribute") => {
                        assert!(resource.contains("security-group/"), "{resource}");
                    }
                    ("ssm", _) => assert!(
                        resource.contains("parameter/fleetwright/default/"),
                        "{resource}"
                    ),
                    ("iam", "PassRole") => assert!(resource.contains(":role/"), "{resource}"),
                    _ => panic!("{service}:{name} is allowed for what is not the installation's"),
                }
            }
        }
    }
    for name in [
        "TerminateInstances",
        "CreateTags",
        "AddTags",
        "DeleteLoadBalancer",
        "DeleteCluster",
        "TagResource",
    ] {
        assert!(bound.contains(name), "{name}");
    }
}
