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
    for (machine, effect, expected) in [("slow", "throttled", 429), ("none", "noCapacity", 503)] {
        let fault = json!({"effect": effect, "machine": machine, "region": "eu"}).to_string();
        assert_eq!(send(&kit, "POST", "/faults", &fault).await.0, 201);
        let (code, answer) = send(&kit, "POST", "/instances/create", &body(machine)).await;
        assert_eq!(
            (code, &answer["error"]["reason"]),
            (expected, &json!(effect))
        );
        let (code, answer) = send(&kit, "POST", "/instances/create", &body(machine)).await;
        assert_eq!(code, 200, "{effect}, asked again: {answer}");
    }
    let (_, shown) = send(&kit, "GET", "/faults", "").await;
    let shown = shown["faults"].as_array().unwrap();
    assert!(
        shown.len() == 4 && shown.iter().all(|f| f["fired"] == 1 && f["count"] == 0),
        "{shown:?}"
    );
    let (code, left) = send(&kit, "DELETE", "/faults", "").await;
    assert_eq!((code, left), (200, json!({"faults": []})));
}

#[tokio::test]
async fn instances_are_changed_by_hand() {
    let kit = Kit::start().await;
    let mut order = order("c1", "m", true);
    order.config["tags"] = json!({"team": "a", "cost": "7"});
    let made = kit.remote.create(&account(), &order).await.unwrap();
    let path = format!("/instances/{}", made.id);
    let change = json!({
        "network": "office", "image": "other", "securityGroups": ["ssh", "web"], "tags": {"team": null, "by": "hand"},
    });
    let (code, answer) = send(&kit, "PATCH", &path, &change.to_string()).await;
    assert_eq!(code, 200, "{answer}");
    let found = kit.remote.get(&account(), &made.id).await.unwrap().unwrap();
    let shown = json!({
        "network": "office", "securityGroups": ["ssh", "web"], "tags": {"by": "hand", "cost": "7"},
    });
    assert_eq!(
        (
            serde_json::to_value(found.settings.as_ref()).unwrap(),
            found.image
        ),
        (shown, "other".into())
    );
    assert_eq!(found.config_digest, made.config_digest, "nobody was told");
    for (path, change, code, why) in [
        (
            "/instances/i-none",
            "{}",
            404,
            "there is no instance i-none",
        ),
        (
            &path,
            "{\"account\": \"x\"}",
            422,
            "account: nobody changes that by hand",
        ),
        (&path, "{\"instanceType\": \"sim.huge\"}", 422, "sim.huge"),
        (&path, "[]", 400, "the body cannot be read"),
    ] {
        let (got, answer) = send(&kit, "PATCH", path, change).await;
        assert_eq!(got, code, "{change}: {answer}");
        assert!(answer.to_string().contains(why), "{change}: {answer}");
    }
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
            "instanceType: Unsupported value: \"sim.huge\": supported values: \"sim.small\"",
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
        (
            "GET",
            "/elsewhere",
            String::new(),
            404,
            "has no /elsewhere: it has /instances/VERB",
        ),
        (
            "POST",
            "/faults",
            "true".to_owned(),
            400,
            "fault 0: it is an object, not true",
        ),
        (
            "POST",
            "/faults",
            json!({"effect": "odd"}).to_string(),
            400,
            "fault 0: unknown variant `odd`, expected one of `requestLost`, `answerLost`, `throttled`, `credentialsRefused`, `noCapacity`",
        ),
        (
            "POST",
            "/faults",
            json!({"effect": "throttled", "verb": "craete"}).to_string(),
            400,
            "fault 0: verb: there is no call \"craete\": the calls are create, get, list, update, delete",
        ),
        (
            "PUT",
            "/latencies",
            json!([{"millis": 1}, {"milis": 1}]).to_string(),
            400,
            "latency 1: unknown field `milis`, expected one of `millis`",
        ),
        (
            "PUT",
            "/latencies",
            json!({"millis": 1, "verb": "make"}).to_string(),
            400,
            "latency 0: verb: there is no call \"make\"",
        ),
        (
            "POST",
            "/latencies",
            "[]".to_owned(),
            405,
            "does not take this method",
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
        (
            "POST",
            "/instances/create",
            long,
            413,
            "a call has at most 1048576 bytes",
        ),
    ];
    for (method, path, body, expected, text) in cases {
        let (code, answer) = send(&kit, method, path, &body).await;
        assert_eq!(code, expected, "{method} {path}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(text), "{method} {path}: {message}");
    }
    assert!(
        kit.cloud.faults().is_empty() && kit.cloud.latencies().is_empty(),
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

/// What the page tells people to type works.
#[tokio::test]
async fn the_examples_of_the_page_are_answered() {
    let kit = Kit::start().await;
    let made = kit.create(&order("c1", "m", true)).await;
    assert_eq!(made.id, "i-00000001", "the page speaks of it");
    let mut asked = Vec::new();
    for line in crate::docs::PAGE.lines().filter(|l| l.starts_with("curl ")) {
        let body = line.split('\'').nth(1).unwrap_or_default();
        let method = match line.strip_prefix("curl -X ") {
            Some(rest) => rest.split(' ').next().unwrap(),
            None if body.is_empty() => "GET",
            None => "POST",
        };
        let path = line.rsplit_once(":7070").unwrap().1;
        let (code, answer) = send(&kit, method, path, body).await;
        assert!((200..300).contains(&code), "{line}: {code} {answer}");
        asked.push(format!("{method} {path}"));
    }
    assert_eq!(asked.len(), 12, "{asked:?}");
}

#[tokio::test]
async fn calls_take_the_time_that_is_set() {
    let kit = Kit::start().await;
    let (code, none) = send(&kit, "GET", "/latencies", "").await;
    assert_eq!((code, none), (200, json!({"latencies": []})));
    let slow = json!([{"millis": 120, "region": "eu"}, {"millis": 60, "verb": "list"}, {"millis": 60000, "verb": "get"}]);
    let (code, set) = send(&kit, "PUT", "/latencies", &slow.to_string()).await;
    assert_eq!((code, set["latencies"].as_array().unwrap().len()), (200, 3));
    assert_eq!(
        send(&kit, "PUT", "/latencies", &set.to_string()).await,
        (200, set),
        "what is shown can be set"
    );
    let begin = std::time::Instant::now();
    kit.remote
        .list(&account(), &ListScope::Account)
        .await
        .unwrap();
    assert!(begin.elapsed() >= std::time::Duration::from_millis(180));
    let (code, none) = send(&kit, "DELETE", "/latencies", "").await;
    assert_eq!((code, none), (200, json!({"latencies": []})));
    // Were it not forgotten, this would take a minute.
    let account = account();
    let get = kit.remote.get(&account, "i-1");
    let got = tokio::time::timeout(std::time::Duration::from_secs(30), get).await;
    assert_eq!(got.unwrap(), Ok(None));
}

#[tokio::test]
async fn quotas_hold_over_http_and_say_what_to_do() {
    let kit = Kit::start().await;
    let mut small = account();
    small.quotas = [("instances".to_owned(), 10), ("cpus".to_owned(), 8)].into();
    for n in 0..2 {
        let order = order("c1", &format!("m-{n}"), true);
        kit.remote.create(&small, &order).await.unwrap();
    }
    let third = order("c1", "m-2", true);
    let error = kit.remote.create(&small, &third).await.unwrap_err();
    let ProviderError::Quota { message } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        message,
        "account sim-eu may use 8 cpus, uses 8, and sim.medium needs 4 more: raise spec.quotas.cpus of \
         ProviderAccount sim-eu, or delete machines"
    );
    assert_eq!(
        kit.cloud.create(&small, &third).await.unwrap_err(),
        error,
        "in process too"
    );
    let body = json!({"account": small, "order": third}).to_string();
    assert_eq!(send(&kit, "POST", "/instances/create", &body).await.0, 403);
    // What is there is shown again, and what is raised holds at once.
    kit.remote
        .create(&small, &order("c1", "m-1", true))
        .await
        .unwrap();
    small.quotas.insert("cpus".into(), 12);
    kit.remote.create(&small, &third).await.unwrap();
    small.quotas = [("gpus".to_owned(), 1)].into();
    let error = kit
        .remote
        .create(&small, &order("c1", "m-3", true))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ProviderError::Terminal { message } if message.contains("no quota gpus")),
        "{error:?}"
    );
    let outcomes: Vec<_> = kit.journal().into_iter().map(|e| e.outcome).collect();
    let ok = || "ok".to_owned();
    let over = || "QuotaExceeded".to_owned();
    assert_eq!(
        outcomes,
        [
            ok(),
            ok(),
            over(),
            over(),
            over(),
            ok(),
            ok(),
            "Terminal".to_owned()
        ]
    );
}
