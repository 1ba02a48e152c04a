//! What comes from forges and goes to them, counted and measured.

use std::time::Duration;

use fleetwright_api::fleet::ForgeType;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    forge: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PostLabels {
    forge: &'static str,
    result: &'static str,
}

/// From an answer out of memory to the longest wait for a forge.
fn durations() -> Histogram {
    Histogram::new([0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of receivers and outbox; clones share their values.
#[derive(Clone)]
pub struct Metrics {
    deliveries: Durations<DeliveryLabels>,
    posts: Durations<PostLabels>,
    waiting: Gauge,
}

impl Metrics {
    /// Metrics that show up in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            deliveries: Family::new_with_constructor(durations as fn() -> Histogram),
            posts: Family::new_with_constructor(durations as fn() -> Histogram),
            waiting: Gauge::default(),
        };
        registry.register(
            "webhook_delivery_duration_seconds",
            "Time to answer webhooks",
            metrics.deliveries.clone(),
        );
        registry.register(
            "commit_status_post_duration_seconds",
            "Time to post commit statuses to forges",
            metrics.posts.clone(),
        );
        registry.register(
            "commit_statuses_waiting",
            "Commit statuses that their forge does not have yet",
            metrics.waiting.clone(),
        );
        metrics
    }

    /// A webhook of such a forge was answered with this code.
    pub(crate) fn delivered(&self, forge: ForgeType, code: u16, took: Duration) {
        let forge = forge.as_str();
        let labels = DeliveryLabels { forge, code };
        let seconds = self.deliveries.get_or_create(&labels);
        seconds.observe(took.as_secs_f64());
    }

    /// A status was posted to such a forge, or not, and why.
    pub(crate) fn posted(&self, forge: ForgeType, result: &'static str, took: Duration) {
        let forge = forge.as_str();
        let labels = PostLabels { forge, result };
        let seconds = self.posts.get_or_create(&labels);
        seconds.observe(took.as_secs_f64());
    }

    /// So many statuses wait.
    pub(crate) fn wait(&self, statuses: usize) {
        self.waiting
            .set(i64::try_from(statuses).unwrap_or(i64::MAX));
    }
}
