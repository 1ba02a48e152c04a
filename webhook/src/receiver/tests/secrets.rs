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
