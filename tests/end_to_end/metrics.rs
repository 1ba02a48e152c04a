//! What an engine counts and measures of all stages, from a commit to machines and statuses, and that the page says so.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    forge::commit,
    kit::{Engine, fleet, send},
    pulls::Scene,
};

const PAGE: &str = include_str!("../../docs/metrics.md");
/// Shown while something drifts, and by an engine with an API of its own.
const SELDOM: [&str; 3] = [
    "fleetwright_drift_findings",
    "fleetwright_api_requests_total",
    "fleetwright_api_watch_events_total",
];

/// A metric: its type, its labels, and the counts of its series by their labels.
#[derive(Debug, Default, PartialEq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    values: BTreeMap<String, f64>,
}

async fn scraped(engine: &Engine) -> BTreeMap<String, Metric> {
    let (status, text) = send("GET", &engine.process.told("metrics"), &[], "").await;
    assert!(status.contains(" 200"), "{status}");
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            let kind = kind.to_owned();
            let metric = Metric {
                kind,
                ..Metric::default()
            };
            all.insert(format!("{name}{suffix}"), metric);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if name.ends_with("_bucket") || name.ends_with("_sum") {
                continue;
            }
            let labels = labels.trim_end_matches('}');
            let metric = all.get_mut(name.trim_end_matches("_count")).unwrap();
            let names = labels.split(',').filter_map(|l| l.split_once('='));
            metric.labels.extend(names.map(|(name, _)| name.to_owned()));
            metric
                .values
                .insert(labels.to_owned(), value.parse().unwrap());
        }
    }
    all
}

/// The rows of the page: type and labels by name.
fn page() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = PAGE.lines().filter(|l| l.starts_with("| `fleetwright_"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|l| l.trim().trim_matches('`'));
        let labels = labels.filter(|l| !l.is_empty()).map(str::to_owned);
        let name = cells[1].trim_matches('`').to_owned();
        (name, (cells[2].to_owned(), labels.collect()))
    };
    rows.map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_is_counted_once_a_commit_went_through() {
    let mut scene = Scene::new().await;
    let first = commit(&scene.work(), &fleet("v1.33.2", Some(1)));
    let engine = scene.engine().await;
    scene.forge.until(&first, "success").await;
    let head = scene
        .propose(&first, &fleet("v1.33.3", Some(1)), Some(&engine))
        .await;
    scene.forge.until_planned(&head, "success").await;

    let all = scraped(&engine).await;
    let count = |name: &str, labels: &str| {
        let series = &all[name].values;
        series.get(labels).copied().unwrap_or_default()
    };
    for stage in ["fetch", "load", "gather", "plan", "apply", "settle"] {
        let labels = format!("stage=\"{stage}\",result=\"ok\"");
        let n = count("fleetwright_sync_stage_duration_seconds", &labels);
        assert!(n > 0.0, "{stage}: {all:#?}");
    }
    for (name, labels) in [
        (
            "fleetwright_webhook_delivery_duration_seconds",
            "forge=\"github\",code=\"202\"",
        ),
        (
            "fleetwright_commit_status_post_duration_seconds",
            "forge=\"github\",result=\"Ok\"",
        ),
        (
            "fleetwright_pull_request_plan_duration_seconds",
            "result=\"success\"",
        ),
        (
            "fleetwright_provider_call_duration_seconds",
            "verb=\"create\"",
        ),
        (
            "fleetwright_provider_call_duration_seconds",
            "verb=\"list\"",
        ),
        (
            "fleetwright_provider_calls_total",
            "verb=\"create\",outcome=\"Ok\"",
        ),
        (
            "fleetwright_reconcile_duration_seconds",
            "controller=\"machine\"",
        ),
        ("fleetwright_leader", ""),
    ] {
        assert!(count(name, labels) > 0.0, "{name}{{{labels}}}: {all:#?}");
    }
    let look = count(
        "fleetwright_fleet_last_look_timestamp_seconds",
        "namespace=\"default\",fleet=\"default\"",
    );
    assert!(look > 1_700_000_000.0, "{look}");

    let shown: BTreeMap<_, _> = all
        .into_iter()
        .map(|(name, metric)| (name, (metric.kind, metric.labels)))
        .collect();
    let mut page = page();
    for name in SELDOM.iter().filter(|name| !shown.contains_key(**name)) {
        assert!(page.remove(*name).is_some(), "{name}");
    }
    assert_eq!(shown, page, "what is counted (left) and the page");
}
