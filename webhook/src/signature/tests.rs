use http::{HeaderName, HeaderValue};

use super::*;

const SECRET: &str = "It's a Secret to Everybody";
const BODY: &[u8] = b"Hello, World!";
/// The example in GitHub's documentation of webhook signatures.
const SIGNED: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
/// `printf 'Hello, World!' | openssl dgst -sha256 -hmac ''`: anybody can compute it.
const BY_NOBODY: &str = "2bbcfa9524f3218c7a34b30e6936f8b1a4516cb097f1a85a1c7d98b5977ec769";
/// `printf 'msg_1.1700000000.Hello, World!' | openssl dgst -sha256 -hmac "$SECRET" -binary | base64`.
const STANDARD_SIGNED: &str = "v1,quAPC8IoekzpzamzEhmkevIu2nLQeQaFAIIEaYw3C/A=";
const SIGNED_AT: i64 = 1_700_000_000;

type Pairs<'a> = Vec<(&'static str, &'a str)>;

fn check(kind: ForgeType, secret: &str, pairs: &Pairs<'_>, age: i64) -> Result<(), SignatureError> {
    let headers = pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect();
    let now = Timestamp::from_second(SIGNED_AT + age).unwrap();
    verify(kind, &SecretText::new(secret), &headers, BODY, now)
}

#[test]
fn github() {
    let name = "X-Hub-Signature-256";
    let signed = format!("sha256={SIGNED}");
    let upper = format!("sha256={}", SIGNED.to_uppercase());
    let flipped = signed.replacen('7', "8", 1);
    let no_hex = signed.replacen('7', "g", 1);
    let short = signed[..signed.len() - 2].to_owned();
    let sha1 = format!("sha1={SIGNED}");
    let by_nobody = format!("sha256={BY_NOBODY}");
    for (secret, header, want) in [
        (SECRET, signed.as_str(), Ok(())),
        (SECRET, &upper, Ok(())),
        (SECRET, &flipped, Err(Wrong(name))),
        (SECRET, &no_hex, Err(Malformed(name))),
        (SECRET, &short, Err(Malformed(name))),
        (SECRET, &sha1, Err(Malformed(name))),
        (SECRET, SIGNED, Err(Malformed(name))),
        (SECRET, "", Err(Missing(name))),
        ("other", &signed, Err(Wrong(name))),
        ("", &by_nobody, Err(SignatureError::EmptySecret)),
    ] {
        let got = check(
            ForgeType::Github,
            secret,
            &vec![("x-hub-signature-256", header)],
            0,
        );
        assert_eq!(got, want, "{secret} {header}");
    }
    let older = vec![(
        "x-hub-signature",
        "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59",
    )];
    let got = check(ForgeType::Github, SECRET, &older, 0);
    assert_eq!(got, Err(Missing(name)));
}

#[test]
fn gitea_and_forgejo() {
    let (gitea, forgejo) = ("X-Gitea-Signature", "X-Forgejo-Signature");
    let (g, f) = ("x-gitea-signature", "x-forgejo-signature");
    let prefixed = format!("sha256={SIGNED}");
    let flipped = SIGNED.replacen('7', "8", 1);
    let upper = SIGNED.to_uppercase();
    let rows: Vec<(&str, Pairs<'_>, Result<(), SignatureError>)> = vec![
        (SECRET, vec![(g, SIGNED)], Ok(())),
        (SECRET, vec![(g, &upper)], Ok(())),
        (SECRET, vec![(f, SIGNED)], Ok(())),
        (SECRET, vec![(f, SIGNED), (g, SIGNED)], Ok(())),
        // The first that is there counts alone.
        (
            SECRET,
            vec![(f, &flipped), (g, SIGNED)],
            Err(Wrong(forgejo)),
        ),
        (SECRET, vec![(f, ""), (g, SIGNED)], Err(Missing(forgejo))),
        (SECRET, vec![(g, &flipped)], Err(Wrong(gitea))),
        (SECRET, vec![(g, &prefixed)], Err(Malformed(gitea))),
        // A forge without a secret writes the header all the same.
        (SECRET, vec![(g, "")], Err(Missing(gitea))),
        (SECRET, vec![(g, BY_NOBODY)], Err(Wrong(gitea))),
        (
            SECRET,
            vec![("x-hub-signature-256", &prefixed)],
            Err(Missing(gitea)),
        ),
        (SECRET, vec![], Err(Missing(gitea))),
        ("", vec![(g, BY_NOBODY)], Err(SignatureError::EmptySecret)),
    ];
    for (secret, pairs, want) in rows {
        let got = check(ForgeType::Gitea, secret, &pairs, 0);
        assert_eq!(got, want, "{secret} {pairs:?}");
    }
}

/// The secret's own bytes do not match in more or less time (CVE-2022-24912): what is compared are hashes.
#[test]
fn cve_2022_24912_gitlab_token() {
    let name = "X-Gitlab-Token";
    for (secret, header, want) in [
        (SECRET, SECRET, Ok(())),
        (SECRET, "It's a Secret to Everybod", Err(Wrong(name))),
        (SECRET, "It's a Secret to Everybody!", Err(Wrong(name))),
        (SECRET, "", Err(Missing(name))),
        ("", "", Err(SignatureError::EmptySecret)),
    ] {
        let got = check(
            ForgeType::Gitlab,
            secret,
            &vec![("x-gitlab-token", header)],
            0,
        );
        assert_eq!(got, want, "{secret} {header}");
    }
    assert_eq!(
        check(ForgeType::Gitlab, SECRET, &vec![], 0),
        Err(Missing(name))
    );
}

#[test]
fn gitlab_signing_token() {
    let name = "webhook-signature";
    // The same key, as GitLab writes signing tokens.
    let whsec = "whsec_SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk=";
    let several = format!("v1,AAAA v2,x {STANDARD_SIGNED} v1,!");
    let bare = STANDARD_SIGNED.trim_start_matches("v1,");
    fn signed(signature: &str) -> Pairs<'_> {
        vec![
            ("webhook-signature", signature),
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", "1700000000"),
        ]
    }
    fn with_token(signature: &str) -> Pairs<'_> {
        let mut pairs = signed(signature);
        pairs.push(("x-gitlab-token", SECRET));
        pairs
    }
    let with = |mut pairs: Pairs<'static>, at: usize, value| {
        pairs[at].1 = value;
        pairs
    };
    let good = || signed(STANDARD_SIGNED);
    let rows: Vec<(&str, Pairs<'_>, i64, Result<(), SignatureError>)> = vec![
        (SECRET, good(), 0, Ok(())),
        (whsec, good(), 0, Ok(())),
        (SECRET, signed(&several), 0, Ok(())),
        (SECRET, good(), 300, Ok(())),
        (SECRET, good(), -300, Ok(())),
        (SECRET, good(), 301, Err(Stale)),
        (SECRET, good(), -301, Err(Stale)),
        (SECRET, with(good(), 1, "msg_2"), 0, Err(Wrong(name))),
        (SECRET, with(good(), 2, "1700000001"), 0, Err(Wrong(name))),
        (
            SECRET,
            with(good(), 2, "soon"),
            0,
            Err(Malformed("webhook-timestamp")),
        ),
        (
            SECRET,
            with(good(), 2, ""),
            0,
            Err(Missing("webhook-timestamp")),
        ),
        (
            SECRET,
            with(good(), 2, "-9223372036854775808"),
            0,
            Err(Wrong(name)),
        ),
        (SECRET, good()[..1].to_vec(), 0, Err(Missing("webhook-id"))),
        (SECRET, signed(bare), 0, Err(Wrong(name))),
        (SECRET, signed("v1,"), 0, Err(Wrong(name))),
        ("other", good(), 0, Err(Wrong(name))),
        ("whsec_", good(), 0, Err(SignatureError::EmptySecret)),
        ("whsec_!", good(), 0, Err(Wrong(name))),
        // Neither an empty signature nor a wrong one is made good by the plain token.
        (SECRET, with_token(""), 0, Err(Missing(name))),
        (SECRET, with_token("v1,AAAA"), 0, Err(Wrong(name))),
    ];
    for (secret, pairs, age, want) in rows {
        let got = check(ForgeType::Gitlab, secret, &pairs, age);
        assert_eq!(got, want, "{secret} {pairs:?} {age}");
    }
}

#[test]
fn refusals_name_no_secret() {
    for error in [
        Missing("X"),
        Malformed("X"),
        Wrong("X"),
        Stale,
        SignatureError::EmptySecret,
    ] {
        assert!(!error.to_string().contains(SECRET));
    }
}
