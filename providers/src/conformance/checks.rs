//! The checks, each a function of the harness.

use std::collections::BTreeSet;

use fleetwright_api::ProviderConfig;
use serde_json::Value;

use super::{Harness, Trouble};
use crate::{
    contract::{CreateInstance, Instance, InstanceState, ListScope, UpdateInstance},
    error::ProviderError,
};

/// Most looks at an instance that is to be gone, with [`Harness::pause`] between them.
const MOST_LOOKS: usize = 1000;

fn must(good: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(message()) }
}

fn fine<T>(what: &str, result: Result<T, ProviderError>) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {} ({e})", e.word()))
}

async fn create(h: &dyn Harness, order: &CreateInstance) -> Result<Instance, String> {
    fine("create", h.provider().create(&h.account(), order).await)
}

async fn list(h: &dyn Harness, scope: &ListScope) -> Result<Vec<Instance>, String> {
    fine("list", h.provider().list(&h.account(), scope).await)
}

/// Instances with this instance key, in the whole account.
async fn with_key(h: &dyn Harness, key: &str) -> Result<Vec<Instance>, String> {
    let mut all = list(h, &ListScope::Account).await?;
    all.retain(|i| i.owner.as_ref().is_some_and(|o| o.instance_key == key));
    Ok(all)
}

async fn only_one(h: &dyn Harness, order: &CreateInstance, id: &str) -> Result<(), String> {
    let found = with_key(h, &order.owner.instance_key).await?;
    must(found.len() == 1 && found[0].id == id, || {
        format!("one instance {id} expected, listed are {found:?}")
    })
}

/// Waits until the provider has no instance with this id.
async fn gone(h: &dyn Harness, id: &str) -> Result<(), String> {
    for _ in 0..MOST_LOOKS {
        if fine("get", h.provider().get(&h.account(), id).await)?.is_none() {
            let listed = list(h, &ListScope::Account).await?;
            return must(listed.iter().all(|i| i.id != id), || {
                format!("{id} is not there and yet listed")
            });
        }
        h.pause().await;
    }
    Err(format!("{id} was deleted and is still there"))
}

pub(super) async fn schemas(h: &dyn Harness) -> Result<(), String> {
    let known = ["replace", "in-place", "none"];
    let schemas = h.provider().schemas();
    must(!schemas.is_empty(), || "there are none".into())?;
    for schema in &schemas {
        let fields = schema.schema["properties"].as_object();
        let fields = fields.ok_or_else(|| format!("{} has no properties", schema.kind))?;
        for (name, field) in fields {
            let change = field.get("x-fleetwright-change");
            let good = change.is_none_or(|c| c.as_str().is_some_and(|c| known.contains(&c)));
            must(good, || format!("{}.{name}: {change:?}", schema.kind))?;
        }
    }
    let order = h.order("conformance-schemas");
    let errors = h.provider().validate(&order.config);
    must(errors.is_empty(), || {
        format!("a good configuration is refused: {errors:?}")
    })?;
    let errors = h.provider().validate(&h.bad_config());
    must(!errors.is_empty(), || {
        "a bad configuration is not refused".into()
    })
}

pub(super) async fn twice(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-twice");
    let first = create(h, &order).await?;
    let second = create(h, &order).await?;
    must(first.id == second.id, || {
        format!("{} and then {}", first.id, second.id)
    })?;
    must(first.owner.as_ref() == Some(&order.owner), || {
        format!(
            "the tags read back are {:?}, written were {:?}",
            first.owner, order.owner
        )
    })?;
    only_one(h, &order, &first.id).await
}

pub(super) async fn at_once(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-at-once");
    let (a, b, c, d) = tokio::join!(
        create(h, &order),
        create(h, &order),
        create(h, &order),
        create(h, &order)
    );
    let ids: BTreeSet<String> = [a?, b?, c?, d?].into_iter().map(|i| i.id).collect();
    must(ids.len() == 1, || format!("four creates made {ids:?}"))?;
    let id = ids.into_iter().next().unwrap_or_default();
    only_one(h, &order, &id).await
}

pub(super) async fn answer_lost(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-answer-lost");
    let machine = &order.owner.machine;
    if !h.inject(Trouble::AnswerLost, "create", machine).await {
        return Ok(());
    }
    ambiguous(h.provider().create(&h.account(), &order).await)?;
    must(h.happened(machine).await == 1, || {
        "the fault did not fire".into()
    })?;
    let made = with_key(h, &order.owner.instance_key).await?;
    must(made.len() == 1, || {
        format!("one instance must be there, listed are {made:?}")
    })?;
    let again = create(h, &order).await?;
    must(again.id == made[0].id, || {
        format!("made {} and then {}", made[0].id, again.id)
    })?;
    only_one(h, &order, &again.id).await
}

pub(super) async fn request_lost(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-request-lost");
    let machine = &order.owner.machine;
    if !h.inject(Trouble::RequestLost, "create", machine).await {
        return Ok(());
    }
    match h.provider().create(&h.account(), &order).await {
        Err(ProviderError::Ambiguous { .. } | ProviderError::Unavailable { .. }) => {}
        other => return Err(format!("a lost request gave {other:?}")),
    }
    must(h.happened(machine).await == 1, || {
        "the fault did not fire".into()
    })?;
    let made = with_key(h, &order.owner.instance_key).await?;
    must(made.is_empty(), || format!("a lost request made {made:?}"))?;
    let id = create(h, &order).await?.id;
    only_one(h, &order, &id).await
}

fn ambiguous<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> Result<(), String> {
    match result {
        Err(error @ ProviderError::Ambiguous { .. }) => must(error.retry_after().is_none(), || {
            "a lost answer names a time to wait".into()
        }),
        other => Err(format!("a lost answer must be Ambiguous, is {other:?}")),
    }
}

pub(super) async fn get_and_list(h: &dyn Harness) -> Result<(), String> {
    let cluster = "conformance-list";
    let mut made = BTreeSet::new();
    for _ in 0..5 {
        made.insert(create(h, &h.order(cluster)).await?.id);
    }
    // A state may move on between the two calls; the rest may not.
    let fixed = |mut i: Instance| {
        i.state = InstanceState::Pending;
        i
    };
    let listed = list(h, &ListScope::Cluster(cluster.into())).await?;
    let ids: Vec<String> = listed.iter().map(|i| i.id.clone()).collect();
    must(ids.iter().eq(made.iter()), || {
        format!("made {made:?}, listed {ids:?}: sorted and complete")
    })?;
    for instance in listed {
        let got = fine("get", h.provider().get(&h.account(), &instance.id).await)?;
        let (listed, got) = (Some(fixed(instance)), got.map(fixed));
        must(listed == got, || format!("listed {listed:?}, got {got:?}"))?;
    }
    let none = fine("get", h.provider().get(&h.account(), "i-never-made").await)?;
    must(none.is_none(), || {
        format!("an id that was never given shows {none:?}")
    })
}

pub(super) async fn scopes(h: &dyn Harness) -> Result<(), String> {
    let one = create(h, &h.order("conformance-scope-a")).await?;
    let two = create(h, &h.order("conformance-scope-b")).await?;
    let has = |list: &[Instance], id: &str| list.iter().any(|i| i.id == id);
    let all = list(h, &ListScope::Account).await?;
    must(has(&all, &one.id) && has(&all, &two.id), || {
        "the account's list lacks one".into()
    })?;
    let first = list(h, &ListScope::Cluster("conformance-scope-a".into())).await?;
    must(has(&first, &one.id) && !has(&first, &two.id), || {
        format!("a cluster's list is {first:?}")
    })?;
    let empty = list(h, &ListScope::Cluster("conformance-scope-none".into())).await?;
    must(empty.is_empty(), || {
        format!("a cluster without machines lists {empty:?}")
    })?;
    let Some(other) = h.other_account() else {
        return Ok(());
    };
    let others = fine("list", h.provider().list(&other, &ListScope::Account).await)?;
    must(!has(&others, &one.id), || {
        "another account lists what is not its own".into()
    })?;
    let got = fine("get", h.provider().get(&other, &one.id).await)?;
    must(got.is_none(), || {
        "another account shows what is not its own".into()
    })
}

pub(super) async fn delete(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-delete");
    let made = create(h, &order).await?;
    let (account, key) = (h.account(), &order.owner.instance_key);
    for what in ["delete", "delete again"] {
        fine(what, h.provider().delete(&account, &made.id, key).await)?;
    }
    if let Some(seen) = fine("get", h.provider().get(&account, &made.id).await)? {
        must(seen.state == InstanceState::Deleting, || {
            format!("after delete the state is {:?}", seen.state)
        })?;
    }
    gone(h, &made.id).await?;
    fine(
        "delete when gone",
        h.provider().delete(&account, &made.id, key).await,
    )?;
    fine(
        "delete what never was",
        h.provider().delete(&account, "i-never-made", key).await,
    )
}

pub(super) async fn delete_answer_lost(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-delete-lost");
    let made = create(h, &order).await?;
    let (account, key) = (h.account(), &order.owner.instance_key);
    if h.inject(Trouble::AnswerLost, "delete", &order.owner.machine)
        .await
    {
        ambiguous(h.provider().delete(&account, &made.id, key).await)?;
        must(h.happened(&order.owner.machine).await == 1, || {
            "the fault did not fire".into()
        })?;
    }
    fine("delete", h.provider().delete(&account, &made.id, key).await)?;
    gone(h, &made.id).await
}

pub(super) async fn foreign_key(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-foreign");
    let made = create(h, &order).await?;
    for key in ["", "0123456789abcdef0123456789abcdef"] {
        let result = h.provider().delete(&h.account(), &made.id, key).await;
        must(
            matches!(result, Err(ProviderError::Terminal { .. })),
            || format!("delete with the key {key:?} gave {result:?}"),
        )?;
    }
    let seen = fine("get", h.provider().get(&h.account(), &made.id).await)?;
    let lives = seen
        .as_ref()
        .is_some_and(|i| i.state != InstanceState::Deleting);
    must(lives, || format!("a delete with another key left {seen:?}"))
}

pub(super) async fn update(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-update");
    let made = create(h, &order).await?;
    let account = h.account();
    let before = h.in_place(&made.id).await;
    let change = UpdateInstance {
        config: h.changed_for_replacement(&h.changed_in_place(&order.config)),
        config_digest: order.config_digest.clone(),
        ..UpdateInstance::default()
    };
    match h.provider().update(&account, &made.id, &change).await {
        // A provider may refuse a change that needs a new instance, and then changes nothing.
        Err(ProviderError::Terminal { .. }) => {
            must(h.in_place(&made.id).await == before, || {
                "a refused update changed something".into()
            })?;
        }
        other => {
            fine("update", other)?;
        }
    }
    let change = UpdateInstance {
        config: h.changed_in_place(&order.config),
        config_digest: "digest-of-the-change".into(),
        ..UpdateInstance::default()
    };
    let changed = fine(
        "update",
        h.provider().update(&account, &made.id, &change).await,
    )?;
    let same = |i: &Instance| {
        (
            i.id.clone(),
            i.owner.clone(),
            i.instance_type.clone(),
            i.image.clone(),
            i.created,
        )
    };
    must(same(&changed) == same(&made), || {
        format!("was {made:?}, is {changed:?}")
    })?;
    // Whoever compares the digest with what is wanted must not ask for the same change for ever.
    let listed = with_key(h, &order.owner.instance_key).await?;
    let shown: Vec<_> = listed.iter().map(|i| i.config_digest.as_str()).collect();
    must(
        made.config_digest == order.config_digest
            && changed.config_digest == change.config_digest
            && shown == [change.config_digest.as_str()],
        || {
            format!(
                "the digest was {:?}, then {:?}, listed {shown:?}",
                made.config_digest, changed.config_digest
            )
        },
    )?;
    if before.is_some() {
        let after = h.in_place(&made.id).await;
        must(after != before, || {
            format!("the in-place field is still {after:?}")
        })?;
    }
    only_one(h, &order, &made.id).await?;
    match h.provider().update(&account, "i-never-made", &change).await {
        Err(ProviderError::NotFound { .. }) => Ok(()),
        other => Err(format!("update of what never was gave {other:?}")),
    }
}

pub(super) async fn settings(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-settings");
    let made = create(h, &order).await?;
    let shows = |instance: &Instance, config: &Value| {
        let config: ProviderConfig = config.as_object().cloned().unwrap_or_default().into();
        let (wanted, found) = (h.provider().settings(&config), &instance.settings);
        let both = |wanted: bool, same: bool| !wanted || same;
        let tags = wanted.tags.iter();
        let good = both(wanted.network.is_some(), wanted.network == found.network)
            && both(
                wanted.security_groups.is_some(),
                wanted.security_groups == found.security_groups,
            )
            && tags.clone().all(|(k, v)| found.tags.get(k) == Some(v));
        must(good, || format!("{wanted:?} is wanted, {found:?} is shown"))
    };
    shows(&made, &order.config)?;
    // Whoever writes the same again changes nothing; another's tags are not taken over.
    let mut change = UpdateInstance {
        owner: order.owner.clone(),
        config: h.changed_in_place(&order.config),
        config_digest: "digest-of-the-change".into(),
        ..UpdateInstance::default()
    };
    let account = h.account();
    for _ in 0..2 {
        let call = h.provider().update(&account, &made.id, &change).await;
        let changed = fine("update", call)?;
        shows(&changed, &change.config)?;
        must(changed.owner.as_ref() == Some(&order.owner), || {
            format!("the owner is {:?}", changed.owner)
        })?;
    }
    change.owner.instance_key = format!("{}-other", order.owner.instance_key);
    h.provider().update(&account, &made.id, &change).await.ok();
    only_one(h, &order, &made.id).await
}

pub(super) async fn refusals(h: &dyn Harness) -> Result<(), String> {
    let order = h.order("conformance-refused");
    let unknown = h.unknown_account();
    let refused = |what: &str, error: Option<ProviderError>| match error {
        Some(ProviderError::Terminal { .. } | ProviderError::Credentials { .. }) => Ok(()),
        other => Err(format!("{what} in an unknown account gave {other:?}")),
    };
    refused("create", h.provider().create(&unknown, &order).await.err())?;
    // An empty list would say that all machines are gone.
    refused(
        "list",
        h.provider().list(&unknown, &ListScope::Account).await.err(),
    )?;
    refused(
        "get",
        h.provider().get(&unknown, "i-never-made").await.err(),
    )?;
    let mut bad = order.clone();
    bad.config = h.bad_config();
    let result = h.provider().create(&h.account(), &bad).await;
    must(
        matches!(result, Err(ProviderError::Terminal { .. })),
        || format!("a bad configuration gave {result:?}"),
    )?;
    if let Some(full) = h.full_account().await {
        let result = h.provider().create(&full, &order).await;
        must(matches!(result, Err(ProviderError::Quota { .. })), || {
            format!("a used-up quota gave {result:?}")
        })?;
    }
    let left = with_key(h, &order.owner.instance_key).await?;
    must(left.is_empty(), || {
        format!("a refused create made {left:?}")
    })
}

pub(super) async fn passing(h: &dyn Harness) -> Result<(), String> {
    for trouble in [Trouble::Throttled, Trouble::NoCapacity] {
        let order = h.order("conformance-passing");
        let machine = &order.owner.machine;
        if !h.inject(trouble, "create", machine).await {
            continue;
        }
        let result = h.provider().create(&h.account(), &order).await;
        let right = match &result {
            Err(error @ ProviderError::Throttled { .. }) => {
                trouble == Trouble::Throttled && error.retry_after().is_some_and(|d| !d.is_zero())
            }
            Err(ProviderError::NoCapacity { .. }) => trouble == Trouble::NoCapacity,
            _ => false,
        };
        must(right, || format!("{trouble:?} gave {result:?}"))?;
        must(h.happened(machine).await == 1, || {
            format!("{trouble:?} did not fire")
        })?;
        let made = with_key(h, &order.owner.instance_key).await?;
        must(made.is_empty(), || format!("{trouble:?} made {made:?}"))?;
        let id = create(h, &order).await?.id;
        only_one(h, &order, &id).await?;
    }
    Ok(())
}
