//! Against a server of our own: what moto never answers.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, http::Uri};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

/// Answers by path; what was asked for is remembered.
#[derive(Clone, Default)]
struct Eks {
    answers: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Eks {
    async fn serve(&self, tasks: &mut JoinSet<()>) -> Client {
        let answer = async |State(eks): State<Self>, uri: Uri| {
            let path = uri.path().to_owned();
            eks.asked.lock().unwrap().push(path.clone());
            let answers = eks.answers.lock().unwrap();
            Json(answers.get(&path).cloned().unwrap_or_else(|| json!({})))
        };
        let routes = Router::new().fallback(answer).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        emulated::client(&url, "eu-west-1")
    }

    fn answer(&self, path: &str, answer: Value) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn an_empty_answer_says_of_nothing_that_it_is_not_there() {
    let (eks, mut tasks) = (Eks::default(), JoinSet::new());
    let client = eks.serve(&mut tasks).await;
    let (plane, pool) = (owner("default/eu", ""), owner("default/eu", "web"));
    for error in [
        control_plane::get(&client, &plane).await.map(drop),
        control_plane::remove(&client, &plane).await.map(drop),
        group::remove(&client, &pool).await.map(drop),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.word(), "Unavailable", "{error}");
    }
}

#[tokio::test]
async fn updates_that_have_ended_are_asked_for_once() {
    let (eks, mut tasks) = (Eks::default(), JoinSet::new());
    let client = eks.serve(&mut tasks).await;
    let update = |id: &str, kind: &str, status: &str, version: &str| {
        let update = json!({"update": {
            "id": id, "type": kind, "status": status, "createdAt": 1_000,
            "params": [{"type": "Version", "value": version}],
            "errors": [{"errorCode": "Unknown", "errorMessage": "no addresses"}],
        }});
        eks.answer(&format!("/clusters/c/updates/{id}"), update);
    };
    eks.answer(
        "/clusters/c/updates",
        json!({"updateIds": ["a", "b", "c", "d"]}),
    );
    update("a", "VersionUpdate", "Successful", "1.32");
    update("b", "VersionUpdate", "Failed", "1.33");
    update("c", "ConfigUpdate", "Successful", "");
    update("d", "VersionUpdate", "InProgress", "1.34");
    let ended = Ended::default();
    let look = async || updates(&client, &ended, "c", None).await.unwrap();
    let why = "the update to 1.33 failed: no addresses";
    let mut seen = Updates {
        to: Some("1.34".into()),
        failed: vec![("1.33".into(), 1_000, why.into())],
    };
    assert_eq!(look().await, seen);
    assert_eq!(eks.asked().len(), 5);
    assert_eq!(look().await, seen);
    let again = ["/clusters/c/updates", "/clusters/c/updates/d"];
    assert_eq!(eks.asked(), again);
    update("d", "VersionUpdate", "Successful", "1.34");
    seen.to = None;
    for asked in [2, 1] {
        assert_eq!(look().await, seen);
        assert_eq!(eks.asked().len(), asked);
    }
}
