use http::HeaderValue;

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(k, v)| {
            (
                http::HeaderName::from_static(k),
                HeaderValue::from_str(v).unwrap(),
            )
        })
        .collect()
}

#[test]
fn answers_say_what_to_do() {
    let now = Timestamp::from_second(1_000).unwrap();
    let limited = |s| {
        Err(PostError::RateLimited {
            after: Duration::from_secs(s),
        })
    };
    let cases: Vec<(u16, HeaderMap, Result<(), PostError>)> = vec![
        (201, headers(&[]), Ok(())),
        (429, headers(&[("retry-after", "7")]), limited(7)),
        (429, headers(&[]), limited(60)),
        (
            403,
            headers(&[
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1030"),
            ]),
            limited(30),
        ),
        (
            403,
            headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "900")]),
            limited(1),
        ),
        (
            403,
            headers(&[("x-ratelimit-remaining", "12")]),
            Err(PostError::Refused { status: 403 }),
        ),
        (401, headers(&[]), Err(PostError::Refused { status: 401 })),
        (
            404,
            headers(&[]),
            Err(PostError::Unknown {
                status: 404,
                message: "said".into(),
            }),
        ),
        (
            422,
            headers(&[]),
            Err(PostError::Unknown {
                status: 422,
                message: "said".into(),
            }),
        ),
        (
            502,
            headers(&[]),
            Err(PostError::Passing("the forge answered 502 said".into())),
        ),
        (
            302,
            headers(&[]),
            Err(PostError::Configuration(
                "the forge answered 302 said".into(),
            )),
        ),
    ];
    for (status, headers, want) in cases {
        let got = judge(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            br#"{"message":"said"}"#,
            now,
        );
        assert_eq!(got, want, "{status} {headers:?}");
    }
}

#[test]
fn the_token_goes_only_where_it_is_safe() {
    let sha = "a".repeat(40);
    for (api, repository, sha, ok) in [
        ("https://api.github.com", "acme/fleet", sha.as_str(), true),
        (
            "https://ghe.example.com/api/v3/",
            "acme/fleet.x",
            sha.as_str(),
            true,
        ),
        ("http://127.0.0.1:8080", "acme/fleet", sha.as_str(), true),
        ("http://[::1]:8080", "acme/fleet", sha.as_str(), true),
        (
            "http://ghe.example.com/api/v3",
            "acme/fleet",
            sha.as_str(),
            false,
        ),
        (
            "http://localhost.example.com",
            "acme/fleet",
            sha.as_str(),
            false,
        ),
        ("ftp://127.0.0.1", "acme/fleet", sha.as_str(), false),
        ("https://api.github.com", "acme/../x", sha.as_str(), false),
        ("https://api.github.com", "acme/..", sha.as_str(), false),
        ("https://api.github.com", "fleet", sha.as_str(), false),
        (
            "https://api.github.com",
            "acme/fleet?x",
            sha.as_str(),
            false,
        ),
        ("https://api.github.com", "acme/fleet", "main", false),
        ("nonsense", "acme/fleet", sha.as_str(), false),
    ] {
        assert_eq!(
            status_url(api, repository, sha).is_ok(),
            ok,
            "{api} {repository} {sha}"
        );
    }
}

#[test]
fn long_texts_are_cut() {
    assert_eq!(cut(&"ä".repeat(200), 140).chars().count(), 140);
    assert_eq!(cut("short", 140), "short");
    let (a, b) = (
        context_name(&format!("{}a", "x".repeat(300))),
        context_name(&format!("{}b", "x".repeat(300))),
    );
    assert_eq!(a.len(), 255);
    assert_ne!(a, b);
    assert_eq!(
        context_name("fleetwright/default/default.default"),
        "fleetwright/default/default.default"
    );
}
