//! The audit log: who asked for what, as lines of `audit.k8s.io/v1` Events at level Metadata.
//!
//! Written down is what may change something, what was refused because of who asked, and, of what comes over the network, what shows
//! Secrets. Other reads are not: they are most of all requests, and controllers live by them. Never is there anything of a body.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use fleetwright_api::random::Random;
use fleetwright_api::time::Clock;
use http::{HeaderValue, Method, Uri, request::Parts};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Map, Value, json};

use crate::journal::Journal;
use crate::request::Target;
use crate::{Result, User, access::Action};

/// Longest text that comes from a request, in characters.
const LONGEST: usize = 1_024;
/// Groups of a user that are named.
const GROUPS: usize = 32;

/// An audit log on a file.
pub struct Audit {
    journal: Journal,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

/// Where a request comes from; an extension of requests that come over the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The name of what a request makes, which its path does not say; an extension of answers.
#[derive(Clone, Debug)]
pub(crate) struct Named(pub(crate) String);

/// What is kept of a request until it is answered.
pub(crate) struct Asked {
    at: Timestamp,
    method: Method,
    uri: Uri,
    agent: Option<HeaderValue>,
    peer: Option<IpAddr>,
}

/// Who made a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who {
    /// Whose token it was; `None` where it was nobody's.
    pub(crate) user: Option<User>,
    /// As whom it was made, if not as that.
    pub(crate) impersonated: Option<User>,
    /// Whether that user may; `None` where it did not come to that.
    pub(crate) allowed: Option<bool>,
}

impl Audit {
    /// Goes on with the log at `path`; it is put aside as `PATH.1` and so on when it has 64 MiB, and nine of those are kept.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Self> {
        let (now, chance) = (Arc::clone(&clock), Arc::clone(&random));
        let lost = move |events: u64| {
            let at = micros(now.now());
            json!({
                "apiVersion": "audit.k8s.io/v1", "kind": "Event", "level": "Metadata", "stage": "Panic",
                "auditID": chance.uuid(), "requestURI": "", "verb": "",
                "user": user(&User::engine()),
                "requestReceivedTimestamp": at, "stageTimestamp": at,
                "annotations": {"fleetwright.dev/lost-events": events.to_string()},
            })
            .to_string()
        };
        Ok(Self {
            journal: Journal::open(path, lost)?,
            clock,
            random,
        })
    }

    /// How many events could not be written.
    pub(crate) fn lost(&self) -> Counter {
        self.journal.lost()
    }

    /// Begins with a request.
    pub(crate) fn asked<B>(&self, request: &http::Request<B>) -> Asked {
        Asked {
            at: self.clock.now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            agent: request.headers().get(http::header::USER_AGENT).cloned(),
            peer: request.extensions().get::<Peer>().map(|peer| peer.0),
        }
    }

    /// Writes down a request that was answered, if it is one of those that count.
    pub(crate) fn answered<B>(&self, asked: Asked, who: &Who, answer: &http::Response<B>) {
        let code = answer.status().as_u16();
        if !counts(&asked.method, asked.uri.path(), asked.peer.is_some(), code) {
            return;
        }
        let named = answer.extensions().get::<Named>();
        let mut event = event(asked, who, code, named.map(|named| named.0.as_str()));
        event.insert("auditID".to_owned(), self.random.uuid().into());
        let now = micros(self.clock.now());
        event.insert("stageTimestamp".to_owned(), now.into());
        self.journal.write(Value::Object(event).to_string());
    }
}

/// Whether a request that was answered with `code` is written down.
fn counts(method: &Method, path: &str, by_network: bool, code: u16) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !reads || matches!(code, 401 | 403) {
        return true;
    }
    if !by_network {
        return false;
    }
    let secrets = || Target::parse(path).is_some_and(|t| t.resource == "secrets");
    // Most paths need not be taken apart.
    path == crate::BACKUP_PATH || (path.contains("secrets") || path.contains('%')) && secrets()
}

/// All of an event but its id and its end.
fn event(asked: Asked, who: &Who, code: u16, named: Option<&str>) -> Map<String, Value> {
    let mut request = http::Request::new(());
    *request.method_mut() = asked.method;
    *request.uri_mut() = asked.uri;
    let (parts, ()) = request.into_parts();
    let action = Action::of(&parts);
    let watches = action.watches();
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    put("apiVersion", "audit.k8s.io/v1".into());
    put("kind", "Event".into());
    put("level", "Metadata".into());
    // A watch goes on after its answer has begun.
    put(
        "stage",
        if watches {
            "ResponseStarted"
        } else {
            "ResponseComplete"
        }
        .into(),
    );
    put("requestURI", cut(&parts.uri.to_string()).into());
    put("requestReceivedTimestamp", micros(asked.at).into());
    put("responseStatus", json!({"metadata": {}, "code": code}));
    put("user", who.user.as_ref().map_or_else(|| json!({}), user));
    if let Some(other) = &who.impersonated {
        put("impersonatedUser", user(other));
    }
    if let Some(peer) = asked.peer {
        put("sourceIPs", json!([peer.to_string()]));
    }
    if let Some(agent) = asked.agent.as_ref().and_then(|agent| agent.to_str().ok()) {
        put("userAgent", cut(agent).into());
    }
    if let Some(allowed) = who.allowed {
        let decision = if allowed { "allow" } else { "forbid" };
        put(
            "annotations",
            json!({"authorization.k8s.io/decision": decision}),
        );
    }
    match action {
        Action::Path { verb, .. } => put("verb", verb.into()),
        Action::Resource { verb, .. } => {
            put("verb", verb.into());
            put("objectRef", reference(&parts, named));
        }
    }
    event
}

/// What a request is about.
fn reference(parts: &Parts, named: Option<&str>) -> Value {
    let target = Target::parse(parts.uri.path()).unwrap_or_default();
    let name = match target.name.as_str() {
        "" => named.unwrap_or_default(),
        name => name,
    };
    let texts = [
        ("apiGroup", target.group.as_str()),
        ("apiVersion", target.version.as_str()),
        ("resource", target.resource.as_str()),
        ("subresource", target.subresource.as_str()),
        ("namespace", target.namespace.as_str()),
        ("name", name),
    ];
    let said = texts.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(field, text)| (field.to_owned(), Value::from(cut(text))))
        .collect()
}

fn user(user: &User) -> Value {
    let groups: Vec<String> = user.groups.iter().take(GROUPS).map(|g| cut(g)).collect();
    let mut value = json!({"username": cut(&user.name), "groups": groups});
    if !user.uid.is_empty() {
        value["uid"] = cut(&user.uid).into();
    }
    value
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// A time as Kubernetes' `MicroTime`.
fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_what_is_refused_and_what_shows_secrets_is_written_down() {
        let (pods, secrets) = ("/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/secrets");
        // Method, path, over the network, code, whether it is written down.
        let table = [
            ("POST", pods, false, 201, true),
            ("PATCH", pods, true, 200, true),
            ("PUT", pods, true, 500, true),
            ("DELETE", pods, true, 404, true),
            ("POST", "/no/path", true, 404, true),
            ("GET", pods, true, 200, false),
            ("GET", pods, true, 403, true),
            ("GET", "/healthz", true, 401, true),
            ("GET", secrets, true, 200, true),
            ("HEAD", secrets, true, 200, true),
            ("GET", "/api/v1/secrets?watch=true", true, 200, true),
            ("GET", "/api/v1/namespaces/a/%73ecrets/x", true, 200, true),
            ("GET", secrets, false, 200, false),
            ("GET", "/api/v1/namespaces/secrets/pods", true, 200, false),
            ("GET", crate::BACKUP_PATH, true, 200, true),
            ("GET", crate::BACKUP_PATH, false, 200, false),
        ];
        for (method, uri, by_network, code, wanted) in table {
            let uri: Uri = uri.parse().unwrap();
            let method = method.parse().unwrap();
            let written = counts(&method, uri.path(), by_network, code);
            assert_eq!(written, wanted, "{method} {uri} {code}");
        }
    }

    #[test]
    fn what_a_request_says_is_cut() {
        let asked = Asked {
            at: Timestamp::from_microsecond(1_790_000_000_000_007).unwrap(),
            method: Method::POST,
            uri: format!("/api/v1/namespaces/a/pods?x={}", "y".repeat(4_000))
                .parse()
                .unwrap(),
            agent: Some(HeaderValue::from_str(&"z".repeat(4_000)).unwrap()),
            peer: None,
        };
        let mut admin = User::admin();
        admin.groups = vec!["g".repeat(4_000); 4_000];
        let who = Who {
            user: Some(admin),
            ..Who::default()
        };
        let event = Value::Object(event(asked, &who, 201, Some("p")));
        assert_eq!(
            event["requestReceivedTimestamp"],
            "2026-09-21T14:13:20.000007Z"
        );
        assert_eq!(
            event["objectRef"],
            json!({"apiVersion": "v1", "resource": "pods", "namespace": "a", "name": "p"})
        );
        assert!(event.to_string().len() < 40_000);
    }
}
