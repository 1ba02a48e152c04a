//! The simulated cloud as an HTTP service of a process of its own.
//!
//! It listens on loopback addresses only and asks for no token: what it holds is simulated, and whoever runs it
//! types plain `curl`. So that no web page can reach it through a browser, requests with an `Origin` and requests
//! to a host name that is not this machine's are refused.
//!
//! - `POST /instances/{create|get|list|update|delete}`: the provider's calls. The answer is
//!   `{"result": …}` or `{"error": {"reason": …}}`. A call that a fault cuts off gets none: its connection is
//!   closed.
//! - `PATCH /instances/{id}`: somebody changes an instance by hand.
//! - `POST /faults` asks for one fault or a list of them, after those already there; `GET /faults` shows all, with
//!   how often each has fired; `DELETE /faults` forgets them.
//! - `PUT /latencies` says how long calls take, instead of what was said before; `GET /latencies` shows it,
//!   `DELETE /latencies` forgets it.
//! - `PUT /versions` says of which Kubernetes versions there are images; `GET /versions` shows it, `DELETE /versions` forgets it:
//!   then there are of all.
//! - `GET /etcd/{key}` shows the members of a cluster's etcd; `DELETE /etcd/{key}/{member}` removes one.
//! - `/clusters/{key}/…`: the API of a simulated cluster; `/clusters/{key}` tells whether it serves, `/clusters` which
//!   there are.

use std::{convert::Infallible, io, net::IpAddr, net::SocketAddr};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Request, State, rejection::BytesRejection},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use bytes::Bytes;
use fleetwright_apiserver::connections;
use fleetwright_providers::{
    ClusterRef, ConnectionError, EtcdMember, EtcdMembers, Provider, ProviderError,
};
use http::{HeaderMap, StatusCode, Uri, header, uri::PathAndQuery};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    cloud::Cloud,
    faults::Fault,
    latency::Latency,
    provider::CALLER,
    wire::{
        self, Answer, Create, Delete, FaultList, Get, LatencyList, List, Missing, Update, Versions,
    },
};

/// Largest body of a call, in bytes; those to a cluster's API have that API's own limit.
const MOST_BYTES: usize = 1 << 20;
/// Most faults or latencies in one request.
const MOST_LISTED: usize = 1000;

type Read = Result<Bytes, BytesRejection>;

/// Why the cloud does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is not of this machine alone.
    #[error(
        "the simulated cloud asks for no token and listens on loopback addresses only, not on {0}: use 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    /// The listener is broken.
    #[error("the listener has no address")]
    Listener(#[source] io::Error),
}

/// Marks an answer that must not be given: the connection is cut instead.
#[derive(Clone, Copy)]
struct Cut;

/// Why a connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a fault cuts the connection")]
struct CutOff;

/// Serves `cloud` until `stop` is cancelled; then closes all connections and returns. Time passes in the cloud
/// only while [`Cloud::run`] runs, which the caller starts beside this.
///
/// # Errors
/// When the listener's address is not a loopback address.
pub async fn serve(
    cloud: Cloud,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    allowed(listener.local_addr().map_err(ServeError::Listener)?)?;
    let router = router(cloud);
    connections::accept(listener, stop, |stream| {
        let router = router.clone();
        connections::answer(stream, move |request| {
            answer_one(router.clone(), request.map(Body::new))
        })
    })
    .await;
    Ok(())
}

/// Whether the cloud may listen there; to be asked before the address is bound, too.
///
/// # Errors
/// [`ServeError::NotLoopback`].
pub fn allowed(address: SocketAddr) -> Result<(), ServeError> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        Err(ServeError::NotLoopback(address))
    }
}

async fn answer_one(router: Router, request: Request) -> Result<Response, CutOff> {
    if !local(request.headers()) {
        let message =
            "the simulated cloud answers requests from this machine only, and none of web pages";
        return Ok(fail(StatusCode::FORBIDDEN, message));
    }
    let answer: Result<Response, Infallible> = router.oneshot(request).await;
    let answer = answer.unwrap_or_else(|never| match never {});
    if answer.extensions().get::<Cut>().is_some() {
        return Err(CutOff);
    }
    Ok(answer)
}

/// Whether a request names this machine and comes from no web page.
fn local(headers: &HeaderMap) -> bool {
    if headers.contains_key(header::ORIGIN) {
        return false;
    }
    let Some(host) = headers.get(header::HOST) else {
        return true; // no browser leaves it out
    };
    let host = host.to_str().unwrap_or_default();
    let Ok(uri) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = uri.host().trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn router(cloud: Cloud) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/instances/{which}", post(call).patch(alter))
        .route(
            "/faults",
            get(shown_faults).post(ask_faults).delete(forget_faults),
        )
        .route(
            "/latencies",
            get(shown_latencies)
                .put(set_latencies)
                .delete(forget_latencies),
        )
        .route(
            "/versions",
            get(shown_versions)
                .put(set_versions)
                .delete(forget_versions),
        )
        .route("/etcd/{key}", get(members))
        .route("/etcd/{key}/{member}", delete(remove_member))
        .route("/clusters", get(clusters))
        .route("/clusters/{key}", get(serves))
        .route("/clusters/{key}/{*rest}", any(cluster))
        .fallback(|uri: Uri| async move {
            let message = format!(
                "the simulated cloud has no {}: it has /instances/VERB, /faults, /latencies, /versions, /etcd/KEY, /clusters, /clusters/KEY and /healthz",
                uri.path()
            );
            fail(StatusCode::NOT_FOUND, &message)
        })
        .method_not_allowed_fallback(|| async {
            let message = "this path of the simulated cloud does not take this method";
            fail(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(cloud)
}

/// A mistake of the caller.
fn fail(status: StatusCode, message: &str) -> Response {
    let error = ProviderError::Terminal {
        message: message.to_owned(),
    };
    (status, Json(Answer::<()>::Error(error))).into_response()
}

fn answer<T: Serialize>(result: Result<T, ProviderError>) -> Response {
    let error = match result {
        Ok(value) => return Json(Answer::Result(value)).into_response(),
        Err(error) => error,
    };
    let status = match &error {
        // In the cloud itself only a fault loses an answer: so does the connection.
        ProviderError::Ambiguous { .. } => {
            let mut answer = StatusCode::INTERNAL_SERVER_ERROR.into_response();
            answer.extensions_mut().insert(Cut);
            return answer;
        }
        ProviderError::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
        ProviderError::Unavailable { .. } | ProviderError::NoCapacity { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ProviderError::Credentials { .. } => StatusCode::UNAUTHORIZED,
        ProviderError::Quota { .. } => StatusCode::FORBIDDEN,
        ProviderError::NotFound { .. } => StatusCode::NOT_FOUND,
        ProviderError::Terminal { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let after = error.retry_after();
    let mut answer = (status, Json(Answer::<()>::Error(error))).into_response();
    if let Some(after) = after {
        let seconds = after.as_secs_f64().ceil() as u64;
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// The body, or the refusal of one that is not of that form.
fn read<T: DeserializeOwned>(body: &Read) -> Result<T, Box<Response>> {
    let body = body.as_ref().map_err(|e| {
        let message =
            format!("the body cannot be read: {e}: a call has at most {MOST_BYTES} bytes");
        Box::new(fail(e.status(), &message))
    })?;
    serde_json::from_slice(body).map_err(|e| {
        let message = format!("the body cannot be read: {e}");
        Box::new(fail(StatusCode::BAD_REQUEST, &message))
    })
}

async fn health() -> &'static str {
    "ok"
}

async fn call(
    State(cloud): State<Cloud>,
    Path(verb): Path<String>,
    headers: HeaderMap,
    body: Read,
) -> Response {
    let caller = headers.get(wire::CALLER).and_then(|v| v.to_str().ok());
    CALLER
        .scope(caller.map(ToOwned::to_owned), perform(&cloud, &verb, &body))
        .await
        .unwrap_or_else(|refusal| *refusal)
}

async fn perform(cloud: &Cloud, verb: &str, body: &Read) -> Result<Response, Box<Response>> {
    Ok(match verb {
        "create" => {
            let Create { account, order } = read(body)?;
            answer(cloud.create(&account, &order).await)
        }
        "get" => {
            let Get { account, id } = read(body)?;
            answer(cloud.get(&account, &id).await)
        }
        "list" => {
            let list: List = read(body)?;
            answer(cloud.list(&list.account, &list.scope()).await)
        }
        "update" => {
            let asked: Update = read(body)?;
            answer(cloud.update(&asked.account, &asked.id, &asked.change).await)
        }
        "delete" => {
            let asked: Delete = read(body)?;
            let result = cloud
                .delete(&asked.account, &asked.id, &asked.instance_key)
                .await;
            answer(result)
        }
        "missing" => {
            let Missing { version, config } = read(body)?;
            answer(Ok(cloud.missing(&version, &config)))
        }
        _ => {
            let message = format!(
                "there is no call {verb:?}: the calls are create, get, list, update and delete"
            );
            fail(StatusCode::NOT_FOUND, &message)
        }
    })
}

/// A JSON Merge Patch of an instance's settings.
async fn alter(State(cloud): State<Cloud>, Path(id): Path<String>, body: Read) -> Response {
    match read::<Map<String, Value>>(&body) {
        Ok(change) => answer(cloud.alter(&id, &change).await),
        Err(refusal) => *refusal,
    }
}

async fn shown_faults(State(cloud): State<Cloud>) -> Json<FaultList> {
    Json(FaultList {
        faults: cloud.faults(),
    })
}

async fn forget_faults(State(cloud): State<Cloud>) -> Json<FaultList> {
    cloud.clear_faults();
    Json(FaultList { faults: Vec::new() })
}

/// One fault, a list, or what `GET /faults` shows.
async fn ask_faults(State(cloud): State<Cloud>, body: Read) -> Response {
    match listed::<Fault>(&body, "faults", "fault", Fault::check) {
        Ok(list) => {
            let faults = list.into_iter().map(|f| cloud.add_fault(f)).collect();
            (StatusCode::CREATED, Json(FaultList { faults })).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn shown_latencies(State(cloud): State<Cloud>) -> Json<LatencyList> {
    Json(LatencyList {
        latencies: cloud.latencies(),
    })
}

async fn forget_latencies(State(cloud): State<Cloud>) -> Json<LatencyList> {
    cloud.set_latencies(Vec::new());
    shown_latencies(State(cloud)).await
}

/// One latency, a list, or what `GET /latencies` shows.
async fn set_latencies(State(cloud): State<Cloud>, body: Read) -> Response {
    match listed::<Latency>(&body, "latencies", "latency", Latency::check) {
        Ok(list) => {
            cloud.set_latencies(list);
            shown_latencies(State(cloud)).await.into_response()
        }
        Err(refusal) => *refusal,
    }
}

/// One thing, a list of them, or an object with the list alone: all of them or, where one is wrong, none.
fn listed<T: DeserializeOwned>(
    body: &Read,
    list: &str,
    one: &str,
    check: fn(&T) -> Result<(), String>,
) -> Result<Vec<T>, Box<Response>> {
    let bad = |message: String| Box::new(fail(StatusCode::BAD_REQUEST, &message));
    let asked = match read::<Value>(body)? {
        Value::Array(all) => all,
        Value::Object(mut map) if map.len() == 1 && map.contains_key(list) => {
            match map.remove(list) {
                Some(Value::Array(all)) => all,
                _ => return Err(bad(format!("{list}: must be a list"))),
            }
        }
        single => vec![single],
    };
    if asked.len() > MOST_LISTED {
        return Err(bad(format!("{list}: at most {MOST_LISTED} in a request")));
    }
    let read = asked.into_iter().enumerate().map(|(n, value)| {
        let wrong = |e: String| bad(format!("{one} {n}: {e}"));
        if !value.is_object() {
            return Err(wrong(format!("it is an object, not {value}")));
        }
        let value = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        check(&value).map_err(wrong)?;
        Ok(value)
    });
    read.collect()
}

async fn shown_versions(State(cloud): State<Cloud>) -> Json<Versions> {
    Json(Versions {
        versions: cloud.versions(),
    })
}

async fn forget_versions(State(cloud): State<Cloud>) -> Json<Versions> {
    cloud.set_versions(None);
    shown_versions(State(cloud)).await
}

async fn set_versions(State(cloud): State<Cloud>, body: Read) -> Response {
    match read::<Versions>(&body) {
        Ok(Versions { versions }) => {
            cloud.set_versions(versions);
            shown_versions(State(cloud)).await.into_response()
        }
        Err(refusal) => *refusal,
    }
}

fn cluster_of(key: String) -> ClusterRef {
    ClusterRef {
        key,
        ..ClusterRef::default()
    }
}

/// Why etcd was not asked or refused, as an error that a client may try again after.
fn of_etcd<T>(result: Result<T, ConnectionError>) -> Result<T, ProviderError> {
    result.map_err(|e| ProviderError::Unavailable {
        message: e.to_string(),
    })
}

async fn members(State(cloud): State<Cloud>, Path(key): Path<String>) -> Response {
    if cloud.0.clusters.get(&key).is_none() {
        return answer(Ok(None::<Vec<EtcdMember>>));
    }
    answer(of_etcd(
        EtcdMembers::members(&cloud, &cluster_of(key))
            .await
            .map(Some),
    ))
}

async fn remove_member(
    State(cloud): State<Cloud>,
    Path((key, member)): Path<(String, String)>,
) -> Response {
    answer(of_etcd(
        EtcdMembers::remove(&cloud, &cluster_of(key), &member).await,
    ))
}

async fn clusters(State(cloud): State<Cloud>) -> Response {
    answer(Ok(cloud.clusters()))
}

async fn serves(State(cloud): State<Cloud>, Path(key): Path<String>) -> Response {
    let serves = cloud.0.clusters.get(&key).is_some();
    answer(Ok(json!({"serves": serves})))
}

/// A request to a cluster's API: the same request, without the part of the path that says which cluster.
async fn cluster(State(cloud): State<Cloud>, mut request: Request) -> Response {
    let path = request.uri().path();
    let inner = path.strip_prefix("/clusters/").unwrap_or_default();
    let (key, rest) = inner.split_once('/').unwrap_or((inner, ""));
    let key = key.to_owned();
    let query = request.uri().query();
    let inner = query.map_or_else(|| format!("/{rest}"), |q| format!("/{rest}?{q}"));
    let Ok(inner) = PathAndQuery::try_from(inner) else {
        return fail(StatusCode::BAD_REQUEST, "the path cannot be read");
    };
    *request.uri_mut() = inner.into();
    cloud.ask_cluster(&key, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_on_loopback_only() {
        assert!(allowed("127.0.0.1:1".parse().unwrap()).is_ok());
        assert!(allowed("[::1]:1".parse().unwrap()).is_ok());
        let text = allowed("0.0.0.0:1".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(text.ends_with("not on 0.0.0.0:1: use 127.0.0.1"), "{text}");
    }

    #[test]
    fn only_requests_of_this_machine_are_answered() {
        let cases = [
            (Some("127.0.0.1:80"), None, true),
            (Some("localhost:8080"), None, true),
            (Some("[::1]:8080"), None, true),
            (None, None, true),
            (Some("evil.example:8080"), None, false),
            (Some("127.0.0.1.evil.example"), None, false),
            (Some("10.0.0.1"), None, false),
            (Some("127.0.0.1:80"), Some("http://evil.example"), false),
        ];
        for (host, origin, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(local(&headers), expected, "{host:?} {origin:?}");
        }
    }
}
