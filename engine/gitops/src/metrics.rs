//! How long the stages of a look at a Fleet take, and when each Fleet was last looked at to the end.

use fleetwright_api::Fleet;
use jiff::Timestamp;
use kube::ResourceExt;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FleetLabels {
    namespace: String,
    fleet: String,
}

/// From a look that finds nothing new to a first clone of a large repository.
fn durations() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0,
    ])
}

/// A part of a look.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// The source says its revision, and gives it.
    Fetch,
    /// Its files are read and checked.
    Load,
    /// What the API holds is listed.
    Gather,
    /// Both are compared.
    Plan,
    /// The difference is written.
    Apply,
    /// What has converged is told.
    Settle,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Load => "load",
            Self::Gather => "gather",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Settle => "settle",
        }
    }
}

/// The metrics of the sync; clones share their values.
#[derive(Clone)]
pub struct Metrics {
    seconds: Family<StageLabels, Histogram, fn() -> Histogram>,
    looked: Family<FleetLabels, Gauge>,
}

impl Metrics {
    /// Metrics that show up in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            seconds: Family::new_with_constructor(durations as fn() -> Histogram),
            looked: Family::default(),
        };
        registry.register(
            "sync_stage_duration_seconds",
            "Duration of the stages of looks at Fleets",
            metrics.seconds.clone(),
        );
        registry.register(
            "fleet_last_look_timestamp_seconds",
            "When the Fleet was last looked at to the end, in seconds since 1970",
            metrics.looked.clone(),
        );
        metrics
    }

    /// Those of one Fleet.
    pub(crate) fn of(&self, fleet: &Fleet) -> FleetMetrics {
        FleetMetrics {
            metrics: self.clone(),
            labels: FleetLabels {
                namespace: fleet.namespace().unwrap_or_default(),
                fleet: fleet.name_any(),
            },
        }
    }
}

/// The metrics of one Fleet. What is told of it alone goes with this.
pub(crate) struct FleetMetrics {
    metrics: Metrics,
    labels: FleetLabels,
}

impl FleetMetrics {
    /// Measures a stage.
    pub(crate) async fn stage<T, E>(
        &self,
        stage: Stage,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let result = work.await;
        self.took(stage, begun, result.is_ok());
        result
    }

    /// A stage that began then has ended, well or not.
    pub(crate) fn took(&self, stage: Stage, begun: Instant, well: bool) {
        let labels = StageLabels {
            stage: stage.as_str(),
            result: if well { "ok" } else { "error" },
        };
        let seconds = self.metrics.seconds.get_or_create(&labels);
        seconds.observe(begun.elapsed().as_secs_f64());
    }

    /// The Fleet was looked at to the end.
    pub(crate) fn looked(&self, now: Timestamp) {
        let looked = self.metrics.looked.get_or_create(&self.labels);
        looked.set(now.as_second());
    }
}

impl Drop for FleetMetrics {
    fn drop(&mut self) {
        self.metrics.looked.remove(&self.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_fleet_goes_with_it() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let mut fleet = Fleet::new("a", Default::default());
        fleet.metadata.namespace = Some("n".into());
        let of = metrics.of(&fleet);
        of.looked("1970-01-02T00:00:00Z".parse().unwrap());
        of.took(Stage::Plan, Instant::now(), false);
        let shown = text(&registry);
        let look = "fleet_last_look_timestamp_seconds{namespace=\"n\",fleet=\"a\"} 86400\n";
        assert!(shown.contains(look), "{shown}");
        let plan = "sync_stage_duration_seconds_count{stage=\"plan\",result=\"error\"} 1\n";
        assert!(shown.contains(plan), "{shown}");
        drop(of);
        let shown = text(&registry);
        assert!(!shown.contains(look) && shown.contains(plan), "{shown}");
    }
}
