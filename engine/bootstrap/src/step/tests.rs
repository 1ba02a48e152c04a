use proptest::prelude::*;

use super::*;

const COREFILE: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

fn configmap(key: &str, text: &str) -> ConfigMap {
    let object = json!({"metadata": {"resourceVersion": "7"}, "data": {key: text}});
    serde_json::from_value(object).unwrap()
}

fn kubeadm_config(text: &str) -> ConfigMap {
    configmap("ClusterConfiguration", text)
}

fn workload(container: &str, image: &str) -> Value {
    json!({"metadata": {"resourceVersion": "8"}, "spec": {
        "selector": {},
        "template": {"spec": {"containers": [{"name": container, "image": image}]}},
    }})
}

fn live(version: &str, proxy: &str, coredns: &str) -> Live {
    Live {
        kubeadm_config: kubeadm_config(&format!(
            "kind: ClusterConfiguration\nkubernetesVersion: {version}\n"
        )),
        kubelet_config: Some(configmap("kubelet", "cgroupDriver: systemd\n")),
        kube_proxy: Some(serde_json::from_value(workload("kube-proxy", proxy)).unwrap()),
        coredns: Some(serde_json::from_value(workload("coredns", coredns)).unwrap()),
        coredns_config: Some(configmap("Corefile", COREFILE)),
    }
}

fn v(text: &str) -> Version {
    text.parse().unwrap()
}

/// What a server makes of the patches.
fn applied(mut live: Live, changes: &Changes) -> Live {
    for Change { object, patch, .. } in &changes.changes {
        let image = &patch["spec"]["template"]["spec"]["containers"][0]["image"];
        let set = |pod: &mut Option<PodSpec>| {
            pod.as_mut().unwrap().containers[0].image = image.as_str().map(str::to_owned);
        };
        match object {
            Object::KubeadmConfig => {
                let text = patch["data"]["ClusterConfiguration"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                let data = live.kubeadm_config.data.as_mut().unwrap();
                data.insert("ClusterConfiguration".to_owned(), text);
            }
            Object::KubeProxy => {
                let spec = live.kube_proxy.as_mut().unwrap().spec.as_mut().unwrap();
                set(&mut spec.template.spec);
            }
            Object::CoreDns => {
                let spec = live.coredns.as_mut().unwrap().spec.as_mut().unwrap();
                set(&mut spec.template.spec);
            }
        }
    }
    live
}

fn images(live: &Live) -> (String, String) {
    let proxy = live.kube_proxy.as_ref().unwrap().spec.as_ref().unwrap();
    let coredns = live.coredns.as_ref().unwrap().spec.as_ref().unwrap();
    let image = |pod: &Option<PodSpec>| pod.as_ref().unwrap().containers[0].image.clone().unwrap();
    (image(&proxy.template.spec), image(&coredns.template.spec))
}

#[test]
fn each_step_brings_what_belongs_to_it_and_is_done_once() {
    let mut cluster = live(
        "v1.31.4",
        "registry.k8s.io/kube-proxy:v1.31.4",
        "registry.k8s.io/coredns/coredns:v1.11.3",
    );
    for (version, dns) in [
        ("v1.32.1", "v1.11.3"),
        ("v1.33.2", "v1.12.0"),
        ("v1.34.0", "v1.12.1"),
        ("v1.35.3", "v1.13.1"),
        ("v1.36.1", "v1.14.2"),
    ] {
        let changes = after_step(&cluster, &v(version)).unwrap();
        assert_eq!(changes.left, [""; 0], "{version}");
        cluster = applied(cluster, &changes);
        let want = (
            format!("registry.k8s.io/kube-proxy:{version}"),
            format!("registry.k8s.io/coredns/coredns:{dns}"),
        );
        assert_eq!(images(&cluster), want);
        let configuration = cluster_configuration(&cluster.kubeadm_config).unwrap();
        assert_eq!(configuration["kubernetesVersion"], version);
        assert_eq!(
            after_step(&cluster, &v(version)),
            Ok(Changes::default()),
            "{version}"
        );
    }
}

#[test]
fn nothing_goes_back() {
    let cluster = live(
        "v1.34.1",
        "mirror:5000/k8s/kube-proxy:v1.34.1",
        "mirror:5000/k8s/coredns:v1.14.0",
    );
    assert_eq!(after_step(&cluster, &v("v1.33.9")), Ok(Changes::default()));
    let changes = after_step(&cluster, &v("v1.35.0")).unwrap();
    let want = (
        "mirror:5000/k8s/kube-proxy:v1.35.0".to_owned(),
        "mirror:5000/k8s/coredns:v1.14.0".to_owned(),
    );
    assert_eq!(images(&applied(cluster, &changes)), want);
}

/// Docker Hub has CoreDNS without it.
#[test]
fn a_tag_is_written_as_it_was() {
    let cluster = live("v1.33.0", "kube-proxy:1.32.0", "coredns/coredns:1.11.3");
    let changes = after_step(&cluster, &v("v1.33.0")).unwrap();
    let want = (
        "kube-proxy:1.33.0".to_owned(),
        "coredns/coredns:1.12.0".to_owned(),
    );
    assert_eq!(images(&applied(cluster, &changes)), want);
}

#[test]
fn what_is_not_understood_is_left_alone_and_said() {
    let standard = "registry.k8s.io/coredns/coredns:v1.11.3";
    let proxy = "registry.k8s.io/kube-proxy:v1.33.0";
    let custom = COREFILE.replace(
        "    loop\n",
        "    loop\n    netbox example.org {\n        loop\n    }\n",
    );
    for (edit, want) in [
        (
            Box::new(|live: &mut Live| live.coredns_config = Some(configmap("Corefile", &custom)))
                as Box<dyn Fn(&mut Live)>,
            "its Corefile has plugins that v1.12.0 may lack (netbox)",
        ),
        (
            Box::new(|live| live.coredns_config = None),
            "ConfigMap coredns has no Corefile",
        ),
        (
            Box::new(|cluster| *cluster = live("v1.33.0", proxy, "coredns@sha256:00")),
            "pinned by a digest",
        ),
        (
            Box::new(|cluster| *cluster = live("v1.33.0", proxy, "localhost:5000/coredns")),
            "its image has no tag",
        ),
        (
            Box::new(|cluster| *cluster = live("v1.33.0", proxy, "coredns:latest")),
            "the tag of its image is no version",
        ),
        (
            Box::new(|cluster| *cluster = live("v1.33.0", proxy, "coredns:1.6.7")),
            "read its Corefile otherwise",
        ),
        (
            Box::new(|cluster| *cluster = live("v1.33.0", "kube-proxy:mine", "coredns:v1.12.0")),
            "DaemonSet kube-proxy is left alone",
        ),
        (
            Box::new(|live| {
                live.kubelet_config =
                    Some(configmap("kubelet", "featureGates: {A: true, B: false}"));
            }),
            "names feature gates (A, B)",
        ),
        (
            Box::new(|live| live.kubelet_config = Some(configmap("kubelet", "["))),
            "is no YAML",
        ),
    ] {
        let mut cluster = live("v1.33.0", proxy, standard);
        edit(&mut cluster);
        let changes = after_step(&cluster, &v("v1.33.0")).unwrap();
        let [left] = changes.left.as_slice() else {
            panic!("{want}: {changes:?}");
        };
        assert!(left.contains(want), "{left}");
        let touched = changes
            .changes
            .iter()
            .any(|change| change.object == Object::CoreDns);
        assert_eq!(touched, left.contains("kubelet-config"), "{changes:?}");
    }
    let cluster = live("v1.39.0", "kube-proxy:v1.39.0", standard);
    let changes = after_step(&cluster, &v("v1.39.0")).unwrap();
    assert_eq!(
        changes.left,
        [
            "CoreDNS is left alone: which one v1.39.0 comes with is not known here; upgrade it by hand"
        ]
    );
}

#[test]
fn clusters_without_them_are_asked_nothing() {
    let cluster = Live {
        kubeadm_config: kubeadm_config("kubernetesVersion: v1.33.0\nproxy: {disabled: true}\n"),
        ..Live::default()
    };
    assert_eq!(after_step(&cluster, &v("v1.33.0")), Ok(Changes::default()));
}

#[test]
fn the_one_that_kubeadm_was_told_is_taken() {
    let mut cluster = live("v1.33.0", "kube-proxy:v1.33.0", "coredns:v1.11.3");
    cluster.kubeadm_config =
        kubeadm_config("kubernetesVersion: v1.33.0\ndns: {imageTag: v1.12.4}\n");
    let changes = after_step(&cluster, &v("v1.33.0")).unwrap();
    assert_eq!(images(&applied(cluster, &changes)).1, "coredns:v1.12.4");
}

#[test]
fn the_version_comes_first_and_a_gate_goes_when_it_is_the_default() {
    let text = "kind: ClusterConfiguration\nclusterName: \"yes\"\nkubernetesVersion: v1.32.0\nfeatureGates: {ControlPlaneKubeletLocalMode: true}\n";
    let config = kubeadm_config(text);
    let step = |version| before_step(&config, &v(version)).unwrap();
    assert_eq!(step("v1.32.0"), None);
    assert_eq!(step("v1.31.9"), None);
    let read = |change: &Change| -> Value {
        serde_saphyr::from_str(
            change.patch["data"]["ClusterConfiguration"]
                .as_str()
                .unwrap(),
        )
        .unwrap()
    };
    let change = step("v1.32.1").unwrap();
    assert_eq!(change.patch["metadata"], json!({"resourceVersion": "7"}));
    assert_eq!(
        read(&change)["featureGates"],
        json!({"ControlPlaneKubeletLocalMode": true})
    );
    let change = step("v1.33.0").unwrap();
    assert_eq!(
        read(&change),
        json!({"kind": "ClusterConfiguration", "clusterName": "yes", "kubernetesVersion": "v1.33.0"})
    );
    assert_eq!(
        change.because,
        "control-plane machines join with v1.33.0, no longer with v1.32.0; kubeadm no longer needs the feature gate ControlPlaneKubeletLocalMode"
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error() {
    for (config, want) in [
        (ConfigMap::default(), "it has no key ClusterConfiguration"),
        (
            kubeadm_config("- a\n"),
            "ClusterConfiguration is no mapping",
        ),
        (kubeadm_config("a: [\n"), "ClusterConfiguration is no YAML"),
        (kubeadm_config("a: b\n"), "it names no kubernetesVersion"),
        (
            kubeadm_config("kubernetesVersion: latest\n"),
            "it names no kubernetesVersion",
        ),
    ] {
        let error = before_step(&config, &v("v1.33.0")).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn plugins_of_a_corefile() {
    for (corefile, want) in [
        (COREFILE, vec![]),
        ("", vec![]),
        (
            "# a\n.:53 {\n  mine # b\n  hosts {\n    10.0.0.1 theirs\n  }\n}\nexample.org {\n  mine\n  yours { x }\n  errors\n}",
            vec!["mine", "yours"],
        ),
        (
            ". {\n  import /etc/coredns/custom/*.override\n}\nimport more/*.server\n",
            vec!["import"],
        ),
        (
            "a.org\nb.org {\n  template IN A {\n    answer \"} { #\"\n  }\n  odd\n}",
            vec!["odd"],
        ),
    ] {
        assert_eq!(corefile::unknown_plugins(corefile), want, "{corefile}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), image in "[ -~]{0,40}", more in "[{}#\" a-z\n.:]{0,80}") {
        let mut cluster = live("v1.32.0", &image, &image);
        cluster.coredns_config = Some(configmap("Corefile", &more));
        let _ = after_step(&cluster, &v("v1.33.0"));
        cluster.kubeadm_config = kubeadm_config(&text);
        cluster.kubelet_config = Some(configmap("kubelet", &text));
        let _ = after_step(&cluster, &v("v1.33.0"));
    }
}
