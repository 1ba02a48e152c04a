//! What is not sent: GitHub's limits are kept by us, and accounts do not wait for each other.

use fleetwright_api::{
    commit_status::{CommitState, StatusContent},
    fleet::ForgeType,
    secret::SecretText,
};
use fleetwright_webhook::forge::{Credentials, Destination, Forge as _, Forges, PostError, Remote};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::{
    kit::SHA,
    stub::{Fault, Forge},
};

async fn post(forges: &Forges, remote: &Remote, now: Timestamp) -> Result<(), PostError> {
    let destination = Destination {
        remote,
        sha: SHA,
        context: "ctx",
        reference: None,
    };
    let content = StatusContent {
        state: CommitState::Success,
        ..StatusContent::default()
    };
    forges.post(&destination, &content, now).await
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn github_takes_80_in_a_minute_and_500_in_an_hour() {
    let mut tasks = JoinSet::new();
    let forge = Forge::start(&mut tasks).await;
    let (forges, remote) = (Forges::new().unwrap(), forge.remote());
    let mut sent = 0;
    let mut minutes = Vec::new();
    for minute in 0..9 {
        let before = sent;
        let held = loop {
            match post(&forges, &remote, at(minute * 60)).await {
                Ok(()) => sent += 1,
                Err(PostError::Held { after }) => break after.as_secs(),
                Err(other) => panic!("{other}"),
            }
        };
        minutes.push((sent - before, held));
    }
    let hour = |minute: u64| 3600 - minute * 60;
    let want = [
        (80, 60),
        (80, 60),
        (80, 60),
        (80, 60),
        (80, 60),
        (80, 60),
        (20, hour(6)),
        (0, hour(7)),
        (0, hour(8)),
    ];
    assert_eq!(minutes, want);
    assert_eq!(forge.got().len(), 500);
    assert_eq!(post(&forges, &remote, at(3600)).await, Ok(()));
}

#[tokio::test]
async fn other_forges_have_no_such_limit() {
    for kind in [ForgeType::Gitlab, ForgeType::Gitea] {
        let mut tasks = JoinSet::new();
        let forge = Forge::of(kind, &mut tasks).await;
        let (forges, remote) = (Forges::new().unwrap(), forge.remote());
        for _ in 0..100 {
            assert_eq!(post(&forges, &remote, at(0)).await, Ok(()), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn an_account_waits_for_itself_alone() {
    let mut tasks = JoinSet::new();
    let forge = Forge::of(ForgeType::Gitlab, &mut tasks).await;
    let (forges, remote) = (Forges::new().unwrap(), forge.remote());
    let other = forge.remote_with(Credentials::Token(SecretText::new("other")));
    let s = std::time::Duration::from_secs;
    // GitLab's headers are often absent: a minute, then two.
    forge.fault(&[
        Fault::Says(429, "Retry later"),
        Fault::Says(429, "Retry later"),
    ]);
    let limited = |after| Err(PostError::RateLimited { after });
    assert_eq!(post(&forges, &remote, at(0)).await, limited(s(60)));
    // A minute from the answer on, not from the request.
    let held = post(&forges, &remote, at(20)).await;
    let Err(PostError::Held { after }) = held else {
        panic!("{held:?}");
    };
    assert!(after > s(40) && after < s(60), "{after:?}");
    assert_eq!(forge.got().len(), 1, "what is held is not sent");
    let second = post(&forges, &other, at(20)).await;
    assert_eq!(second, limited(s(60)), "it has a pace of its own");
    forge.fault(&[Fault::Says(429, "Retry later")]);
    assert_eq!(post(&forges, &remote, at(80)).await, limited(s(120)));
    assert_eq!(post(&forges, &remote, at(220)).await, Ok(()));
    assert_eq!(forge.got().len(), 4);
}
