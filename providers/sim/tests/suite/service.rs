//! The HTTP service itself: what is cut, what is refused, what is shown.

use fleetwright_provider_sim::{ConnectError, FaultEffect, RemoteCloud};
use fleetwright_providers::{ListScope, Provider, ProviderError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::kit::{Kit, account, order};

/// Sends a request as it is; gives all that comes back until the service closes the connection.
async fn raw(kit: &Kit, request: &str) -> String {
    let url = kit.remote.url();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).unwrap()
}

async fn send(kit: &Kit, method: &str, path: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(kit, &request).await;
    if answer.is_empty() {
        return (0, Value::Null);
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn faults_cut_the_connection_without_an_answer() {
    let kit = Kit::start().await;
    let body = |machine: &str| {
        json!({"account": account(), "order": order("c1", machine, true)}).to_string()
    };
    for (machine, effect, there) in [("lost", "requestLost", 0), ("made", "answerLost", 1)] {
        let fault = json!({"effect": effect, "verb": "create", "machine": machine}).to_string();
        let (code, asked) = send(&kit, "POST", "/faults", &fault).await;
        assert_eq!(code, 201);
        assert_eq!(
            (&asked["faults"][0]["fired"], &asked["faults"][0]["count"]),
            (&json!(0), &json!(1))
        );
        let (code, _) = send(&kit, "POST", "/instances/create", &body(machine)).await;
        assert_eq!(code, 0, "{effect}: not a byte comes back");
        let (_, shown) = send(&kit, "GET", "/faults", "").await;
        let shown = shown["faults"].as_array().unwrap();
        let fired = shown
            .iter()
            .find(|f| f["id"] == asked["faults"][0]["id"])
            .unwrap();
        assert_eq!(
            (&fired["fired"], &fired["count"]),
            (&json!(1), &json!(0)),
            "{effect}"
        );
        let list = kit
            .remote
            .list(&account(), &ListScope::Account)
            .await
            .unwrap();
        let ours =
            |i: &&fleetwright_providers::Instance| i.owner.as_ref().unwrap().machine == machine;
        assert_eq!(list.iter().filter(ours).count(), there, "{effect}");
    }
    let (code, left) = send(&kit, "DELETE", "/faults", "").await;
    assert_eq!((code, left), (200, json!({"faults": []})));
}

#[tokio::test]
async fn mistakes_are_named() {
    let kit = Kit::start().await;
    let long = format!("\"{}\"", "x".repeat(2 << 20));
    let good = json!({"account": account(), "order": order("c1", "m", true)});
    let mut huge = good.clone();
    huge["order"]["config"]["instanceType"] = json!("sim.huge");
    let list = json!({"effect": "answerLost"});
    let cases = [
        (
            "POST",
            "/instances/create",
            "{".to_owned(),
            400,
            "the body cannot be read: EOF",
        ),
        (
            "POST",
            "/instances/create",
            "{}".to_owned(),
            400,
            "missing field `account`",
        ),
        (
            "POST",
            "/instances/create",
            huge.to_string(),
            422,
            "instanceType: there is no type sim.huge",
        ),
        (
            "POST",
            "/instances/make",
            good.to_string(),
            404,
            "there is no call \"make\"",
        ),
        (
            "GET",
            "/instances/create",
            String::new(),
            405,
            "does not take this method",
        ),
        ("GET", "/elsewhere", String::new(), 404, "has no /elsewhere"),
        (
            "POST",
            "/faults",
            json!({"effect": "odd"}).to_string(),
            400,
            "unknown variant `odd`",
        ),
        (
            "POST",
            "/faults",
            json!([list, {"efect": 1}]).to_string(),
            400,
            "fault 1: unknown field `efect`",
        ),
        (
            "POST",
            "/faults",
            json!({"faults": 1}).to_string(),
            400,
            "faults: must be a list",
        ),
        ("POST", "/instances/create", long, 413, ""),
    ];
    for (method, path, body, expected, text) in cases {
        let (code, answer) = send(&kit, method, path, &body).await;
        assert_eq!(code, expected, "{method} {path}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(text), "{method} {path}: {message}");
    }
    assert!(
        kit.cloud.faults().is_empty(),
        "of a list with a mistake nothing is taken"
    );
    let (code, answer) = send(&kit, "GET", "/clusters/none/api", "").await;
    assert_eq!(
        (code, &answer["reason"]),
        (503, &json!("ServiceUnavailable"))
    );
    let origin = "GET /faults HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n";
    assert!(raw(&kit, origin).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn a_cloud_that_is_not_there_is_retryable() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let remote = RemoteCloud::new(&gone).unwrap();
    let error = remote
        .list(&account(), &ListScope::Account)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ProviderError::Unavailable { .. }),
        "{error:?}"
    );
    let error = RemoteCloud::connect(&gone, std::time::Duration::ZERO)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error:?}");
}

/// A throttled call says for how long, on the wire too.
#[tokio::test]
async fn throttling_keeps_its_time() {
    let kit = Kit::start().await;
    kit.fault(FaultEffect::Throttled, "create", "m");
    let error = kit
        .remote
        .create(&account(), &order("c1", "m", true))
        .await
        .unwrap_err();
    assert_eq!(error, ProviderError::Throttled { after_ms: 500 });
}
