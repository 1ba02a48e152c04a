use fleetwright_api::machine::TaintEffect;
use proptest::prelude::*;

use super::*;
use crate::testing;

fn documents(text: &SecretText) -> Vec<Value> {
    serde_saphyr::from_multiple(text.expose()).unwrap()
}

fn made(cluster: &ClusterValues, node: &NodeValues, role: &str) -> Vec<Value> {
    let (pki, token) = (testing::pki(), testing::token());
    let roles = testing::roles(&pki, "sha256:00", &token);
    let (_, role) = roles.into_iter().find(|(name, _)| *name == role).unwrap();
    documents(&configuration(OperatingSystem::Debian12, cluster, node, role).unwrap())
}

#[test]
fn each_role_gets_its_documents() {
    let kinds = |role| -> Vec<String> {
        made(&testing::cluster(), &testing::node(), role)
            .iter()
            .map(|document| document["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        kinds("init"),
        [
            "InitConfiguration",
            "ClusterConfiguration",
            "KubeletConfiguration"
        ]
    );
    assert_eq!(kinds("join-control-plane"), ["JoinConfiguration"]);
    assert_eq!(kinds("join-worker"), ["JoinConfiguration"]);
    let control_plane = made(&testing::cluster(), &testing::node(), "join-control-plane");
    assert_eq!(
        control_plane[0]["controlPlane"]["localAPIEndpoint"]["bindPort"],
        6443
    );
    let hashes = &control_plane[0]["discovery"]["bootstrapToken"]["caCertHashes"];
    assert_eq!(hashes[0], testing::pki().cluster.hash().unwrap());
    let worker = made(&testing::cluster(), &testing::node(), "join-worker");
    assert_eq!(worker[0].get("controlPlane"), None);
}

#[test]
fn values_come_out_where_kubeadm_reads_them() {
    let mut cluster = testing::cluster();
    cluster.endpoint.host = "fd00::1".to_owned();
    cluster.network.api_server_port = Some(8443);
    let pods = &mut cluster.network.pods.as_mut().unwrap().cidr_blocks;
    pods.push("fd01::/48".to_owned());
    let documents = made(&cluster, &testing::node(), "init");
    let (init, configuration) = (&documents[0], &documents[1]);
    assert_eq!(configuration["controlPlaneEndpoint"], "[fd00::1]:6443");
    assert_eq!(
        configuration["networking"]["podSubnet"],
        "10.244.0.0/16,fd01::/48"
    );
    assert_eq!(configuration["networking"]["serviceSubnet"], "10.96.0.0/12");
    assert_eq!(configuration["kubernetesVersion"], "v1.33.2");
    assert_eq!(configuration["apiServer"]["certSANs"], json!(["10.0.0.10"]));
    assert_eq!(init["localAPIEndpoint"]["bindPort"], 8443);
    assert_eq!(init["bootstrapTokens"][0]["ttl"], "15m0s");
    cluster.network = ClusterNetwork::default();
    cluster.certificate_sans.clear();
    let documents = made(&cluster, &testing::node(), "init");
    assert_eq!(documents[1]["networking"], json!({}));
    assert_eq!(documents[1].get("apiServer"), None);
}

#[test]
fn kubelets_of_control_planes_are_told_to_stay_local_while_that_is_no_default() {
    for (version, want) in [
        ("v1.31.0", Some(true)),
        ("v1.32.9", Some(true)),
        ("v1.33.0", None),
        ("v1.36.1", None),
    ] {
        let mut cluster = testing::cluster();
        cluster.version = version.parse().unwrap();
        let documents = made(&cluster, &testing::node(), "init");
        let gate = &documents[1]["featureGates"][LOCAL_KUBELET_GATE];
        assert_eq!(gate.as_bool(), want, "{version}");
    }
}

#[test]
fn versions_that_do_not_read_this_configuration_are_refused() {
    let (pki, token) = (testing::pki(), testing::token());
    for version in ["v1.30.9", "v0.99.0"] {
        let mut cluster = testing::cluster();
        cluster.version = version.parse().unwrap();
        let role = Role::Init {
            pki: &pki,
            token: &token,
        };
        let error =
            configuration(OperatingSystem::Debian12, &cluster, &testing::node(), role).unwrap_err();
        assert_eq!(error, KubeadmError::TooOld(cluster.version));
    }
}

#[test]
fn a_new_worker_takes_no_pods_and_a_control_plane_says_what_it_is() {
    let taints = |role, node: &NodeValues| {
        let document = made(&testing::cluster(), node, role).remove(0);
        document["nodeRegistration"]["taints"].clone()
    };
    let own = json!({"key": "dedicated", "value": "web", "effect": "NoExecute"});
    let control_plane =
        json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"});
    let uninitialized =
        json!({"key": "node.fleetwright.dev/uninitialized", "effect": "NoSchedule"});
    let mut node = testing::node();
    assert_eq!(taints("init", &node), json!([control_plane, own]));
    assert_eq!(
        taints("join-control-plane", &node),
        json!([control_plane, own])
    );
    assert_eq!(taints("join-worker", &node), json!([uninitialized, own]));
    // A list holds no taint twice: kubelet would not start.
    node.taints = vec![MachineTaint {
        key: "node-role.kubernetes.io/control-plane".to_owned(),
        value: None,
        effect: TaintEffect::NoSchedule,
        propagation: None,
    }];
    assert_eq!(taints("init", &node), json!([control_plane]));
}

#[test]
fn a_kubelet_gives_itself_only_labels_that_it_may() {
    for (key, given) in [
        ("pool", true),
        ("example.org/tier", true),
        ("notkubernetes.io/x", true),
        ("node.kubernetes.io/instance-type", true),
        ("sub.node.kubernetes.io/x", true),
        ("topology.kubernetes.io/zone", true),
        ("node-role.kubernetes.io/worker", false),
        ("node-restriction.kubernetes.io/team", false),
        ("kubernetes.io/team", false),
        ("k8s.io/team", false),
        ("xnode.kubernetes.io/team", false),
        ("topology.kubernetes.io/rack", false),
    ] {
        let labels = BTreeMap::from([(key.to_owned(), "v".to_owned())]);
        let want = if given {
            format!("{key}=v")
        } else {
            String::new()
        };
        assert_eq!(self_given(&labels), Ok(want));
    }
    for (key, value) in [
        ("a", "b,c=d"),
        ("a b", "c"),
        ("a/b/c", "d"),
        ("", "x"),
        ("a", "é"),
        ("a=b", "c"),
        ("a/", "b"),
    ] {
        let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(
            self_given(&labels),
            Err(KubeadmError::Label(format!("{key}={value}")))
        );
    }
}

#[test]
fn the_provider_id_is_one_argument() {
    let argument = |provider_id| {
        let node = NodeValues {
            provider_id,
            ..testing::node()
        };
        let document = made(&testing::cluster(), &node, "join-worker").remove(0);
        let arguments = document["nodeRegistration"]["kubeletExtraArgs"]
            .as_array()
            .unwrap()
            .clone();
        arguments
            .into_iter()
            .find(|argument| argument["name"] == "provider-id")
            .map(|argument| argument["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(argument(ProviderId::ByController), None);
    assert_eq!(
        argument(ProviderId::Known("sim:///a".to_owned())).as_deref(),
        Some("sim:///a")
    );
    assert_eq!(
        argument(ProviderId::Expression("$(id)".to_owned())).as_deref(),
        Some(PROVIDER_ID_PLACEHOLDER)
    );
}

#[test]
fn flatcar_has_volume_plugins_where_it_can_be_written() {
    let (pki, token) = (testing::pki(), testing::token());
    let role = Role::Init {
        pki: &pki,
        token: &token,
    };
    for (system, want) in [
        (OperatingSystem::Flatcar, 3),
        (OperatingSystem::Ubuntu2404, 0),
    ] {
        let made = configuration(system, &testing::cluster(), &testing::node(), role).unwrap();
        let found = made.expose().matches("volume-plugin-dir").count()
            + made.expose().matches("flex-").count();
        assert_eq!(found, want, "{}", made.expose());
    }
}

#[test]
fn it_does_not_print() {
    let (pki, token) = (testing::pki(), testing::token());
    let role = Role::Init {
        pki: &pki,
        token: &token,
    };
    let made = configuration(
        OperatingSystem::Debian12,
        &testing::cluster(),
        &testing::node(),
        role,
    )
    .unwrap();
    assert!(made.expose().contains("0123456789abcdef"));
    assert!(!format!("{made:?} {role:?}").contains("0123456789abcdef"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever texts say, they stay the values that they are.
    #[test]
    fn no_text_breaks_out_of_yaml(
        name in any::<String>(),
        taint in "[ -~\n\t'\"#:{}-]{0,30}",
        value in any::<String>(),
        san in "(y|on|1_000|0x1F|12:30:45|1e3|~|null|2026-01-01|- a|---|[ -~]{0,12})",
    ) {
        let mut cluster = testing::cluster();
        cluster.name = value.clone();
        cluster.certificate_sans = vec![san.clone(), name.clone()];
        let mut node = testing::node();
        node.name = Some(name.clone());
        node.provider_id = ProviderId::Known(value.clone());
        node.taints[0].key = taint.clone();
        node.taints[0].value = Some(value.clone());
        let documents = made(&cluster, &node, "init");
        prop_assert_eq!(documents.len(), 3);
        let registration = &documents[0]["nodeRegistration"];
        prop_assert_eq!(&registration["name"], &json!(name));
        prop_assert_eq!(&registration["taints"][1], &json!({"key": taint, "value": value, "effect": "NoExecute"}));
        prop_assert_eq!(&documents[1]["clusterName"], &json!(value));
        prop_assert_eq!(&documents[1]["apiServer"]["certSANs"], &json!([san, name]));
    }
}
