//! Kubeconfigs that are read and refused, row by row.

use fleetwright_tests::{pki::Authority, workload::base64};
use serde_json::{Value, json};

use super::*;

/// Puts `from` over `to`, object by object; arrays by position.
fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(to), Value::Array(from)) => {
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| merge(to, from));
        }
        (to, from) => *to = from,
    }
}

fn good() -> Value {
    let authority = Authority::new("ca").identity.certificate;
    json!({
        "current-context": "two",
        "contexts": [
            {"name": "one", "context": {"cluster": "a", "user": "a"}},
            {"name": "two", "context": {"cluster": "b", "user": "b", "namespace": "n"}},
        ],
        "clusters": [
            {"name": "a", "cluster": {"server": "http://old.example"}},
            {"name": "b", "cluster": {"server": "https://b.example:6443/k8s", "certificate-authority-data": base64(&authority)}},
        ],
        "users": [
            {"name": "a", "user": {"exec": {"command": "rm"}}},
            {"name": "b", "user": {"token": "hush"}},
        ],
    })
}

fn with(change: Value) -> Result<Config, Refused> {
    let mut config = good();
    merge(&mut config, change);
    read(config.to_string().as_bytes())
}

/// A change of the current cluster, or of the current user.
fn cluster(change: Value) -> Value {
    json!({"clusters": [{}, {"cluster": change}]})
}

fn user(change: Value) -> Value {
    json!({"users": [{}, {"user": change}]})
}

#[test]
fn the_current_context_counts_and_others_may_hold_anything() {
    let config = with(json!({})).unwrap();
    assert_eq!(config.cluster_url, "https://b.example:6443/k8s");
    assert_eq!(config.default_namespace, "n");
    assert!(config.root_cert.is_some_and(|all| all.len() == 1));
    assert!(config.proxy_url.is_none());
    assert!(!config.accept_invalid_certs);
    assert!(
        with(cluster(
            json!({"insecure-skip-tls-verify": false, "tls-server-name": "b"})
        ))
        .is_ok()
    );
    let authority = Authority::new("ca");
    let identity = authority.sign("admin", &[]);
    let pair = json!({
        "client-certificate-data": base64(&identity.certificate), "client-key-data": base64(&identity.key),
    });
    assert!(with(user(pair)).is_ok());
}

#[test]
fn what_is_refused_says_which_field_and_what_to_use() {
    let other = Authority::new("other").sign("b", &[]);
    let rows: &[(Value, &str, &str)] = &[
        (
            json!({"current-context": null}),
            "current-context",
            "name the entry of contexts",
        ),
        (
            json!({"current-context": "three"}),
            "current-context",
            "contexts has no entry",
        ),
        (
            json!({"contexts": null}),
            "current-context",
            "contexts has no entry",
        ),
        (
            json!({"contexts": [{}, {"context": {"cluster": "c"}}]}),
            "clusters",
            "as cluster",
        ),
        (
            json!({"contexts": [{}, {"context": {"user": "c"}}]}),
            "users",
            "as user",
        ),
        (
            json!({"contexts": [{}, {"context": {"user": null}}]}),
            "users",
            "as user",
        ),
        (
            cluster(json!({"server": "http://b.example"})),
            "clusters[1].cluster.server",
            "give an https:// address",
        ),
        (
            cluster(json!({"server": "b.example:6443"})),
            "clusters[1].cluster.server",
            "give an https:// address",
        ),
        (
            cluster(json!({"server": null})),
            "clusters[1].cluster.server",
            "https://HOST:PORT",
        ),
        (
            cluster(json!({"server": "https://who:hush@b.example"})),
            "clusters[1].cluster.server",
            "https://HOST:PORT",
        ),
        (
            cluster(json!({"server": "https://b.example?x=y"})),
            "clusters[1].cluster.server",
            "https://HOST:PORT",
        ),
        (
            cluster(json!({"insecure-skip-tls-verify": true})),
            "clusters[1].cluster.insecure-skip-tls-verify",
            "certificate-authority-data",
        ),
        (
            cluster(json!({"proxy-url": "http://127.0.0.1:1"})),
            "clusters[1].cluster.proxy-url",
            "leave it out",
        ),
        (
            cluster(json!({"certificate-authority": "/etc/passwd"})),
            "clusters[1].cluster.certificate-authority",
            "certificate-authority-data",
        ),
        (
            cluster(json!({"certificate-authority-data": null})),
            "clusters[1].cluster.certificate-authority-data",
            "give the certificates",
        ),
        (
            cluster(json!({"certificate-authority-data": "-"})),
            "clusters[1].cluster.certificate-authority-data",
            "no base64",
        ),
        (
            cluster(json!({"certificate-authority-data": base64("no PEM")})),
            "clusters[1].cluster.certificate-authority-data",
            "no base64",
        ),
        (
            user(
                json!({"exec": {"command": "aws", "apiVersion": "client.authentication.k8s.io/v1"}}),
            ),
            "users[1].user.exec",
            "no program is run: use",
        ),
        (
            user(json!({"auth-provider": {"name": "gcp"}})),
            "users[1].user.auth-provider",
            "no program is run: use",
        ),
        (
            user(json!({"tokenFile": "/var/run/token"})),
            "users[1].user.tokenFile",
            "in token",
        ),
        (
            user(json!({"client-certificate": "/a.crt"})),
            "users[1].user.client-certificate",
            "client-certificate-data",
        ),
        (
            user(json!({"client-key": "/a.key"})),
            "users[1].user.client-key",
            "client-key-data",
        ),
        (
            user(json!({"client-certificate-data": base64(&other.certificate)})),
            "users[1].user",
            "both or neither",
        ),
        (
            user(
                json!({"client-certificate-data": base64("hush"), "client-key-data": base64("hush")}),
            ),
            "users[1].user",
            "both or neither",
        ),
        (
            user(json!({"token": "hu\nsh"})),
            "users[1].user",
            "no header can have",
        ),
    ];
    for (change, field, why) in rows {
        let refused = with(change.clone()).map(drop).unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with(&format!("{field}: ")), "{change}: {text}");
        assert!(text.contains(why), "{change}: {text}");
        assert!(!text.contains("hush"), "{change}: {text}");
    }
}

#[test]
fn what_is_no_kubeconfig_is_refused_without_showing_it() {
    let large = vec![b' '; MOST_BYTES + 1];
    let deep = "[".repeat(MOST_BYTES);
    // Each alias stands for ten of the one before.
    let mut bomb = "a0: &a0 [hush]\n".to_owned();
    for n in 1..20 {
        let all = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb += &format!("a{n}: &a{n} [{all}]\n");
    }
    for (bytes, want) in [
        (
            &large[..],
            "it has 102401 bytes, and at most 102400 are read",
        ),
        (b"\xff\xfe", "it is no text"),
        (b"users: {hush", "line 1, column "),
        (b"a: 1\nusers: hush\n", "line 2, column "),
        (b"hush", "line 1, column "),
        (b"", "current-context: it is missing"),
        (deep.as_bytes(), "line 1, column "),
        (bomb.as_bytes(), "line "),
    ] {
        let text = read(bytes).map(drop).unwrap_err().to_string();
        assert!(text.starts_with(want), "{want}: {text}");
        assert!(!text.contains("hush"), "{text}");
    }
}
