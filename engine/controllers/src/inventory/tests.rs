//! What lists show, hide and repeat.

use fleetwright_api::drift::InstanceSettings;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn instance(key: &str, state: InstanceState) -> Instance {
    Instance {
        id: format!("i-{key}"),
        provider_id: format!("sim:///{key}"),
        owner: Some(Ownership {
            instance_key: key.into(),
            cluster_key: "c".into(),
            ..Default::default()
        }),
        state,
        reason: None,
        addresses: Vec::new(),
        failure_domain: None,
        instance_type: String::new(),
        image: String::new(),
        settings: Arc::default(),
        config_digest: String::new(),
        version: String::new(),
        created: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn nothing_is_known_before_the_first_complete_list() {
    let inventory = Inventory::default();
    assert_eq!(inventory.see("a", "k"), Seen::Unknown);
    inventory.listed("a", inventory.begin(at(0)), vec![]);
    assert_eq!(inventory.see("a", "k"), Seen::Missing);
}

#[test]
fn a_list_that_began_before_a_create_does_not_hide_it() {
    let inventory = Inventory::default();
    inventory.listed("a", inventory.begin(at(0)), vec![]);
    let begun = inventory.begin(at(0));
    inventory.wrote("a", "k", Some(instance("k", InstanceState::Pending)));
    inventory.listed("a", begun, vec![]);
    assert!(matches!(inventory.see("a", "k"), Seen::There(_)));
    assert!(inventory.moving("a"));
    let changed = inventory.listed("a", inventory.begin(at(0)), vec![]);
    let keys: Vec<_> = changed.iter().map(|o| o.instance_key.as_str()).collect();
    assert_eq!(keys, ["k"]);
    assert_eq!(inventory.see("a", "k"), Seen::Missing);
    assert!(!inventory.moving("a"));
}

#[test]
fn the_pause_between_lists_grows_with_what_they_show() {
    let inventory = Inventory::default();
    assert_eq!(inventory.pause("a"), MOVING);
    for (instances, pause) in [(10, 1_000), (1_000, 2_000), (10_000, 5_000)] {
        let keys = (0..instances).map(|i| i.to_string());
        let list = keys.map(|key| instance(&key, InstanceState::Pending));
        inventory.listed("a", inventory.begin(at(0)), list.collect());
        assert_eq!(inventory.pause("a"), Duration::from_millis(pause));
    }
}

#[test]
fn instances_without_a_machine_are_shown() {
    let inventory = Inventory::default();
    let list = vec![
        instance("k", InstanceState::Running),
        instance("x", InstanceState::Running),
    ];
    inventory.listed("a", inventory.begin(at(0)), list);
    let known = BTreeSet::from(["k".to_owned()]);
    assert_eq!(
        inventory.unmanaged("c", &known),
        Some(vec!["i-x".to_owned()])
    );
    inventory.listed("a", inventory.begin(at(0)), vec![]);
    assert_eq!(inventory.unmanaged("c", &known), Some(vec![]));
}

#[test]
fn instances_that_share_a_key_are_shown_and_the_known_one_stays() {
    let inventory = Inventory::default();
    let with = |id: &str| Instance {
        id: id.into(),
        ..instance("k", InstanceState::Running)
    };
    assert_eq!(inventory.duplicated("c"), Some(vec![]));
    let list = |list| inventory.listed("a", inventory.begin(at(0)), list);
    list(vec![with("i-2")]);
    assert_eq!(inventory.duplicated("c"), Some(vec![]));
    for order in [["i-1", "i-2"], ["i-2", "i-1"]] {
        list(order.map(with).into());
        let both = vec!["i-1".to_owned(), "i-2".to_owned()];
        assert_eq!(inventory.duplicated("c"), Some(both));
        assert_eq!(inventory.duplicated("other"), Some(vec![]));
        assert_eq!(inventory.see("a", "k"), Seen::There(with("i-2").into()));
    }
    let keys = |changed: Vec<Ownership>| -> Vec<String> {
        changed.into_iter().map(|o| o.instance_key).collect()
    };
    assert_eq!(keys(list(vec![with("i-2"), with("i-1")])), [""; 0]);
    // The Cluster is told that one of them is gone, the Machine is not.
    assert_eq!(keys(list(vec![with("i-2")])), [""]);
    assert_eq!(inventory.duplicated("c"), Some(vec![]));
}

#[tokio::test]
async fn what_no_list_shows_is_gone_for_sure_or_since_a_time() {
    let inventory = Inventory::default();
    let lost = || ProviderError::Ambiguous {
        message: String::new(),
    };
    let full = || ProviderError::Quota {
        message: String::new(),
    };
    let listed = |since, latest| {
        Some(Absent::Listed {
            since: at(since),
            latest: at(latest),
        })
    };
    let list = |second, list| inventory.listed("a", inventory.begin(at(second)), list);
    assert_eq!(inventory.absent("a", "k"), None, "no list yet");
    list(10, vec![]);
    list(20, vec![]);
    assert_eq!(inventory.absent("a", "k"), listed(10, 20));
    inventory.drew("a", "k", at(20));
    assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure));
    let ask = async |second, error| {
        let call = async { Err::<(), _>(error) };
        let answer = inventory.asked("a", "k", at(second), call).await;
        assert!(answer.is_err());
        inventory.absent("a", "k")
    };
    assert_eq!(ask(21, full()).await, Some(Absent::Sure));
    assert_eq!(ask(22, lost()).await, listed(22, 20));
    // That the next one is refused says nothing of the one before.
    assert_eq!(ask(23, full()).await, listed(22, 20));
    list(30, vec![]);
    assert_eq!(inventory.absent("a", "k"), listed(22, 30));
    for (state, want) in [
        (InstanceState::Running, listed(50, 60)),
        (InstanceState::Deleting, Some(Absent::Sure)),
    ] {
        list(40, vec![instance("k", state)]);
        list(50, vec![]);
        list(60, vec![]);
        assert_eq!(inventory.absent("a", "k"), want, "{state:?}");
    }
    list(70, vec![instance("k", InstanceState::Running)]);
    inventory.deleting("a", "k");
    list(80, vec![]);
    assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure), "by us");
    inventory.forget("a", "k");
    assert_eq!(inventory.absent("a", "k"), listed(10, 80));
    inventory.gone("a", "k", at(80));
    assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure));
    let day = 24 * 3600;
    list(80 + day - 1, vec![]);
    assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure));
    list(80 + day, vec![]);
    assert_eq!(
        inventory.absent("a", "k"),
        listed(10, 80 + day),
        "forgotten"
    );
}

#[test]
fn what_instances_have_alike_is_kept_once() {
    let inventory = Inventory::default();
    let with = |key: &str, network: &str| Instance {
        settings: Arc::new(InstanceSettings {
            network: Some(network.into()),
            ..InstanceSettings::default()
        }),
        ..instance(key, InstanceState::Running)
    };
    let list = vec![with("a", "n"), with("b", "n"), with("c", "m")];
    inventory.listed("a", inventory.begin(at(0)), list);
    let settings = |key: &str| match inventory.see("a", key) {
        Seen::There(instance) => Arc::clone(&instance.settings),
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&settings("a"), &settings("b")));
    assert_eq!(settings("c").network.as_deref(), Some("m"));
}
