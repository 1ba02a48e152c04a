//! The wires between the engine and the APIs: they take time, break, and lose answers.

use std::{io, sync::Arc, time::Duration};

use axum::body::Body;
use fleetwright_apiserver::{ApiServer, User};
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body as Asked;
use serde_json::json;

use crate::{
    life::Life,
    weather::{Kind, Weather},
};

/// Longest life of a watch that is cut.
const CUT_AFTER: u64 = 120_000;

/// What follows a request that was carried out: whoever looks on, looks now.
pub(crate) type After = Arc<dyn Fn() + Send + Sync>;

/// Told of each request of the engine to our API that is meant to change something, whatever comes of it.
pub(crate) type Heard = Arc<dyn Fn(&Method, &str) + Send + Sync>;

/// The engine's client of our API.
pub(crate) fn client(
    server: ApiServer,
    life: Arc<Life>,
    weather: Arc<Weather>,
    after: After,
    heard: Heard,
) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Asked>| {
        if request.method() != Method::GET {
            heard(request.method(), request.uri().path());
        }
        let (server, weather, after) = (server.clone(), Arc::clone(&weather), Arc::clone(&after));
        let stays = Arc::clone(&life);
        let call = async move {
            let ask = |request: Request<Asked>| async {
                let answer = server.handle(User::admin(), request).await;
                after();
                answer
            };
            carry(&weather, &stays, request, ask).await
        };
        life.guard(call)
    });
    kube::Client::new(service, "default")
}

async fn carry<F, A>(
    weather: &Weather,
    life: &Arc<Life>,
    request: Request<Asked>,
    ask: F,
) -> io::Result<Response<Body>>
where
    F: FnOnce(Request<Asked>) -> A,
    A: Future<Output = Response<Body>>,
{
    let watches = request.uri().query().is_some_and(|q| q.contains("watch="));
    let writes = request.method() != Method::GET;
    tokio::time::sleep(weather.millis(0, 4)).await;
    if watches {
        if weather.hits(Kind::WatchGone) {
            let line = json!({"type": "ERROR", "object": refusal(410, "Expired", "too old resource version")});
            return Ok(Response::new(Body::from(format!("{line}\n"))));
        }
        let cut = weather
            .hits(Kind::WatchCut)
            .then(|| weather.millis(0, CUT_AFTER));
        let answer = ask(request).await;
        let (head, body) = answer.into_parts();
        let stream = body.into_data_stream();
        let body = match cut {
            Some(after) => {
                let cut = Box::pin(tokio::time::sleep(after));
                Body::from_stream(life.guard_stream(stream.take_until(cut)))
            }
            None => Body::from_stream(life.guard_stream(stream)),
        };
        return Ok(Response::from_parts(head, body));
    }
    if weather.hits(Kind::ApiError) {
        let [internal, busy, gone] = [
            (500, "InternalError"),
            (503, "ServiceUnavailable"),
            (429, "TooManyRequests"),
        ];
        let (code, reason) = if weather.yes(500) {
            internal
        } else if weather.yes(500) {
            busy
        } else {
            gone
        };
        return Ok(status(code, reason, "the weather is bad"));
    }
    if writes && weather.hits(Kind::ApiConflict) {
        return Ok(status(409, "Conflict", "the object has been modified"));
    }
    if weather.hits(Kind::ApiTimeout) {
        let done = weather.yes(500);
        if done {
            ask(request).await;
        }
        tokio::time::sleep(weather.millis(5_000, 40_000)).await;
        return Ok(status(504, "Timeout", "the request timed out"));
    }
    let lost = weather.hits(Kind::ApiAnswerLost);
    let answer = ask(request).await;
    tokio::time::sleep(weather.millis(0, 3)).await;
    if lost {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the connection was cut",
        ));
    }
    Ok(answer)
}

fn refusal(code: u16, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(refusal(code, reason, message).to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    answer
}

/// Told of each request of the engine to a workload cluster, and of the code of its answer.
pub(crate) type Overheard = Arc<dyn Fn(&str, &Method, &str, u16) + Send + Sync>;

/// The engine's client of a workload cluster's API.
pub(crate) fn workload(
    inner: kube::Client,
    key: &str,
    life: Arc<Life>,
    weather: Arc<Weather>,
    overheard: Overheard,
) -> kube::Client {
    let key = key.to_owned();
    let service = tower::service_fn(move |request: Request<Asked>| {
        let (inner, key) = (inner.clone(), key.clone());
        let (weather, overheard) = (Arc::clone(&weather), Arc::clone(&overheard));
        let stays = Arc::clone(&life);
        let call = async move {
            let broken =
                || io::Error::new(io::ErrorKind::TimedOut, "the cluster cannot be reached");
            tokio::time::sleep(weather.millis(0, 4)).await;
            if weather.is_cut(&key) {
                tokio::time::sleep(Duration::from_secs(5)).await;
                weather.count(Kind::Unreachable, 1);
                return Err(broken());
            }
            let watches = request.uri().query().is_some_and(|q| q.contains("watch="));
            if !watches && weather.hits(Kind::WorkloadError) {
                return Ok(status(500, "InternalError", "the cluster's etcd is slow"));
            }
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let answer = inner.send(request).await.map_err(io::Error::other)?;
            overheard(&key, &method, &path, answer.status().as_u16());
            let (head, body) = answer.into_parts();
            let body = Body::new(body);
            if !watches {
                return Ok(Response::from_parts(head, body));
            }
            let cut = weather.until_cut(&key);
            let stream = body
                .into_data_stream()
                .take_until(Box::pin(cut.cancelled_owned()));
            let body = Body::from_stream(stays.guard_stream(stream));
            Ok(Response::from_parts(head, body))
        };
        life.guard(call)
    });
    kube::Client::new(service, "default")
}
