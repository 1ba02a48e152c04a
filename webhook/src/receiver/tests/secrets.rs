//! Whom a delivery is believed to come from.

use super::*;

#[tokio::test]
async fn without_a_secret_nothing_is_believed() {
    for secret in [None, Some("")] {
        let kit = Kit::new(
            vec![fleet(
                "f",
                Some("https://github.com/acme/fleet"),
                None,
                None,
            )],
            secret,
        );
        let body = push("refs/heads/main");
        let signature = sign("", &body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "push"),
        ];
        assert_eq!(kit.send(&headers, body).await.0, 401, "{secret:?}");
    }
}

#[tokio::test]
async fn two_secrets_are_believed_while_one_takes_the_others_place() {
    type Stored = &'static [(&'static str, &'static str)];
    let rows: [(Stored, &str, u16); 7] = [
        (&[("secret", "new"), ("previousSecret", "old")], "new", 202),
        (&[("secret", "new"), ("previousSecret", "old")], "old", 202),
        (
            &[("secret", "new"), ("previousSecret", "old")],
            "older",
            401,
        ),
        (&[("secret", "new\n")], "new", 202),
        (&[("secret", "new")], "old", 401),
        // An empty one signs nothing, wherever it stands.
        (&[("secret", "new"), ("previousSecret", "")], "", 401),
        (&[("secret", ""), ("previousSecret", "")], "", 401),
    ];
    for (stored, signer, want) in rows {
        let fleets = vec![fleet_of("f", ForgeType::Github)];
        let kit = Kit::with(fleets, Some(SECRET), Some(secret(stored)));
        let body = push("refs/heads/main");
        let signature = sign(signer, &body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "push"),
        ];
        let (status, answer) = kit.send(&headers, body).await;
        assert_eq!(status, want, "{stored:?} {signer} {answer}");
    }
    // A Secret that is gone is none, and the engine's own does not stand in for it.
    let kit = Kit::with(vec![fleet_of("f", ForgeType::Github)], Some(SECRET), None);
    assert_eq!(kit.push("refs/heads/main", "d-1").await.0, 401);
}

/// Somebody repeats a delivery that was signed: under another name, or so late that its name is forgotten.
#[tokio::test]
async fn a_signed_delivery_cannot_be_repeated() {
    let fleets = || vec![fleet_of("lab", ForgeType::Gitlab)];
    let kit = Kit::with(fleets(), None, Some(secret(&[("secret", SECRET)])));
    let body = json!({"ref": "refs/heads/main", "project": {"path_with_namespace": "acme/fleet"}});
    let body = body.to_string().into_bytes();
    let signature = |id: &str, at: i64| {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(&body);
        let encoded = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            mac.finalize().into_bytes(),
        );
        format!("v1,{encoded}")
    };
    let good = signature("msg_1", 10);
    let old = signature("msg_2", -301);
    for (id, at, signature, want) in [
        ("msg_2", "-301", &old, 401),
        ("msg_1", "10", &good, 202),
        ("msg_1", "10", &good, 200),
        ("msg_3", "10", &good, 401),
        ("msg_1", "11", &good, 401),
    ] {
        let headers = [
            ("x-gitlab-event", "Push Hook"),
            ("webhook-id", id),
            ("webhook-timestamp", at),
            ("webhook-signature", signature.as_str()),
        ];
        let (status, answer) = kit.send_to("gitlab", &headers, body.clone()).await;
        assert_eq!(status, want, "{id} {at} {answer}");
    }
    assert_eq!(kit.patches.lock().len(), 1);
}

/// A delivery that is rightly signed speaks for those whose secret signed it, and for nobody else who follows the same repository.
#[tokio::test]
async fn cve_2026_40109_a_secret_vouches_for_its_own_fleets() {
    let mut others = fleet_of("others-plan", ForgeType::Github);
    others.spec.pull_requests = Some(PullRequests {
        plan: true,
        interval_seconds: None,
        apply: None,
        approvers: Vec::new(),
    });
    let fleets = vec![
        fleet_of("own", ForgeType::Github),
        others,
        fleet("shared", Some("https://github.com/acme/fleet"), None, None),
        fleet(
            "no-forge",
            Some("https://github.com/acme/fleet"),
            None,
            None,
        ),
    ];
    let stored = secret(&[("secret", "own-secret")]);
    let kit = Kit::with(fleets, Some(SECRET), Some(stored));
    for (signer, want) in [
        (SECRET, json!(["default/shared", "default/no-forge"])),
        ("own-secret", json!(["default/own", "default/others-plan"])),
        ("nobodys", Value::Null),
    ] {
        let mut body: Value = serde_json::from_slice(&push("refs/heads/main")).unwrap();
        body["signed by"] = json!(signer);
        let body = body.to_string().into_bytes();
        let signature = sign(signer, &body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "push"),
        ];
        let (status, answer) = kit.send(&headers, body).await;
        let refused = want.is_null();
        assert_eq!(status, if refused { 401 } else { 202 }, "{signer} {answer}");
        assert_eq!(answer["woken"], want, "{signer}");
    }
    assert_eq!(kit.patches.lock().len(), 4);
}

/// Gitea writes the headers of Gogs and GitHub beside its own, Forgejo its own before them; without a secret all of them are empty.
#[tokio::test]
async fn what_gitea_and_forgejo_send_is_judged_by_their_own_headers() {
    let body = push("refs/heads/main");
    let signed = sign(SECRET, &body);
    let (bare, wrong) = (signed.trim_start_matches("sha256="), sign("other", &body));
    let wrong = wrong.trim_start_matches("sha256=");
    let all = |forgejo: Option<&str>, gitea: &str, hub: &str| {
        let mut headers = vec![
            ("x-gitea-delivery", "f7c5".to_owned()),
            ("x-gitea-event", "push".to_owned()),
            ("x-gitea-event-type", "push".to_owned()),
            ("x-gitea-signature", gitea.to_owned()),
            ("x-gogs-delivery", "f7c5".to_owned()),
            ("x-gogs-event", "push".to_owned()),
            ("x-gogs-event-type", "push".to_owned()),
            ("x-gogs-signature", gitea.to_owned()),
            ("x-hub-signature", String::new()),
            ("x-hub-signature-256", hub.to_owned()),
            ("x-github-delivery", "f7c5".to_owned()),
            ("x-github-event", "push".to_owned()),
            ("x-github-event-type", "push".to_owned()),
        ];
        if let Some(forgejo) = forgejo {
            headers.push(("x-forgejo-delivery", "f7c5".to_owned()));
            headers.push(("x-forgejo-event", "push".to_owned()));
            headers.push(("x-forgejo-event-type", "push".to_owned()));
            headers.push(("x-forgejo-signature", forgejo.to_owned()));
        }
        headers
    };
    for (headers, want) in [
        (all(None, bare, &signed), 202),
        (all(Some(bare), bare, &signed), 202),
        // GitHub's header proves nothing here.
        (all(None, wrong, &signed), 401),
        (all(Some(wrong), bare, &signed), 401),
        (all(None, "", ""), 401),
        (all(Some(""), "", ""), 401),
    ] {
        let fleets = vec![fleet_of("tea", ForgeType::Gitea)];
        let kit = Kit::with(fleets, None, Some(secret(&[("secret", SECRET)])));
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (status, answer) = kit.send_to("gitea", &headers, body.clone()).await;
        assert_eq!(status, want, "{headers:?} {answer}");
        // A Fleet of a Gitea is not woken by what calls itself GitHub's.
        assert_eq!(kit.send(&headers, body.clone()).await.0, 401);
    }
}

/// Deliveries of several hooks about one change share the event's id, and each may be another Fleet's; a hook's retry keeps its key.
#[tokio::test]
async fn gitlab_deliveries_are_known_again_by_their_own_key() {
    let fleets = vec![fleet_of("lab", ForgeType::Gitlab)];
    let kit = Kit::with(fleets, None, Some(secret(&[("secret", SECRET)])));
    let body = |note: &str| {
        let project = json!({"path_with_namespace": "acme/fleet"});
        let body = json!({"ref": "refs/heads/main", "project": project, "note": note});
        body.to_string().into_bytes()
    };
    for (key, note, want) in [
        ("1", "a", 202),
        ("2", "b", 202),
        ("2", "b", 200),
        ("2", "c", 200),
        ("3", "b", 200),
    ] {
        let headers = [
            ("x-gitlab-token", SECRET),
            ("x-gitlab-event", "Push Hook"),
            ("x-gitlab-event-uuid", "the same"),
            ("x-gitlab-webhook-uuid", "the same"),
            ("idempotency-key", key),
        ];
        let (status, answer) = kit.send_to("gitlab", &headers, body(note)).await;
        assert_eq!(status, want, "{key} {note} {answer}");
    }
}

/// Payloads in the query, as Gitea may be told to send them, are none.
#[tokio::test]
async fn other_methods_are_refused() {
    let fleets = || {
        vec![
            fleet_of("hub", ForgeType::Github),
            fleet_of("tea", ForgeType::Gitea),
        ]
    };
    let kit = Kit::with(fleets(), None, Some(secret(&[("secret", SECRET)])));
    for (method, path, want) in [
        ("GET", "/webhooks/gitea?payload=%7B%7D", 405),
        ("PUT", "/webhooks/github", 405),
        ("GET", "/webhooks/gitlab", 405),
        ("POST", "/webhooks/bitbucket", 404),
        ("POST", "/webhooks", 404),
    ] {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        let response = kit.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), want, "{method} {path}");
    }
}
