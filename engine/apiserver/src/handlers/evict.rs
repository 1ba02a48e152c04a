//! Eviction of pods within their disruption budgets.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::Call;
use super::create::check_namespace_exists;
use super::delete::{Options, remove};
use super::read::parsed;
use crate::error::{ApiError, ApiResult, Cause, respond};
use crate::object::{deleting, text};
use crate::selector::Selector;

pub(crate) async fn evict(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let eviction = if call.body.is_empty() {
        Value::Null
    } else {
        call.value()?.0
    };
    let name = text(&eviction, "name");
    if !name.is_empty() && name != call.target.name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    // An eviction is something new in its namespace.
    check_namespace_exists(call, &call.target.name)?;
    let mut options = Options::nested(&eviction["deleteOptions"])?;
    options.dry |= call.dry_run();
    let (pod, _) = call.live()?;
    let counted = !deleting(&pod)
        && !matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
    if counted {
        check_budgets(call, &pod)?;
    }
    let key = call.key(&call.target.name);
    remove(call.server, call.kind, &key, &options).await?;
    Ok(respond(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

fn check_budgets(call: &Call<'_>, pod: &Value) -> ApiResult<()> {
    let store = &call.server.0.store;
    let namespace = &call.target.namespace;
    let (budgets, _) = store.range(
        &format!("/policy/poddisruptionbudgets/{namespace}/"),
        None,
        0,
    );
    let (pods, _) = store.range(&call.scope(), None, 0);
    let mut others = 0;
    for entry in budgets {
        let Some(budget) = parsed(&entry.value.bytes()) else {
            continue;
        };
        let selector = Selector::of_labels(&budget["spec"]["selector"]);
        if !budget["spec"]["selector"].is_object() || !selector.matches(pod) {
            continue;
        }
        others += 1;
        if others > 1 {
            let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::new(500, "InternalError", text));
        }
        let all: Vec<Value> = pods
            .iter()
            .filter_map(|e| parsed(&e.value.bytes()))
            .filter(|p| selector.matches(p))
            .collect();
        let healthy = i64::try_from(all.iter().filter(|p| !deleting(p) && ready(p)).count())
            .unwrap_or(i64::MAX);
        // What should run: the budget's status says it when a controller keeps it, else what is there.
        let there = i64::try_from(all.len()).unwrap_or(i64::MAX);
        let expected = budget["status"]["expectedPods"]
            .as_i64()
            .unwrap_or(0)
            .max(there);
        let needed = if budget["spec"]["maxUnavailable"].is_null() {
            amount(&budget["spec"]["minAvailable"], expected)
        } else {
            expected - amount(&budget["spec"]["maxUnavailable"], expected)
        };
        let name = text(&budget, "name");
        let lowers = i64::from(ready(pod));
        if lowers == 1 && healthy - lowers < needed {
            let text = format!(
                "The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
            );
            let cause = Cause::new("DisruptionBudget", "", text);
            return Err(ApiError::new(
                429,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
            )
            .with_causes(&[cause]));
        }
    }
    Ok(())
}

/// A pod counts as healthy when its Ready condition is True.
fn ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A number or a percentage of `of`, rounded up.
fn amount(value: &Value, of: i64) -> i64 {
    match value {
        Value::Number(number) => number.as_i64().unwrap_or(0),
        Value::String(text) => text
            .strip_suffix('%')
            .and_then(|p| p.parse::<i64>().ok())
            .map_or(0, |percent| (percent * of + 99) / 100),
        _ => 0,
    }
}
