//! The metrics of an engine: each part registers its own.

use std::time::Duration;

use fleetwright_controllers::Metrics as Controllers;
use fleetwright_gitops::Metrics as Sync;
use fleetwright_webhook::Metrics as Forges;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The metrics of all parts; clones share their values.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) controllers: Controllers,
    pub(crate) sync: Sync,
    pub(crate) forges: Forges,
    pub(crate) pulls: Pulls,
    /// 1 while this engine works.
    pub(crate) leading: Gauge,
}

impl Metrics {
    /// Metrics that show up in `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let leading = Gauge::default();
        registry.register(
            "leader",
            "1 while this engine is the one that works",
            leading.clone(),
        );
        Self {
            controllers: Controllers::register(registry),
            sync: Sync::register(registry),
            forges: Forges::register(registry),
            pulls: Pulls::register(registry),
            leading,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlanLabels {
    result: &'static str,
}

/// From a small change to a first fetch of a large repository with a fleet of thousands.
fn durations() -> Histogram {
    Histogram::new([0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0])
}

/// The metrics of plans on pull requests.
#[derive(Clone)]
pub(crate) struct Pulls(Family<PlanLabels, Histogram, fn() -> Histogram>);

impl Pulls {
    fn register(registry: &mut Registry) -> Self {
        let plans = Self(Family::new_with_constructor(durations as fn() -> Histogram));
        registry.register(
            "pull_request_plan_duration_seconds",
            "Time to plan a pull request",
            plans.0.clone(),
        );
        plans
    }

    /// A pull request was planned: to the word of the plan's status, or not to the end.
    pub(crate) fn planned(&self, result: &'static str, took: Duration) {
        let seconds = self.0.get_or_create(&PlanLabels { result });
        seconds.observe(took.as_secs_f64());
    }
}
