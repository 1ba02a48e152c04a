//! What was asked of the server, counted.

use http::Method;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{ApiServer, handlers::Call};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

/// A server's counters; clones share their values.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    watch_events: Family<ResourceLabels, Counter>,
}

impl Metrics {
    /// A request of a kind was answered.
    pub(crate) fn answered(&self, call: &Call<'_>, method: &Method, code: u16) {
        let named = !call.target.name.is_empty();
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ if call.query.flag("watch") => "watch",
            _ if named => "get",
            _ => "list",
        };
        let labels = RequestLabels {
            verb,
            resource: call.kind.plural.clone(),
            // What is none has been refused: it must not become a label.
            subresource: match code {
                404 | 405 => String::new(),
                _ => call.target.subresource.clone(),
            },
            code,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// The counter of the events that watches of a resource are sent.
    pub(crate) fn watch_events(&self, resource: &str) -> Counter {
        let resource = resource.to_owned();
        let labels = ResourceLabels { resource };
        self.watch_events.get_or_create(&labels).clone()
    }
}

impl ApiServer {
    /// Lets the server's counters show up in `registry`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let Metrics {
            requests,
            watch_events,
        } = self.0.metrics.clone();
        registry.register(
            "api_requests",
            "Requests to the API by verb, resource, subresource and code of the answer",
            requests,
        );
        registry.register(
            "api_watch_events",
            "Events sent to watchers of the API, by resource",
            watch_events,
        );
        if let Some(audit) = &self.0.options.audit {
            registry.register(
                "audit_events_lost",
                "Requests that the audit log has no line of, because its disk was full or too slow",
                audit.lost(),
            );
        }
    }
}
