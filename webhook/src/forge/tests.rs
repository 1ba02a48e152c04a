use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use fleetwright_api::commit_status::CommitState;
use serde_json::{Value, json};

use super::*;

fn header_map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(k, v): &(&'static str, &str)| {
        let value = HeaderValue::from_str(v).unwrap();
        (HeaderName::from_static(k), value)
    };
    pairs.iter().map(pair).collect()
}

fn remote(kind: ForgeType, api: &str, repository: &str) -> Result<Remote, PostError> {
    let token = Credentials::Token(SecretText::new("t0ken"));
    Remote::new(kind, Some(api), repository, token)
}

use ForgeType::{Gitea, Github, Gitlab};

/// As much as is told of a forge's message.
const MAX_TOLD: usize = 200;

#[test]
fn who_is_asked_for_patience_and_for_how_long() {
    let now = Timestamp::from_second(1_000).unwrap();
    let s = |s| Some(Some(Duration::from_secs(s)));
    let unsaid = Some(None);
    let secondary =
        r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes"}"#;
    type Pairs = &'static [(&'static str, &'static str)];
    let cases: [(u16, Pairs, &str, Option<Option<Duration>>); 21] = [
        (201, &[], "", None),
        (
            201,
            &[
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1030"),
            ],
            "",
            None,
        ),
        (429, &[("retry-after", "7")], "", s(7)),
        (429, &[("retry-after", "0")], "", s(1)),
        (
            429,
            &[("retry-after", "Thu, 01 Jan 1970 00:17:10 GMT")],
            "",
            s(30),
        ),
        (429, &[("retry-after", "soon")], "", unsaid),
        // GitLab, whose headers are often absent.
        (429, &[], "Retry later", unsaid),
        (
            429,
            &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1060")],
            "",
            s(60),
        ),
        (
            429,
            &[("ratelimit-remaining", "3"), ("ratelimit-reset", "1060")],
            "",
            unsaid,
        ),
        // It tells the same time as a date, which is not read.
        (
            429,
            &[
                ("ratelimit-limit", "60"),
                ("ratelimit-observed", "67"),
                ("ratelimit-remaining", "0"),
                ("ratelimit-resettime", "Thu, 01 Jan 1970 00:17:40 GMT"),
            ],
            "",
            unsaid,
        ),
        (
            429,
            &[
                ("ratelimit-remaining", "0"),
                ("ratelimit-reset", "1060"),
                ("retry-after", "5"),
            ],
            "",
            s(5),
        ),
        // What is no limit at GitLab and Gitea: 403 without a word of it.
        (403, &[], r#"{"message":"403 Forbidden"}"#, None),
        (403, &[("ratelimit-remaining", "599")], "", None),
        // GitHub's limits come with 403 as well, and its secondary ones at times by words alone.
        (403, &[("retry-after", "60")], secondary, s(60)),
        (403, &[], secondary, unsaid),
        (
            403,
            &[
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1030"),
            ],
            "",
            s(30),
        ),
        (
            403,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "900")],
            "",
            s(1),
        ),
        (403, &[("x-ratelimit-remaining", "0")], "", unsaid),
        (
            403,
            &[
                ("x-ratelimit-remaining", "12"),
                ("x-ratelimit-reset", "1030"),
            ],
            "",
            None,
        ),
        (401, &[("retry-after", "7")], "", None),
        (503, &[("retry-after", "7")], "", None),
    ];
    for (status, pairs, body, want) in cases {
        let status = StatusCode::from_u16(status).unwrap();
        let got = answer::limited(status, &header_map(pairs), body.as_bytes(), now);
        assert_eq!(got, want, "{status} {pairs:?} {body}");
    }
}

#[test]
fn answers_say_what_to_do() {
    let said = r#"{"message":"said"}"#;
    let unknown = |status, message: &str| {
        let message = message.into();
        Err(PostError::Unknown { status, message })
    };
    let passing = |text: &str| Err(PostError::Passing(text.into()));
    let wrong = |text: &str| Err(PostError::Configuration(text.into()));
    for (status, body, want) in [
        (200, said, Ok(())),
        (201, "cut o", Ok(())),
        (304, "", Ok(())),
        (401, said, Err(PostError::Refused { status: 401 })),
        (403, said, Err(PostError::Refused { status: 403 })),
        (404, said, unknown(404, "said")),
        (422, said, unknown(422, "said")),
        (409, said, passing("the forge answered 409 said")),
        (408, "", passing("the forge answered 408 ")),
        (502, "<html>", passing("the forge answered 502 ")),
        (
            400,
            r#"{"message":{"name":["is too long"]}}"#,
            wrong(r#"the forge answered 400 {"name":["is too long"]}"#),
        ),
        (
            400,
            r#"{"error":"state is missing"}"#,
            wrong("the forge answered 400 state is missing"),
        ),
        (
            418,
            r#"{"message":"a\nb\u001b[0m"}"#,
            wrong("the forge answered 418 a b [0m"),
        ),
        (423, "[]", wrong("the forge answered 423 ")),
        (
            404,
            r#"{"message":"no t0ken here"}"#,
            unknown(404, "no *** here"),
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let got = answer::judge(status, body.as_bytes(), &SecretText::new("t0ken"));
        assert_eq!(got, want, "{status} {body}");
    }
    let moved = answer::judge(StatusCode::MOVED_PERMANENTLY, b"", &SecretText::new("t"));
    assert!(moved.unwrap_err().to_string().contains("forge.repository"));
    let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(5_000));
    let got = answer::judge(
        StatusCode::IM_A_TEAPOT,
        long.as_bytes(),
        &SecretText::new("t"),
    );
    assert!(got.unwrap_err().to_string().len() < 300);
}

/// What a forge says is told to who may read CommitStatuses and logs; the token that it repeats is not.
#[test]
fn cve_2025_23216_a_token_is_not_repeated() {
    let token = SecretText::new("glpat-t0ken");
    for body in [
        json!({"message": "invalid token glpat-t0ken"}),
        json!({"message": "glpat-t0kenglpat-t0ken"}),
        json!({"message": format!("{}glpat-t0ken", "x".repeat(MAX_TOLD - 6))}),
        json!({"message": {"token": ["glpat-t0ken is revoked"]}}),
        json!({"message": {"glpat-t0ken": [{"value": "glpat-t0ken"}]}}),
        json!({"error": "glpat-t0ken"}),
    ] {
        for status in 400..=599 {
            let status = StatusCode::from_u16(status).unwrap();
            let error = answer::judge(status, body.to_string().as_bytes(), &token).unwrap_err();
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains("t0ken"), "{status}: {text}");
            }
        }
    }
}

/// GitLab's and Gitea's own words for what goes wrong, and whether another try may help.
#[test]
fn refusals_of_gitlab_and_gitea() {
    use PostError::{Configuration, Passing, Refused, Unknown};
    type Kind = fn(&PostError) -> bool;
    let (wrong, passing): (Kind, Kind) = (
        |e| matches!(e, Configuration(_)),
        |e| matches!(e, Passing(_)),
    );
    let (refused, unknown): (Kind, Kind) = (
        |e| matches!(e, Refused { .. }),
        |e| matches!(e, Unknown { .. }),
    );
    let rows: [(u16, Value, Kind, &str); 16] = [
        // GitLab.
        (
            400,
            json!({"message": {"target_url": ["is blocked"]}}),
            wrong,
            "is blocked",
        ),
        (
            400,
            json!({"error": "state does not have a valid value"}),
            wrong,
            "state does not",
        ),
        (401, json!({"message": "401 Unauthorized"}), refused, "401"),
        (
            401,
            json!({"error": "invalid_token", "error_description": "Token is expired"}),
            refused,
            "401",
        ),
        (
            403,
            json!({"message": "403 Forbidden"}),
            refused,
            "permission",
        ),
        (
            403,
            json!({"error": "insufficient_scope", "scope": "api"}),
            refused,
            "permission",
        ),
        (
            404,
            json!({"message": "404 Project Not Found"}),
            unknown,
            "404 Project Not Found",
        ),
        (
            404,
            json!({"message": "404 Commit Not Found"}),
            unknown,
            "404 Commit Not Found",
        ),
        (
            404,
            json!({"error": "404 Not Found"}),
            unknown,
            "404 Not Found",
        ),
        (
            409,
            json!({"message": "409 Conflict"}),
            passing,
            "409 Conflict",
        ),
        (
            422,
            json!({"message": {"base": ["is too long"]}}),
            unknown,
            "is too long",
        ),
        // Gitea and Forgejo.
        (
            400,
            json!({"message": "sha not provided", "url": "https://x/api/swagger"}),
            wrong,
            "sha not provided",
        ),
        (
            404,
            json!({"errors": null, "message": "not found", "url": "https://x/api/swagger"}),
            unknown,
            "not found",
        ),
        (
            423,
            json!({"message": "repository is archived"}),
            wrong,
            "archived",
        ),
        (
            500,
            json!({"message": "", "url": "https://x/api/swagger"}),
            passing,
            "500",
        ),
        (413, json!({"message": "too large"}), wrong, "too large"),
    ];
    for (status, body, kind, words) in rows {
        let status = StatusCode::from_u16(status).unwrap();
        let token = SecretText::new("t0ken");
        let error = answer::judge(status, body.to_string().as_bytes(), &token).unwrap_err();
        assert!(
            kind(&error) && error.to_string().contains(words),
            "{status} {body}: {error:?}"
        );
    }
}

#[test]
fn the_token_goes_only_where_it_is_safe() {
    for (kind, api, repository, ok) in [
        (Github, "https://api.github.com", "acme/fleet", true),
        (
            Github,
            "https://ghe.example.com/api/v3/",
            "acme/fleet.x",
            true,
        ),
        (Github, "http://127.0.0.1:8080", "acme/fleet", true),
        (Github, "http://[::1]:8080", "acme/fleet", true),
        (Github, "http://localhost", "acme/fleet", true),
        (Github, "http://ghe.example.com/api/v3", "acme/fleet", false),
        (Github, "http://localhost.example.com", "acme/fleet", false),
        (Github, "http://127.0.0.1.example.com", "acme/fleet", false),
        (Github, "ftp://127.0.0.1", "acme/fleet", false),
        (Github, "nonsense", "acme/fleet", false),
        (Github, "https://user@api.github.com", "acme/fleet", false),
        (
            Github,
            "https://user:secret@api.github.com",
            "acme/fleet",
            false,
        ),
        (Github, "https://api.github.com?x", "acme/fleet", false),
        (Github, "https://api.github.com#x", "acme/fleet", false),
        (Github, "https://api.github.com", "acme/../x", false),
        (Github, "https://api.github.com", "acme/..", false),
        (Github, "https://api.github.com", "acme/.", false),
        (Github, "https://api.github.com", "acme/fleet/more", false),
        (Github, "https://api.github.com", "acme/", false),
        (Github, "https://api.github.com", "/acme/fleet", false),
        (Github, "https://api.github.com", "fleet", false),
        (Github, "https://api.github.com", "42", false),
        (Github, "https://api.github.com", "acme/fleet?x", false),
        (Gitlab, "https://gitlab.com/api/v4", "acme/fleet", true),
        (
            Gitlab,
            "https://gitlab.com/api/v4/",
            "acme/eu/west/fleet",
            true,
        ),
        (Gitlab, "https://example.com/gitlab/api/v4", "42", true),
        (Gitlab, "https://gitlab.com", "acme/fleet", false),
        (Gitlab, "https://gitlab.com/api/v4", "fleet", false),
        (Gitlab, "https://gitlab.com/api/v4", "acme//fleet", false),
        (
            Gitlab,
            "https://gitlab.com/api/v4",
            "acme/%2e%2e/fleet",
            false,
        ),
        (Gitlab, "https://gitlab.com/api/v4", "", false),
        (Gitea, "https://git.example.com/api/v1", "acme/fleet", true),
        (Gitea, "https://git.example.com", "acme/fleet", false),
        (
            Gitea,
            "https://git.example.com/api/v1",
            "acme/eu/fleet",
            false,
        ),
    ] {
        let got = remote(kind, api, repository);
        assert_eq!(got.is_ok(), ok, "{kind:?} {api} {repository} {got:?}");
        if let Err(error) = got {
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
    let none = |kind| {
        Remote::new(
            kind,
            None,
            "acme/fleet",
            Credentials::Token(SecretText::new("t")),
        )
    };
    assert!(none(Github).is_ok() && none(Gitlab).is_ok());
    let error = none(Gitea).unwrap_err().to_string();
    assert_eq!(error, "gitea has no public API: set forge.apiURL");
}

/// Each forge's words for our states, and its limits of what goes with them.
#[test]
fn what_is_posted() {
    let sha = "a".repeat(40);
    let of = |kind, api, repository, state, words: usize, url: Option<&str>| {
        let remote = remote(kind, api, repository).unwrap();
        let destination = Destination {
            remote: &remote,
            sha: &sha,
            context: "ctx",
            reference: Some("main"),
        };
        let content = StatusContent {
            state,
            description: "w".repeat(words),
            target_url: url.map(str::to_owned),
        };
        match kind {
            Github => github::status(&destination, &content),
            Gitlab => gitlab::status(&destination, &content),
            Gitea => gitea::status(&destination, &content),
        }
    };
    use CommitState::{Error, Failure, Pending, Success};
    for (kind, api, words) in [
        (
            Github,
            "https://api.github.com",
            ["pending", "success", "failure", "error"],
        ),
        (
            Gitlab,
            "https://gitlab.com/api/v4",
            ["running", "success", "failed", "failed"],
        ),
        (
            Gitea,
            "https://x.example/api/v1",
            ["pending", "success", "failure", "error"],
        ),
    ] {
        for (state, word) in [Pending, Success, Failure, Error].into_iter().zip(words) {
            let call = of(kind, api, "acme/fleet", state, 3, None);
            assert_eq!(call.body.unwrap()["state"], word, "{kind:?}");
        }
    }
    let long = format!("https://example.com/{}", "x".repeat(300));
    let url = Some(long.as_str());
    let call = of(
        Github,
        "https://api.github.com",
        "acme/fleet",
        Success,
        200,
        url,
    );
    assert_eq!(
        call.url.as_str(),
        format!("https://api.github.com/repos/acme/fleet/statuses/{sha}")
    );
    let body = call.body.unwrap();
    assert_eq!(body["description"].as_str().unwrap().chars().count(), 140);
    assert_eq!(
        (&body["context"], &body["target_url"]),
        (&json!("ctx"), &json!(long))
    );
    assert_eq!(body["ref"], Value::Null);

    let call = of(Gitlab, "https://h/gl/api/v4/", "a/b/c", Success, 300, url);
    assert_eq!(
        call.url.as_str(),
        format!("https://h/gl/api/v4/projects/a%2Fb%2Fc/statuses/{sha}")
    );
    let body = call.body.unwrap();
    assert_eq!(body["description"].as_str().unwrap().chars().count(), 255);
    assert_eq!(
        (&body["name"], &body["ref"]),
        (&json!("ctx"), &json!("main"))
    );
    assert_eq!(body["target_url"], Value::Null, "a cut one leads nowhere");
    let call = of(
        Gitlab,
        "https://h/api/v4",
        "42",
        Success,
        1,
        Some("https://x"),
    );
    assert_eq!(
        call.url.as_str(),
        format!("https://h/api/v4/projects/42/statuses/{sha}")
    );
    assert_eq!(call.body.unwrap()["target_url"], "https://x");

    let call = of(Gitea, "https://h/api/v1", "a/b", Success, 900, url);
    assert_eq!(
        call.url.as_str(),
        format!("https://h/api/v1/repos/a/b/statuses/{sha}")
    );
    let body = call.body.unwrap();
    assert_eq!(body["description"].as_str().unwrap().len(), 900);
    assert_eq!(body["target_url"], json!(long));
}

/// The longest that each forge takes is sent as it is, and one character more is cut; at GitLab a URL is left out.
#[test]
fn limits_of_each_forge() {
    let sha = "a".repeat(40);
    let body = |kind, api, context: usize, words: usize, url: usize| {
        let remote = remote(kind, api, "acme/fleet").unwrap();
        let context = "c".repeat(context);
        let destination = Destination {
            remote: &remote,
            sha: &sha,
            context: &context,
            reference: None,
        };
        let content = StatusContent {
            state: CommitState::Success,
            description: "w".repeat(words),
            target_url: Some(format!("https://x/{}", "u".repeat(url - 10))),
        };
        let call = match kind {
            Github => github::status(&destination, &content),
            Gitlab => gitlab::status(&destination, &content),
            Gitea => gitea::status(&destination, &content),
        };
        call.body.unwrap()
    };
    let (hub, lab, tea) = (
        "https://api.github.com",
        "https://gitlab.com/api/v4",
        "https://x.example/api/v1",
    );
    let length = |value: &Value| value.as_str().map(|text| text.chars().count());
    // Forge, key of the context, then what is sent of 255 and 256 characters, of the description and of the URL.
    for (kind, api, key, words, url) in [
        (
            Github,
            hub,
            "context",
            [Some(140), Some(140)],
            [Some(255), Some(256)],
        ),
        (
            Gitlab,
            lab,
            "name",
            [Some(255), Some(255)],
            [Some(255), None],
        ),
        (
            Gitea,
            tea,
            "context",
            [Some(255), Some(256)],
            [Some(255), Some(256)],
        ),
    ] {
        for (at, size) in [255, 256].into_iter().enumerate() {
            let body = body(kind, api, size, size, size);
            assert_eq!(length(&body[key]), Some(255), "{kind:?} {size}");
            assert_eq!(length(&body["description"]), words[at], "{kind:?} {size}");
            assert_eq!(length(&body["target_url"]), url[at], "{kind:?} {size}");
            let whole = body[key].as_str().unwrap().chars().all(|c| c == 'c');
            assert_eq!(whole, size == 255, "{kind:?} {size}");
        }
        let cut = body(kind, api, 1, 100_000, 20)["description"].clone();
        let ends = cut.as_str().unwrap().ends_with('…');
        assert_eq!(ends, kind != Gitea, "{kind:?}");
    }
    let body = body(Github, hub, 1, 140, 20);
    assert_eq!(body["description"], "w".repeat(140));
}

#[test]
fn long_texts_are_cut() {
    assert_eq!(cut(&"ä".repeat(200), 140).chars().count(), 140);
    assert_eq!(cut("short", 140), "short");
    let (a, b) = (
        context_name(&format!("{}a", "ä".repeat(300))),
        context_name(&format!("{}b", "ä".repeat(300))),
    );
    assert_eq!(a.chars().count(), 255);
    assert_ne!(a, b);
    assert_eq!(
        context_name("fleetwright/default/default.default"),
        "fleetwright/default/default.default"
    );
}

const PKCS1: &str = include_str!("../../tests/keys/app.pkcs1.pem");
const PKCS8: &str = include_str!("../../tests/keys/app.pkcs8.pem");
const EC: &str = include_str!("../../tests/keys/ec.pem");
/// Header and claims in base64url, signed by `openssl dgst -sha256 -sign app.pkcs1.pem`.
const STATEMENT: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.",
    "eyJleHAiOjE3MDAwMDA1NDAsImlhdCI6MTY5OTk5OTk0MCwiaXNzIjoiMTIzNDUifQ.",
    "ZhPtetgN9Ev4XOZNf5aWXBoS3wJW55h6n9ZLarblKW6AGM4dMGq0x6uzz76Mkj6kk5GrHpxAkCDfpBDnckexW8ijJ_k5nMvIpqio0UWkwdrSN438jqHudDp4K6JtLZ-sLs49AfBFLYXOwbPNivfJ1yMQXGtrodAouaqllpX2QRSMOdnt8NYydzUBGsfUg0gUisBA1cp2mG_Gl21hlIZWJoKiiWsJ0O4Y86hGt8ypHrXdhVj3R1pxda6Ti5M_hZ_OX4wJPO7WkCQSJbHkwb1pIXIQAoej9mGUF720VMYJ4kv9znKks4xMQ0lUhc4YBlk7vk7Oh_z6WYHjLXm_HBefuA",
);

#[test]
fn an_app_says_who_it_is() {
    let app = |key: &str| AppCredentials {
        app: 12345,
        installation: 1,
        private_key: SecretText::new(key),
    };
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    for key in [PKCS1, PKCS8] {
        let statement = github::app::statement(&app(key), now).unwrap();
        assert_eq!(statement.expose(), STATEMENT);
    }
    for key in [
        EC,
        "",
        "garbage",
        "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        let error = github::app::statement(&app(key), now).unwrap_err();
        let PostError::Configuration(text) = error else {
            panic!("{error:?}");
        };
        assert!(
            text.contains("githubAppPrivateKey") && !text.contains("AAAA"),
            "{text}"
        );
    }
}
