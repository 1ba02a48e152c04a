//! Counts and durations, with their units in their names.

use fleetwright_api::drift::DriftKind;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

fn durations() -> Histogram {
    Histogram::new([
        0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0,
    ])
}

/// From an answer of a cloud on this machine to one that is waited for no longer.
fn calls() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}

/// The controllers' metrics; clones share their values.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<ReconcileLabels, Counter>,
    seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<VerbLabels, Histogram, fn() -> Histogram>,
    queue: Gauge,
    drift: Family<KindLabels, Gauge>,
}

impl Metrics {
    /// Metrics that show up in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            seconds: Family::new_with_constructor(durations as fn() -> Histogram),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(calls as fn() -> Histogram),
            queue: Gauge::default(),
            drift: Family::default(),
        };
        registry.register(
            "reconciles",
            "Reconciles by controller and result",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of reconciles",
            metrics.seconds.clone(),
        );
        registry.register(
            "provider_calls",
            "Calls to providers by verb and outcome",
            metrics.calls.clone(),
        );
        registry.register(
            "provider_call_duration_seconds",
            "Duration of calls to providers",
            metrics.call_seconds.clone(),
        );
        registry.register(
            "work_queue_keys",
            "Keys that wait to be reconciled",
            metrics.queue.clone(),
        );
        registry.register(
            "drift_findings",
            "Things of machines and clusters that differ though nobody declared it, by kind",
            metrics.drift.clone(),
        );
        metrics
    }

    pub(crate) fn reconciled(&self, controller: &'static str, result: &'static str, seconds: f64) {
        self.reconciles
            .get_or_create(&ReconcileLabels { controller, result })
            .inc();
        self.seconds
            .get_or_create(&ControllerLabels { controller })
            .observe(seconds);
    }

    pub(crate) fn called(&self, verb: &'static str, outcome: &'static str, seconds: f64) {
        self.calls
            .get_or_create(&CallLabels { verb, outcome })
            .inc();
        self.call_seconds
            .get_or_create(&VerbLabels { verb })
            .observe(seconds);
    }

    /// So many things more of a kind differ.
    pub(crate) fn drifted(&self, kind: DriftKind, more: i64) {
        let kind = kind.as_str();
        self.drift.get_or_create(&KindLabels { kind }).inc_by(more);
    }

    pub(crate) fn queued(&self, keys: usize) {
        self.queue.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }
}
