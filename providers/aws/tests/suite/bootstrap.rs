//! What nodes read when they boot, with the node's own means: sh and curl, against moto and metadata of our own.

use std::{process::Stdio, sync::Arc};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode},
    routing,
};
use fleetwright_api::secret::SecretText;
use fleetwright_providers::{NodeId, Provider};
use fleetwright_tests::tools::tool;
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command, task::JoinSet};

use crate::kit::{Place, sdk};

const RIGHTS: &str = r#"{
  "Code" : "Success",
  "Type" : "AWS-HMAC",
  "AccessKeyId" : "ASIATEST",
  "SecretAccessKey" : "a/b+c",
  "Token" : "IQoJ/+==",
  "Expiration" : "2030-01-01T00:00:00Z"
}"#;

async fn read(Path(path): Path<String>, headers: HeaderMap) -> Result<&'static str, StatusCode> {
    // Without a token nothing is told, as where IMDSv2 is required.
    if headers
        .get("x-aws-ec2-metadata-token")
        .is_none_or(|t| t != "token")
    {
        return Err(StatusCode::UNAUTHORIZED);
    }
    match path.as_str() {
        "iam/security-credentials/" => Ok("node"),
        "iam/security-credentials/node" => Ok(RIGHTS),
        "placement/availability-zone" => Ok("eu-central-1b"),
        "instance-id" => Ok("i-0123"),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

/// The metadata service of an instance: in place of the one at 169.254.169.254, which no emulator is.
async fn metadata(tasks: &mut JoinSet<()>) -> String {
    let routes = Router::new()
        .route("/latest/api/token", routing::put("token"))
        .route("/latest/meta-data/{*path}", routing::get(read));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    url
}

/// What a script prints on the instance.
async fn run(script: &str, metadata: &str) -> (bool, String) {
    let output = Command::new("sh")
        .args(["-c", script])
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test]
async fn an_instance_reads_what_was_kept_for_it() {
    let (Some(here), Some(_)) = (Place::at("af-south-1").await, tool("curl")) else {
        return;
    };
    let mut tasks = JoinSet::new();
    let metadata = metadata(&mut tasks).await;
    let (account, mut order) = (here.account(), here.order("c", "m"));
    let bootstrap = here.aws.bootstrap().unwrap();
    assert_eq!(bootstrap.user_data_limit(), 16_384);
    let long: String = (0..900)
        .map(|n| format!("line {n}: 'é' \"$HOME\" \\ `x`\n"))
        .collect();
    let long: Arc<str> = long.into();
    let secret = SecretText::new(&*long);
    let keep = async |config: &Value, text: &SecretText| {
        bootstrap.keep(&account, &order.owner, config, text).await
    };
    let config = order.config.clone();
    let mut without = config.clone();
    without
        .as_object_mut()
        .unwrap()
        .remove("iamInstanceProfile");
    let error = keep(&without, &secret).await.unwrap_err();
    assert!(
        error.is_terminal() && error.to_string().contains("iamInstanceProfile"),
        "{error}"
    );
    let puts =
        json!({"service": "ssm", "operation": "PutParameter", "latency": {"min": 0, "max": 0}});
    let puts = here.fault(puts).await;
    let command = keep(&config, &secret).await.unwrap();
    assert!(!command.contains("line 1"));
    // What is the same is not written again.
    let written = here.fired(puts).await;
    assert!(written > 1);
    assert_eq!(keep(&config, &secret).await.unwrap(), command);
    assert_eq!(here.fired(puts).await, written);
    assert_eq!(run(&command, &metadata).await, (true, long.to_string()));
    let (good, printed) = run(
        &format!("if {command}; then exit 0; else exit 1; fi"),
        "http://127.0.0.1:1",
    )
    .await;
    assert_eq!((good, printed.as_str()), (false, ""));
    // What is kept again takes the place of what was kept.
    let command = keep(&config, &SecretText::new("short\n")).await.unwrap();
    assert_eq!(run(&command, &metadata).await, (true, "short\n".to_owned()));

    let ssm = aws_sdk_ssm::Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let kept = async || {
        let path = "/fleetwright/test/c/m";
        let found = ssm
            .get_parameters_by_path()
            .path(path)
            .send()
            .await
            .unwrap();
        found.parameters().len()
    };
    assert!(kept().await > 1);
    let call = ssm
        .list_tags_for_resource()
        .resource_id("/fleetwright/test/c/m/0");
    let call = call.resource_type(aws_sdk_ssm::types::ResourceTypeForTagging::Parameter);
    let tags = call.send().await.unwrap();
    let named = |key: &str| tags.tag_list().iter().any(|t| t.key() == key);
    assert!(named("fleetwright.dev/machine") && named("fleetwright.dev/cluster-key"));
    order.owner.machine = "other".into();
    bootstrap.discard(&account, &order.owner).await.unwrap();
    assert!(kept().await > 1);
    order.owner.machine = "m".into();
    for _ in 0..2 {
        bootstrap.discard(&account, &order.owner).await.unwrap();
        assert_eq!(kept().await, 0);
    }
    let secret = SecretText::new("short\n");
    let keep = bootstrap.keep(&account, &order.owner, &config, &secret);
    keep.await.unwrap();
    assert_eq!(kept().await, 1);
    here.mend().await;
    let refuse = json!({"service": "ssm", "operation": "PutParameter", "error": {
        "code": "ValidationException", "message": "Value 'b3RoZXIK' at 'value' failed"}});
    here.fault(refuse).await;
    let secret = SecretText::new("other\n");
    let keep = bootstrap.keep(&account, &order.owner, &config, &secret);
    let error = keep.await.unwrap_err();
    assert_eq!(error.to_string(), "PutParameter: ValidationException");
    here.mend().await;

    let NodeId::Expression(expression) = bootstrap.node_id(&order.owner) else {
        panic!("instances find out their ids");
    };
    let (good, id) = run(&format!("printf '%s' \"{expression}\""), &metadata).await;
    assert_eq!((good, id.as_str()), (true, "aws:///eu-central-1b/i-0123"));
}
