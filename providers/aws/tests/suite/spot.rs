//! The notice before AWS takes a spot instance back. No emulator gives one: a server of our own answers the two calls as AWS describes them.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use fleetwright_provider_aws::Aws;
use fleetwright_providers::{InstanceState, ListScope, Provider};
use tokio::{net::TcpListener, task::JoinSet};

use crate::kit::{INSTALLATION, account_with};

/// What it answers, and what it was asked.
#[derive(Default)]
struct Ec2 {
    /// Instances with the requests that they are of; empty for those that are none's.
    instances: Vec<(&'static str, &'static str)>,
    /// Instances that are taken back; `None` where nobody may ask.
    marked: Option<Vec<&'static str>>,
    asked: Vec<String>,
}

type Shared = Arc<Mutex<Ec2>>;

fn instances(ec2: &Ec2) -> String {
    let item = |(id, request): &(&str, &str)| {
        let request = match *request {
            "" => String::new(),
            request => format!("<spotInstanceRequestId>{request}</spotInstanceRequestId>"),
        };
        format!(
            "<item><instancesSet><item><instanceId>{id}</instanceId><instanceState><code>16</code><name>running</name></instanceState>{request}</item></instancesSet></item>"
        )
    };
    let items: String = ec2.instances.iter().map(item).collect();
    format!(
        "<DescribeInstancesResponse><reservationSet>{items}</reservationSet></DescribeInstancesResponse>"
    )
}

fn requests(marked: &[&str]) -> String {
    let item = |id: &&str| {
        format!(
            "<item><instanceId>{id}</instanceId><status><code>marked-for-termination</code><message>It goes.</message></status></item>"
        )
    };
    let items: String = marked.iter().map(item).collect();
    format!(
        "<DescribeSpotInstanceRequestsResponse><spotInstanceRequestSet>{items}</spotInstanceRequestSet></DescribeSpotInstanceRequestsResponse>"
    )
}

async fn answer(State(ec2): State<Shared>, body: String) -> (StatusCode, String) {
    let mut ec2 = ec2.lock().unwrap();
    let action = body
        .split('&')
        .find_map(|pair| pair.strip_prefix("Action="));
    let action = action.unwrap_or_default().to_owned();
    ec2.asked.push(action.clone());
    match (action.as_str(), &ec2.marked) {
        ("DescribeInstances", _) => (StatusCode::OK, instances(&ec2)),
        ("DescribeSpotInstanceRequests", Some(marked)) => {
            assert!(body.contains("marked-for-termination"), "{body}");
            (StatusCode::OK, requests(marked))
        }
        _ => (
            StatusCode::FORBIDDEN,
            "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>".into(),
        ),
    }
}

#[tokio::test]
async fn a_spot_instance_is_given_up_when_its_notice_comes() {
    let ec2 = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/", post(answer))
        .with_state(Arc::clone(&ec2));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });

    let (aws, account) = (
        Aws::new(INSTALLATION),
        account_with(&url, "eu-west-1", "AKIATEST", "test"),
    );
    let list = async || {
        ec2.lock().unwrap().asked.clear();
        let listed = aws.list(&account, &ListScope::Account).await.unwrap();
        let states: Vec<_> = listed
            .into_iter()
            .map(|i| (i.id, i.state, i.reason))
            .collect();
        (states, ec2.lock().unwrap().asked.clone())
    };
    let running = |id: &str| (id.to_owned(), InstanceState::Running, None);

    ec2.lock().unwrap().instances = vec![("i-1", ""), ("i-2", "")];
    let (states, asked) = list().await;
    assert_eq!(states, [running("i-1"), running("i-2")]);
    assert_eq!(asked, ["DescribeInstances"], "there is nobody to ask for");

    // Who may not ask sees the instances all the same.
    ec2.lock().unwrap().instances = vec![("i-1", "sir-1"), ("i-2", "")];
    let (states, asked) = list().await;
    assert_eq!(states, [running("i-1"), running("i-2")]);
    assert_eq!(asked, ["DescribeInstances", "DescribeSpotInstanceRequests"]);

    ec2.lock().unwrap().marked = Some(Vec::new());
    assert_eq!(list().await.0, [running("i-1"), running("i-2")]);
    ec2.lock().unwrap().marked = Some(vec!["i-1"]);
    let words = "AWS takes the spot instance back (marked-for-termination: It goes.)";
    let given_up = (
        "i-1".to_owned(),
        InstanceState::Failed,
        Some(words.to_owned()),
    );
    assert_eq!(list().await.0, [given_up, running("i-2")]);
}
