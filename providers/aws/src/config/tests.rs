use fleetwright_providers::{ConfigError, config_errors};
use serde_json::json;

use super::*;

fn good() -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": MACHINE_CONFIG, "account": "eu",
        "instanceType": "t3.large", "image": "ami-0123456789abcdef0", "iamInstanceProfile": "nodes",
    })
}

fn with(changes: Value) -> Value {
    let mut config = good();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
            value => config[key] = value.clone(),
        }
    }
    config
}

fn first(config: &Value) -> String {
    let errors = config_errors(&schemas(), config);
    let text = |e: &ConfigError| format!("{}: {}", e.field, e.message);
    errors.first().map(text).unwrap_or_default()
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let volume = |more: Value| {
        let mut volume = json!({"sizeGiB": 20});
        for (key, value) in more.as_object().unwrap() {
            volume[key] = value.clone();
        }
        json!({"rootVolume": volume})
    };
    for (changes, field, words) in [
        (
            json!({"imageLookup": {}}),
            "imageLookup",
            "set one of image and imageLookup",
        ),
        (json!({"image": "ubuntu"}), "image", "Invalid value"),
        (
            json!({"instanceType": null}),
            "instanceType",
            "Required value",
        ),
        (
            json!({"instanceType": "huge"}),
            "instanceType",
            "Invalid value",
        ),
        (
            json!({"instanceTpye": "t3.large"}),
            "instanceTpye",
            "no such field",
        ),
        (
            json!({"instanceType": "m7i.large", "cpuCredits": "standard"}),
            "cpuCredits",
            "only burstable",
        ),
        (
            json!({"image": null, "imageLookup": {"parameter": "/a", "name": "b"}}),
            "imageLookup.name",
            "one of",
        ),
        (
            json!({"image": null, "imageLookup": {"owner": "self"}}),
            "imageLookup.owner",
            "by name",
        ),
        (
            json!({"iamInstanceProfile": null}),
            "iamInstanceProfile",
            "Required value: a node reads its secrets",
        ),
        (json!({"os": "plan9"}), "os", "Unsupported value"),
        (json!({"subnets": []}), "subnets", "at least 1"),
        (
            json!({"subnets": [{"id": "subnet-12345678"}]}),
            "subnets[0].availabilityZone",
            "Required",
        ),
        (
            json!({"subnets": [
                {"id": "subnet-12345678", "availabilityZone": "a"}, {"id": "subnet-12345678", "availabilityZone": "b"},
            ]}),
            "subnets[1]",
            "Duplicate",
        ),
        (
            json!({"securityGroups": ["web"]}),
            "securityGroups[0]",
            "Invalid value",
        ),
        (
            volume(json!({"throughput": 200, "type": "gp2"})),
            "rootVolume.throughput",
            "only volumes of type gp3",
        ),
        (
            volume(json!({"iops": 200, "type": "st1"})),
            "rootVolume.iops",
            "gp3, io1 and io2",
        ),
        (volume(json!({"type": "io2"})), "rootVolume", "need iops"),
        (
            volume(json!({"kmsKey": "k", "encrypted": false})),
            "rootVolume.kmsKey",
            "encrypted volumes",
        ),
        (
            volume(json!({"deviceName": "/dev/sda1"})),
            "rootVolume.deviceName",
            "no such field",
        ),
        (
            json!({"volumes": [{"sizeGiB": 1}]}),
            "volumes[0].deviceName",
            "Required",
        ),
        (
            json!({"volumes": [{"sizeGiB": 1, "deviceName": "/dev/sda1"}]}),
            "volumes[0].deviceName",
            "Invalid",
        ),
        (
            json!({"spot": {}, "capacityReservation": "cr-0123456789abcdef0"}),
            "capacityReservation",
            "spot",
        ),
        (
            json!({"spot": {"maxPrice": "much"}}),
            "spot.maxPrice",
            "Invalid",
        ),
        (
            json!({"metadataOptions": {"httpTokens": "never"}}),
            "metadataOptions.httpTokens",
            "Unsupported",
        ),
        (json!({"tags": {"aws:team": "a"}}), "tags", "not yours"),
        (
            json!({"tags": {"fleetwright.dev/set": "a"}}),
            "tags",
            "not yours",
        ),
        (json!({"tags": {"Name": "a"}}), "tags", "not yours"),
        (json!({"tags": {"a,b": "a"}}), "tags", "letters, digits"),
        (json!({"tags": {"a": "x".repeat(257)}}), "tags.a", "256"),
        (json!({"kind": "AWSMachine"}), "kind", "none of"),
    ] {
        let said = first(&with(changes.clone()));
        let place = said.split(": ").next().unwrap_or_default();
        // Entries of maps and lists stand in brackets.
        let plain = |place: &str| place.replace('[', ".").replace(']', "");
        assert_eq!(plain(place), plain(field), "{changes}: {said}");
        assert!(said.contains(words), "{changes}: {said}");
    }
}

#[test]
fn what_can_be_is_read_with_its_defaults() {
    let config = with(json!({
        "image": null,
        "imageLookup": {"name": "k8s-{os}-{kubernetesVersion}-*"},
        "rootVolume": {"sizeGiB": 30, "iops": 3000, "throughput": 250},
        "volumes": [{"sizeGiB": 100, "deviceName": "/dev/sdf", "type": "io2", "iops": 500, "kmsKey": "alias/a"}],
        "spot": {"maxPrice": "0.05"}, "cpuCredits": "unlimited", "tags": {"Cost Center": "7"},
        "securityGroups": ["sg-0123456789abcdef0"], "publicIP": false,
        "subnets": [{"id": "subnet-0123456789abcdef0", "availabilityZone": "eu-central-1a"}],
    }));
    assert_eq!(first(&config), "");
    let read = machine(&config).unwrap();
    assert_eq!(read.metadata_options.http_tokens, "required");
    assert_eq!(read.metadata_options.http_put_response_hop_limit, 1);
    assert_eq!(read.os, "ubuntu-24.04");
    let lookup = read.image_lookup.unwrap();
    assert_eq!(
        (lookup.architecture.as_str(), lookup.owner),
        ("amd64", None)
    );
    let (root, data) = (read.root_volume.unwrap(), &read.volumes[0]);
    assert_eq!((root.kind.as_str(), root.encrypted), ("gp3", true));
    assert_eq!((data.kind.as_str(), data.encrypted), ("io2", true));
    assert_eq!(read.public_ip, Some(false));
    // With its defaults filled in it is still right.
    let mut effective = config.clone();
    default::apply(
        &Schema::from_openapi(&schemas()[0].schema).unwrap(),
        &mut effective,
    );
    assert_ne!(effective, config);
    assert_eq!(first(&effective), "");
    let error = cluster(&config).unwrap_err().to_string();
    assert!(
        error.contains("a cluster is made from AWSClusterConfig"),
        "{error}"
    );
}

#[test]
fn clusters_have_one_way_to_their_api() {
    let config = |more: Value| {
        let mut config =
            json!({"apiVersion": API_VERSION, "kind": CLUSTER_CONFIG, "account": "eu"});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let balancer = json!({"subnets": ["subnet-0123456789abcdef0"]});
    let both = config(
        json!({"loadBalancer": balancer, "controlPlaneEndpoint": {"host": "api.example.com"}}),
    );
    assert!(first(&both).contains("set one of"), "{}", first(&both));
    let read = cluster(&config(json!({"loadBalancer": balancer}))).unwrap();
    assert_eq!(read.load_balancer.unwrap().scheme, "internal");
    let read = cluster(&config(
        json!({"controlPlaneEndpoint": {"host": "api.example.com"}}),
    ))
    .unwrap();
    assert_eq!(read.control_plane_endpoint.unwrap().port, 6443);
}

#[test]
fn machines_are_spread_over_subnets_and_stay_where_they_were_asked_for() {
    let subnet =
        |id: u32, zone: &str| json!({"id": format!("subnet-{id:08}"), "availabilityZone": zone});
    let config = with(json!({"subnets": [subnet(1, "a"), subnet(2, "b"), subnet(3, "a")]}));
    assert_eq!(zones(config.as_object().unwrap()), ["a", "b"]);
    let read = machine(&config).unwrap();
    let of = |zone: Option<&str>, machine: &str, key: &str| {
        let subnet = read.subnet(zone, machine, key).unwrap();
        subnet.unwrap().id.clone()
    };
    let named = |zone: Option<&str>, n: usize| of(zone, &format!("web-7f9c-{n}"), "any");
    assert_eq!(named(Some("b"), 4), "subnet-00000002");
    // Zones take turns, and in each its subnets.
    let turns: Vec<String> = (0..6).map(|n| named(None, n)).collect();
    let subnet = |id: u32| format!("subnet-{id:08}");
    assert_eq!(turns, [1, 2, 3, 2, 1, 2].map(subnet));
    let turns: Vec<String> = (0..3).map(|n| named(Some("a"), n)).collect();
    assert_eq!(turns, [1, 3, 1].map(subnet));
    // Without an ordinal its key decides.
    let keyed = |zone: Option<&str>| -> BTreeSet<String> {
        let keys = (0..50).map(|n| format!("key{n}"));
        keys.map(|key| of(zone, "web-x", &key)).collect()
    };
    assert_eq!((keyed(None).len(), keyed(Some("a")).len()), (3, 2));
    assert_eq!(of(None, "web-x", "key7"), of(None, "web-x", "key7"));
    let huge = format!("web-{}", usize::MAX);
    assert!(!of(None, &huge, "any").is_empty());
    let error = read
        .subnet(Some("c"), "web-0", "any")
        .unwrap_err()
        .to_string();
    assert!(error.contains("none is in availability zone c"), "{error}");
    let none = machine(&good()).unwrap();
    assert_eq!(none.subnet(Some("c"), "web-0", "any").unwrap(), None);
}

#[test]
fn machines_made_one_after_the_other_are_in_zones_of_their_own() {
    let zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"];
    let subnets: Vec<Value> = zones
        .iter()
        .enumerate()
        .map(|(n, zone)| json!({"id": format!("subnet-{n:08}"), "availabilityZone": zone}))
        .collect();
    let read = machine(&with(json!({"subnets": subnets}))).unwrap();
    for first in 0..12 {
        let three: BTreeSet<&str> = (first..first + 3)
            .map(|n| {
                let subnet = read.subnet(None, &format!("web-7f9c-{n}"), &format!("key{n}"));
                subnet.unwrap().unwrap().availability_zone.as_str()
            })
            .collect();
        assert_eq!(three.len(), 3, "from {first} on");
    }
}

#[test]
fn settings_say_what_is_certain() {
    let one = json!({"id": "subnet-00000001", "availabilityZone": "a"});
    let two = json!({"id": "subnet-00000002", "availabilityZone": "b"});
    let shown = |config: &Value| settings(config.as_object().unwrap());
    assert_eq!(shown(&good()), InstanceSettings::default());
    let single = shown(&with(
        json!({"subnets": [one], "tags": {"a": "b"}, "securityGroups": ["sg-2", "sg-1"]}),
    ));
    assert_eq!(single.network.as_deref(), Some("subnet-00000001"));
    assert_eq!(
        single.security_groups,
        Some(["sg-1".to_owned(), "sg-2".to_owned()].into())
    );
    assert_eq!(single.tags["a"], "b");
    assert_eq!(shown(&with(json!({"subnets": [one, two]}))).network, None);
}
