//! A control plane and a group of its nodes go up by minors, one update at a time.

use std::time::Duration;

use fleetwright_api::secret::SecretText;
use fleetwright_provider_aws::{Aws, config::API_VERSION};
use fleetwright_providers::{
    Account, Credentials, Provider,
    managed::{
        ManagedControlPlaneOrder, ManagedControlPlaneState, ManagedOwner, ManagedPhase, PoolOrder,
        PoolState,
    },
};
use fleetwright_tests::emulators::fakecloud;
use serde_json::{Value, json};

/// Looks at something that moves before a test gives up.
const LOOKS: usize = 600;
const PAUSE: Duration = Duration::from_millis(100);

fn account(url: &str) -> Account {
    // fakecloud lets these in whatever it is told of others.
    let keys = ["accessKeyID", "secretAccessKey"];
    let keys = keys.map(|name| (name.to_owned(), SecretText::new("test")));
    Account {
        name: "aws".into(),
        provider: "aws".into(),
        region: "us-east-1".into(),
        endpoint: Some(url.into()),
        credentials: Some(Credentials::new("1", keys)),
        ..Account::default()
    }
}

fn owner(pool: &str) -> ManagedOwner {
    ManagedOwner {
        installation: "test".into(),
        cluster_key: "0123456789abcdef".into(),
        cluster: "default/eu".into(),
        pool: pool.into(),
    }
}

fn config(kind: &str, own: Value) -> Value {
    let mut config = json!({
        "apiVersion": API_VERSION, "kind": kind, "account": "aws",
        "subnets": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    });
    for (name, value) in own.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

struct Eks {
    aws: Aws,
    account: Account,
}

impl Eks {
    /// Orders until the control plane is active at this version; gives the phases on the way.
    async fn control_plane(&self, version: &str) -> Vec<ManagedPhase> {
        let order = ManagedControlPlaneOrder {
            owner: owner(""),
            version: version.into(),
            config: config(
                "EKSControlPlaneConfig",
                json!({"roleARN": "arn:aws:iam::123456789012:role/eks"}),
            ),
            network: None,
        };
        let half = self.aws.control_planes().unwrap();
        let mut phases = Vec::new();
        for _ in 0..LOOKS {
            let state: ManagedControlPlaneState = half.ensure(&self.account, &order).await.unwrap();
            let there = state.version.as_deref() == Some(version);
            if state.phase == ManagedPhase::Active && there {
                return phases;
            }
            if phases.last() != Some(&state.phase) {
                phases.push(state.phase);
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the control plane does not come to {version}: {phases:?}");
    }

    /// Orders until the group is active at this version; gives the phases on the way.
    async fn group(&self, version: &str) -> Vec<ManagedPhase> {
        let order = PoolOrder {
            owner: owner("web"),
            version: version.into(),
            config: config(
                "EKSNodeGroupConfig",
                json!({"nodeRoleARN": "arn:aws:iam::123456789012:role/nodes"}),
            ),
            replicas: Some(2),
            ..PoolOrder::default()
        };
        let half = self.aws.pools().unwrap();
        let mut phases = Vec::new();
        for _ in 0..LOOKS {
            let state: PoolState = half.ensure(&self.account, &order).await.unwrap();
            let there = state.version.as_deref() == Some(version);
            if state.phase == ManagedPhase::Active && there {
                return phases;
            }
            if phases.last() != Some(&state.phase) {
                phases.push(state.phase);
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the group does not come to {version}: {phases:?}");
    }
}

fn updates_to(phases: &[ManagedPhase], version: &str) -> bool {
    let to = ManagedPhase::Updating(Some(version.into()));
    phases.contains(&to)
}

#[tokio::test]
async fn versions_go_up_one_minor_at_a_time() {
    let Some(cloud) = fakecloud().await else {
        return;
    };
    let eks = Eks {
        aws: Aws::new("test"),
        account: account(cloud.url()),
    };
    let made = eks.control_plane("v1.31.0").await;
    assert!(made.contains(&ManagedPhase::Creating), "{made:?}");
    eks.group("v1.31.0").await;
    for version in ["v1.32.0", "v1.33.0"] {
        let phases = eks.control_plane(version).await;
        assert!(updates_to(&phases, version), "{version}: {phases:?}");
    }
    let phases = eks.group("v1.33.0").await;
    assert!(updates_to(&phases, "v1.33.0"), "{phases:?}");
    // Nothing goes back, and what is as ordered rests.
    assert_eq!(eks.control_plane("v1.33.0").await, []);
    assert_eq!(eks.group("v1.33.0").await, []);
}
