mod answers;
mod emulated;

use fleetwright_providers::{config_errors, managed::PoolOrder};
use serde_json::{Value, json};

use super::*;

fn owner(cluster: &str, pool: &str) -> ManagedOwner {
    ManagedOwner {
        installation: "main".into(),
        cluster_key: "0123456789abcdef".into(),
        cluster: cluster.into(),
        pool: pool.into(),
    }
}

#[test]
fn names_are_aws_own_and_the_same_each_time() {
    let name = |cluster: &str| cluster_name(&owner(cluster, ""));
    assert_eq!(name("default/eu"), "default-eu-01234567");
    assert_eq!(name("a.b/c.d"), "a-b-c-d-01234567");
    let long = name(&format!("default/{}", "x".repeat(80)));
    assert!(long.len() <= LONGEST_NAME, "{long}");
    let group = |pool: &str| group_name(&owner("default/eu", pool));
    assert!(group("web").starts_with("web-"));
    assert_ne!(group("a.b"), group("a-b"));
    let long = group(&"y".repeat(63));
    assert!(long.len() <= LONGEST_NAME, "{long}");
}

#[test]
fn versions_are_minors_with_the_patch_of_the_order() {
    assert_eq!(minor("v1.33.2").unwrap(), "1.33");
    assert!(minor("latest").is_err());
    assert!(is_above("1.10", "1.9") && !is_above("1.33", "1.33") && !is_above("x", "1.33"));
    for (running, ordered, want) in [
        (Some("1.33"), Some("v1.33.2"), Some("v1.33.2")),
        (Some("1.32"), Some("v1.33.2"), Some("v1.32.0")),
        (Some("1.32"), None, Some("v1.32.0")),
        (None, Some("v1.33.2"), None),
    ] {
        assert_eq!(shown(running, ordered).as_deref(), want);
    }
}

#[test]
fn only_what_carries_the_owners_tags_is_the_owners() {
    let plane = owner("default/eu", "");
    let group = owner("default/eu", "web");
    let ok = |there: &Tags, of: &ManagedOwner| check_owner("it", there, of).is_ok();
    assert!(ok(&owner_tags(&plane), &plane));
    assert!(ok(&owner_tags(&group), &group));
    assert!(!ok(&owner_tags(&group), &plane));
    assert!(!ok(&owner_tags(&plane), &group));
    assert!(!ok(&Tags::new(), &plane));
    let other = ManagedOwner {
        installation: "other".into(),
        ..plane.clone()
    };
    assert!(!ok(&owner_tags(&other), &plane));
}

#[test]
fn a_version_that_failed_is_left_alone_for_an_hour() {
    let failed = Updates {
        to: None,
        failed: vec![
            ("1.33".into(), 1_000, "first".into()),
            ("1.33".into(), 2_000, "second".into()),
            ("1.34".into(), 9_000, "other".into()),
        ],
    };
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    assert_eq!(failed.failure("1.33", at(2_001)), Some("second"));
    assert_eq!(failed.failure("1.33", at(5_599)), Some("second"));
    assert_eq!(failed.failure("1.33", at(5_600)), None);
    assert_eq!(failed.failure("1.32", at(2_001)), None);
}

fn errors(config: Value) -> Vec<String> {
    let found = config_errors(&schema::schemas(), &config);
    found
        .into_iter()
        .map(|e| format!("{}: {}", e.field, e.message))
        .collect()
}

fn plane(more: Value) -> Value {
    let mut config = json!({
        "apiVersion": crate::schema::API_VERSION, "kind": schema::CONTROL_PLANE_CONFIG, "account": "a",
        "roleARN": "arn:aws:iam::123456789012:role/eks", "subnets": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn settings_are_checked_and_every_field_says_what_its_change_does() {
    assert!(errors(plane(json!({}))).is_empty());
    for (more, field) in [
        (json!({"roleARN": "eks"}), "roleARN"),
        (json!({"subnets": ["subnet-0123456789abcdef0"]}), "subnets"),
        (json!({"logging": ["everything"]}), "logging"),
        (
            json!({"endpointAccess": {"publicCIDRs": ["all"]}}),
            "endpointAccess.publicCIDRs",
        ),
        (
            json!({"authenticationMode": "CONFIG_MAP"}),
            "authenticationMode",
        ),
        (json!({"rolearn": "x"}), "rolearn"),
    ] {
        let found = errors(plane(more.clone()));
        assert!(
            found.iter().any(|e| e.starts_with(field)),
            "{more}: {found:?}"
        );
    }
    let read = config::control_plane(&plane(json!({}))).unwrap();
    assert!(read.endpoint_access.public && read.endpoint_access.private);
    assert_eq!(read.authentication_mode, "API_AND_CONFIG_MAP");
    for schema in schema::schemas() {
        let fields = schema.schema["properties"].as_object().unwrap();
        let in_place: Vec<&str> = fields
            .iter()
            .filter(|(_, field)| field["x-fleetwright-change"] == "in-place")
            .map(|(name, _)| name.as_str())
            .collect();
        let want: &[&str] = match schema.kind.as_str() {
            schema::CONTROL_PLANE_CONFIG => &[
                "authenticationMode",
                "endpointAccess",
                "logging",
                "securityGroups",
                "subnets",
                "tags",
            ],
            _ => &["scaling", "tags", "update"],
        };
        let mut in_place = in_place;
        in_place.sort_unstable();
        assert_eq!(in_place, want, "{}", schema.kind);
    }
}

#[test]
fn a_token_names_one_cluster_and_ends() {
    let credentials = aws_credential_types::Credentials::new(
        "AKID",
        "hush",
        Some("session".into()),
        None,
        "test",
    );
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let access = token::token(&credentials, "eu-west-1", "default-eu", now).unwrap();
    assert_eq!(access.expires.as_second(), 1_800_000_840);
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let url = access.token.expose().strip_prefix("k8s-aws-v1.").unwrap();
    let url = String::from_utf8(URL_SAFE_NO_PAD.decode(url).unwrap()).unwrap();
    for part in [
        "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
        "X-Amz-Expires=60",
        "X-Amz-SignedHeaders=host%3Bx-k8s-aws-id",
        "X-Amz-Security-Token=session",
        "X-Amz-Signature=",
    ] {
        assert!(url.contains(part), "{part}: {url}");
    }
    assert!(!url.contains("hush"));
    let other = token::token(&credentials, "eu-west-1", "default-us", now).unwrap();
    assert_ne!(other.token, access.token);
    // That of a session ends with it.
    for (left, lives) in [(300, 300), (3600, 840)] {
        let mut session = credentials.clone();
        let end = std::time::Duration::from_secs(1_800_000_000 + left);
        *session.expiry_mut() = Some(std::time::UNIX_EPOCH + end);
        let access = token::token(&session, "eu-west-1", "default-eu", now).unwrap();
        assert_eq!(access.expires.as_second(), 1_800_000_000 + lives);
    }
}

#[test]
fn a_group_is_as_large_as_pool_autoscaler_and_settings_say() {
    let scaling = |own: Option<(i32, i32)>, replicas, bounds, there| {
        let mut settings = json!({
            "apiVersion": crate::schema::API_VERSION, "kind": schema::NODE_GROUP_CONFIG, "account": "a",
            "nodeRoleARN": "arn:aws:iam::123456789012:role/nodes", "subnets": ["subnet-0123456789abcdef0"],
        });
        if let Some((min, max)) = own {
            settings["scaling"] = json!({"minSize": min, "maxSize": max});
        }
        let order = PoolOrder {
            replicas,
            bounds,
            ..PoolOrder::default()
        };
        group::scaling(&config::node_group(&settings).unwrap(), &order, there)
    };
    for (own, replicas, bounds, there, size) in [
        // A number is ordered.
        (None, Some(3), None, None, (0, 3, 3)),
        (None, Some(0), None, None, (0, 1, 0)),
        (Some((1, 9)), Some(3), None, Some((0, 3, 3)), (1, 9, 3)),
        // An autoscaler decides: within its own bounds, or those of the settings.
        (None, None, Some((2, 8)), None, (2, 8, 2)),
        (None, None, Some((2, 8)), Some((0, 3, 3)), (2, 8, 3)),
        (None, None, Some((2, 8)), Some((2, 8, 7)), (2, 8, 7)),
        (None, None, Some((2, 8)), Some((2, 20, 15)), (2, 8, 8)),
        (Some((1, 9)), None, Some((2, 8)), None, (1, 9, 1)),
        (None, None, Some((0, 0)), None, (0, 1, 0)),
        // What somebody else set stays, with the bounds that it was set in.
        (None, None, None, Some((0, 5, 4)), (0, 5, 4)),
        (None, None, None, None, (0, 1, 0)),
    ] {
        let found = scaling(own, replicas, bounds, there);
        assert_eq!(found.unwrap(), size, "{own:?} {replicas:?} {bounds:?}");
    }
    assert!(scaling(Some((1, 9)), Some(12), None, None).is_err());
}
