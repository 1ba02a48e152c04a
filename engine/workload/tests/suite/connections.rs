//! Clusters that serve, die, fall silent and come back, and Secrets that come, change and go.

use std::time::Duration;

use fleetwright_providers::{ClusterConnections, ClusterRef, ConnectionError};
use fleetwright_tests::{
    pki::Authority,
    workload::{TOKEN, Workload, base64},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams, runtime::watcher};
use serde_json::json;

use crate::kit::{Kit, cluster, pass, who};

/// Longer than a cluster that does not answer is ever left alone.
const MINUTE: Duration = Duration::from_secs(61);

#[tokio::test]
async fn a_cluster_is_reached_over_tls_with_a_token_or_a_certificate() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let c = cluster("eu");
    kit.secret(
        "eu",
        "value",
        &workload.kubeconfig(&json!({"token": TOKEN})),
    )
    .await;
    assert_eq!(kit.who(&c).await.unwrap(), "system:admin");

    let identity = workload.authority.sign("engine", &[]);
    let certificate = json!({
        "client-certificate-data": base64(&identity.certificate), "client-key-data": base64(&identity.key),
    });
    kit.secret("us", "value", &workload.kubeconfig(&certificate))
        .await;
    assert_eq!(kit.who(&cluster("us")).await.unwrap(), "system:admin");

    // Its authority is not the one that signed what answers.
    let other = Authority::new("other").identity.certificate;
    let text = workload.kubeconfig(&json!({"token": TOKEN}));
    let ours = base64(&workload.authority.identity.certificate);
    kit.secret("ap", "value", &text.replace(&ours, &base64(&other)))
        .await;
    let why = kit.why(&cluster("ap")).await;
    assert!(
        why.starts_with("the cluster's API does not answer: "),
        "{why}"
    );
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn one_connection_serves_until_the_secret_changes() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let c = cluster("eu");
    workload.accept(&[("one", "ann"), ("two", "bob"), ("three", "carol")]);
    let kubeconfig = |token: &str| workload.kubeconfig(&json!({ "token": token }));
    kit.secret("eu", "value", &kubeconfig("one")).await;
    for _ in 0..10 {
        assert_eq!(kit.who(&c).await.unwrap(), "ann");
    }
    assert_eq!(
        workload.accepted(),
        1,
        "each call made a connection of its own"
    );

    // Looked at now and then.
    kit.secret("eu", "value", &kubeconfig("two")).await;
    assert_eq!(kit.who(&c).await.unwrap(), "ann");
    pass(MINUTE).await;
    assert_eq!(kit.who(&c).await.unwrap(), "bob");
    // At once where the credentials are accepted no more.
    let before = kit.connections.client(&c).await.unwrap();
    kit.secret("eu", "value", &kubeconfig("three")).await;
    workload.accept(&[("three", "carol")]);
    let refused = before.list_core_api_versions().await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(s) if s.code == 401));
    assert_eq!(kit.who(&c).await.unwrap(), "carol");
    // Another Secret is another way.
    let other = ClusterRef {
        kubeconfig: "us-kubeconfig".into(),
        ..c.clone()
    };
    workload.accept(&[("three", "carol"), ("four", "dave")]);
    kit.secret("us", "value", &kubeconfig("four")).await;
    assert_eq!(kit.who(&other).await.unwrap(), "dave");
}

#[tokio::test]
async fn a_client_of_before_asks_nothing_more_and_its_watches_end() {
    let (kit, old, new) = (Kit::new(), Workload::start().await, Workload::start().await);
    let c = cluster("eu");
    let token = json!({"token": TOKEN});
    kit.secret("eu", "value", &old.kubeconfig(&token)).await;
    let before = kit.connections.client(&c).await.unwrap();
    let nodes = Api::<Node>::all(before.clone());
    let mut events = watcher::watcher(nodes, watcher::Config::default()).boxed();
    while !matches!(
        events.next().await.unwrap().unwrap(),
        watcher::Event::InitDone
    ) {}
    assert!(futures::poll!(events.next()).is_pending());
    // The Secret leads to another cluster, and somebody looks.
    kit.secret("eu", "value", &new.kubeconfig(&token)).await;
    pass(MINUTE).await;
    assert_eq!(kit.who(&c).await.unwrap(), "system:admin");
    assert_eq!(new.accepted(), 1);
    let broken = events.next().await.unwrap().unwrap_err();
    let broken = format!("{broken:?}");
    assert!(
        broken.contains("another kubeconfig is used by now"),
        "{broken}"
    );
    let accepted = old.accepted();
    let refused = before.apiserver_version().await.unwrap_err();
    let refused = format!("{refused:?}");
    assert!(refused.contains("another kubeconfig is used"), "{refused}");
    assert_eq!(old.accepted(), accepted);
    // The one that serves is left alone by that.
    assert_eq!(kit.who(&c).await.unwrap(), "system:admin");
}

#[tokio::test]
async fn answers_without_end_are_not_read_to_it() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let c = cluster("eu");
    let token = json!({"token": TOKEN});
    kit.secret("eu", "value", &workload.kubeconfig(&token))
        .await;
    let client = kit.connections.client(&c).await.unwrap();
    workload.say("/nodes", 500, " ".repeat((64 << 10) + 1));
    let nodes = Api::<Node>::all(client);
    let error = nodes.list(&ListParams::default()).await.unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("more than 65536 bytes"), "{error}");
}

#[tokio::test]
async fn few_calls_are_under_way_at_once_and_watches_take_nobodys_place() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let c = cluster("eu");
    let token = json!({"token": TOKEN});
    kit.secret("eu", "value", &workload.kubeconfig(&token))
        .await;
    let client = kit.connections.client(&c).await.unwrap();
    let nodes = Api::<Node>::all(client.clone());
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut events = watcher::watcher(nodes.clone(), watcher::Config::default()).boxed();
        while !matches!(
            events.next().await.unwrap().unwrap(),
            watcher::Event::InitDone
        ) {}
        assert!(futures::poll!(events.next()).is_pending());
        watches.push(events);
    }
    assert_eq!(who(&client).await, "system:admin");

    let accepted = workload.accepted();
    workload.silent(true);
    let all = ListParams::default();
    let calls = (0..40).map(|_| nodes.list(&all));
    let until = async |more: usize| {
        while workload.accepted() < accepted + more {
            tokio::task::yield_now().await;
        }
    };
    // Whether the cluster answers is asked though nobody else has a turn.
    let probe = async {
        until(3).await;
        client.apiserver_version().await
    };
    let late = async {
        until(4).await;
        pass(Duration::from_secs(16)).await;
        pass(Duration::from_secs(15)).await;
    };
    let (answers, probed, ()) = tokio::join!(futures::future::join_all(calls), probe, late);
    assert!(probed.is_err());
    let whys = answers
        .iter()
        .map(|a| format!("{:?}", a.as_ref().unwrap_err()));
    let waited = whys.filter(|why| why.contains("4 calls to the cluster are under way"));
    assert_eq!(waited.count(), 36, "four were asked");
    let more = workload.accepted() - accepted;
    assert!((4..=5).contains(&more), "{more} connections");
    // Those that were given up have left their places.
    workload.silent(false);
    let calls = (0..40).map(|_| who(&client));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|who| who == "system:admin"));
}

#[tokio::test]
async fn a_cluster_that_dies_is_left_alone_for_a_while_and_found_again() {
    let (kit, mut workload) = (Kit::new(), Workload::start().await);
    let c = cluster("eu");
    kit.secret(
        "eu",
        "value",
        &workload.kubeconfig(&json!({"token": TOKEN})),
    )
    .await;
    let client = kit.connections.client(&c).await.unwrap();
    who(&client).await;
    workload.die().await;
    // Nobody looked since it answered, and a call that fails is reason to look.
    assert!(kit.connections.client(&c).await.is_ok());
    client.apiserver_version().await.unwrap_err();
    let why = kit.why(&c).await;
    assert!(
        why.starts_with("the cluster's API does not answer: "),
        "{why}"
    );
    assert!(why.contains("refused"), "{why}");

    // It is back, but the same is said without asking it.
    workload.come_back().await;
    let accepted = workload.accepted();
    for _ in 0..10 {
        assert_eq!(kit.why(&c).await, why);
    }
    assert_eq!(workload.accepted(), accepted, "it was asked");
    pass(MINUTE).await;
    assert_eq!(kit.who(&c).await.unwrap(), "system:admin");
    // The client from before serves as well.
    assert_eq!(who(&client).await, "system:admin");
}

#[tokio::test]
async fn a_cluster_that_falls_silent_is_found_out_by_who_asks_now_and_then() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let c = cluster("eu");
    kit.secret(
        "eu",
        "value",
        &workload.kubeconfig(&json!({"token": TOKEN})),
    )
    .await;
    assert_eq!(kit.who(&c).await.unwrap(), "system:admin");
    workload.silent(true);
    // What it said a moment ago holds.
    assert!(kit.connections.client(&c).await.is_ok());
    pass(MINUTE).await;
    let accepted = workload.accepted();
    let asked = kit.connections.client(&c);
    let late = async {
        while workload.accepted() == accepted {
            tokio::task::yield_now().await;
        }
        pass(Duration::from_secs(11)).await;
    };
    let (asked, ()) = tokio::join!(asked, late);
    let want = "the cluster's API has not answered within 10 s".to_owned();
    assert_eq!(asked.map(drop).unwrap_err(), ConnectionError::Broken(want));
    workload.silent(false);
    pass(MINUTE).await;
    assert_eq!(kit.who(&c).await.unwrap(), "system:admin");
}

#[tokio::test]
async fn what_a_secret_lacks_is_said() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let ours = ClusterRef {
        provider: Some("aws".into()),
        ..cluster("eu")
    };
    // Whoever makes the cluster writes it later.
    let none = kit.connections.client(&ours).await.map(drop);
    assert_eq!(none, Err(ConnectionError::NotYet));
    // It is not left alone for that.
    kit.secret(
        "eu",
        "value",
        &workload.kubeconfig(&json!({"token": TOKEN})),
    )
    .await;
    assert_eq!(kit.who(&ours).await.unwrap(), "system:admin");

    let foreign = cluster("us");
    let at = "the kubeconfig in Secret default/us-kubeconfig: ";
    let says = async |want: &str| {
        pass(MINUTE).await;
        let why = kit.why(&foreign).await;
        assert!(why.starts_with(&format!("{at}{want}")), "{why}");
    };
    says("there is no such Secret: make it").await;
    kit.secret("us", "config", "").await;
    says("it has no key value").await;
    let exec = workload.kubeconfig(&json!({"exec": {"command": "aws"}}));
    kit.secret("us", "value", &exec).await;
    says("users[0].user.exec: no program is run").await;
    kit.secret(
        "us",
        "value",
        &workload.kubeconfig(&json!({"token": "wrong"})),
    )
    .await;
    pass(MINUTE).await;
    let why = kit.why(&foreign).await;
    assert_eq!(
        why,
        "the cluster's API does not accept the credentials in Secret default/us-kubeconfig: Unauthorized"
    );
    kit.secret(
        "us",
        "value",
        &workload.kubeconfig(&json!({"token": TOKEN})),
    )
    .await;
    pass(MINUTE).await;
    assert_eq!(kit.who(&foreign).await.unwrap(), "system:admin");
    // Who takes the Secret away takes the way away.
    kit.withdraw("us").await;
    pass(MINUTE).await;
    let why = kit.why(&foreign).await;
    assert!(
        why.starts_with(&format!("{at}there is no such Secret")),
        "{why}"
    );
}
