use fleetwright_api::{external_instance::ExternalInstanceStatus, time::k8s_time};

use super::*;

fn owner() -> Ownership {
    Ownership {
        installation: "main".into(),
        cluster_key: "k".into(),
        cluster: "shop/eu".into(),
        pool: "web".into(),
        set: "web-1".into(),
        machine: "web-1-abcde".into(),
        instance_key: "0123".into(),
    }
}

fn order() -> ExternalInstance {
    let order = CreateInstance {
        owner: owner(),
        version: "v1.34.1".into(),
        config: json!({"kind": "ExternalMachineConfig", "image": "noble"}),
        config_digest: "d".into(),
        ..CreateInstance::default()
    };
    let account = Account {
        name: "metal".into(),
        ..Account::default()
    };
    object(&account, &order).unwrap()
}

fn with(state: Option<State>, reason: Option<&str>) -> ExternalInstance {
    let mut order = order();
    order.status = Some(ExternalInstanceStatus {
        state,
        reason: reason.map(ToOwned::to_owned),
        ..ExternalInstanceStatus::default()
    });
    order
}

#[test]
fn an_order_has_one_place_for_each_key() {
    let first = owner();
    let (namespace, name) = place(&first).unwrap();
    assert_eq!(
        (namespace, name.as_str()),
        ("shop", "web-1-abcde-6c8a566588")
    );
    let other = |change: fn(&mut Ownership)| {
        let mut changed = owner();
        change(&mut changed);
        place(&changed).map(|(_, name)| name)
    };
    assert_ne!(other(|o| o.instance_key = "4567".into()), Ok(name.clone()));
    assert_eq!(other(|o| o.set = "web-2".into()), Ok(name));
    for change in [
        (|o| o.instance_key.clear()) as fn(&mut Ownership),
        |o| o.machine.clear(),
        |o| o.cluster = "eu".into(),
    ] {
        assert!(other(change).unwrap_err().is_terminal());
    }
}

#[test]
fn an_order_shows_whose_it_is_and_what_its_maker_says() {
    let shown = show(&order());
    assert_eq!(shown.owner, Some(owner()));
    assert_eq!(shown.provider_id, order().spec.provider_id);
    assert_eq!(shown.id, "shop/web-1-abcde-6c8a566588");
    assert_eq!(
        (shown.image.as_str(), shown.version.as_str()),
        ("noble", "v1.34.1")
    );
    let open = "nobody has taken up ExternalInstance shop/web-1-abcde-6c8a566588 yet";
    for (state, reason, deleting, want, says) in [
        (None, None, false, InstanceState::Pending, Some(open)),
        (
            None,
            Some("soon"),
            false,
            InstanceState::Pending,
            Some("soon"),
        ),
        (
            Some(State::Pending),
            None,
            false,
            InstanceState::Pending,
            None,
        ),
        (
            Some(State::Pending),
            Some("racked"),
            false,
            InstanceState::Pending,
            Some("racked"),
        ),
        (
            Some(State::Running),
            None,
            false,
            InstanceState::Running,
            None,
        ),
        (
            Some(State::Stopped),
            Some("fan"),
            false,
            InstanceState::Stopped,
            Some("fan"),
        ),
        (
            Some(State::Failed),
            Some("fire"),
            false,
            InstanceState::Failed,
            Some("fire"),
        ),
        (
            Some(State::Running),
            None,
            true,
            InstanceState::Deleting,
            Some("given it back"),
        ),
        (
            None,
            None,
            true,
            InstanceState::Deleting,
            Some("given it back"),
        ),
    ] {
        let mut order = with(state, reason);
        order.metadata.deletion_timestamp = deleting.then(|| k8s_time(Timestamp::UNIX_EPOCH));
        let shown = show(&order);
        assert_eq!(shown.state, want, "{state:?}");
        let told = shown.reason.as_deref();
        let good = says.map_or(told.is_none(), |s| told.is_some_and(|t| t.contains(s)));
        assert!(good, "{state:?}: {told:?}");
    }
}

#[test]
fn only_an_order_that_nobody_has_taken_up_goes_without_a_release() {
    for (state, taken) in [
        (None, false),
        (Some(State::Pending), true),
        (Some(State::Running), true),
        (Some(State::Stopped), true),
        (Some(State::Failed), true),
    ] {
        for finalizers in [vec![], vec![FINALIZER_RELEASE]] {
            let mut order = with(state, None);
            let others = ["other/one"].into_iter().chain(finalizers);
            order.metadata.finalizers = Some(others.map(ToOwned::to_owned).collect());
            let mut want = vec!["other/one"];
            want.extend(taken.then_some(FINALIZER_RELEASE));
            assert_eq!(to_delete(&order), want, "{state:?}");
        }
    }
    assert_eq!(to_delete(&order()), [""; 0]);
}

#[test]
fn user_data_says_its_format() {
    for (text, format) in [
        ("#cloud-config\n{}", "cloud-config"),
        ("{\"ignition\": {}}", "ignition"),
    ] {
        let made: k8s_openapi::api::core::v1::Secret =
            serde_json::from_value(secret("a", text, Some(&order()))).unwrap();
        let data = made.data.unwrap();
        assert_eq!(data["format"].0, format.as_bytes());
        assert_eq!(data["value"].0, text.as_bytes());
        assert_eq!(
            made.metadata.owner_references.unwrap()[0].kind,
            "ExternalInstance"
        );
    }
}
