use std::process::Command;

use fleetwright_tests::{
    openssl::{AUTHORITIES, Openssl},
    tools::tool,
};
use jiff::ToSpan;
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{leaf::ADMIN, secrets::Purpose, *};
use crate::kubeconfig::{self, Due};

/// Certificates are asked about by a program that has a clock of its own.
fn now() -> Timestamp {
    use fleetwright_api::time::{Clock, SystemClock};
    SystemClock.now()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn openssl_accepts_what_is_made() {
    let Some(openssl) = Openssl::new() else {
        return;
    };
    let pki = ClusterPki::generate(now()).unwrap();
    let leaf = pki.cluster.client(ADMIN, LEAF_VALIDITY, now()).unwrap();
    assert!(openssl.verifies(&pki.cluster.certificate, &leaf.certificate));
    assert!(
        !openssl.verifies(&pki.etcd.certificate, &leaf.certificate),
        "another authority's"
    );

    let shown = openssl.text(&leaf.certificate);
    for part in [
        "Issuer: CN=kubernetes",
        "Subject: CN=kubernetes-admin,O=system:masters",
        "TLS Web Client Authentication",
        "Digital Signature, Key Encipherment",
        "prime256v1",
        "Authority Key Identifier",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains("CA:TRUE"), "{shown}");
    for (authority, name) in [
        (&pki.cluster, "kubernetes"),
        (&pki.etcd, "etcd-ca"),
        (&pki.front_proxy, "front-proxy-ca"),
    ] {
        let shown = openssl.text(&authority.certificate);
        for part in [
            format!("Subject: CN={name}"),
            "CA:TRUE".to_owned(),
            "Certificate Sign".to_owned(),
        ] {
            assert!(shown.contains(&part), "{part} is not in {shown}");
        }
    }

    let key = openssl.file("sa.key", pki.service_account.key.expose());
    let (_, public) = openssl.run(&["pkey", "-pubout", "-in"], &[&key]);
    assert_eq!(public, pki.service_account.public);
}

#[test]
fn the_hash_is_the_one_that_openssl_gives() {
    let Some(openssl) = Openssl::new() else {
        return;
    };
    let authority = Authority::generate("kubernetes", now()).unwrap();
    let file = openssl.file("ca.crt", &authority.certificate);
    let (_, public) = openssl.run(&["x509", "-noout", "-pubkey", "-in"], &[&file]);
    let public = openssl.file("ca.pub", &public);
    let der = openssl.folder.path().join("ca.der");
    let out = der.to_str().unwrap();
    openssl.run(
        &["pkey", "-pubin", "-outform", "DER", "-out", out, "-in"],
        &[&public],
    );
    let (_, digest) = openssl.run(&["dgst", "-sha256", "-r"], &[&der]);
    let digest = digest.split_whitespace().next().unwrap().to_owned();
    assert_eq!(authority.hash().unwrap(), format!("sha256:{digest}"));
}

/// Authorities that others made, with keys in the forms that they write.
#[test]
fn authorities_of_others_can_be_used() {
    let Some(openssl) = Openssl::new() else {
        return;
    };
    for (label, recipe) in AUTHORITIES {
        let made = openssl.authority(recipe);
        let authority = Authority {
            certificate: made.certificate,
            key: SecretText::new(made.key),
        };
        assert!(authority.key.expose().contains(&format!("BEGIN {label}")));
        authority.check().unwrap_or_else(|e| panic!("{label}: {e}"));
        let leaf = authority.client(ADMIN, LEAF_VALIDITY, now()).unwrap();
        assert!(
            openssl.verifies(&authority.certificate, &leaf.certificate),
            "{label}"
        );
        let (_, last) = keys::validity(&authority.certificate).unwrap();
        let (_, leaf_last) = keys::validity(&leaf.certificate).unwrap();
        assert!(leaf_last <= last, "not longer than its authority");
    }
}

#[test]
fn secrets_are_cluster_apis_and_read_back() {
    let pki = ClusterPki::generate(now()).unwrap();
    let secrets = pki.secrets("fleet", "prod");
    let names = secrets
        .iter()
        .map(|secret| secret.metadata.name.as_deref().unwrap());
    let want = ["prod-ca", "prod-etcd", "prod-proxy", "prod-sa"];
    assert!(names.eq(want));
    for secret in &secrets {
        assert_eq!(secret.type_.as_deref(), Some("cluster.x-k8s.io/secret"));
        let keys: Vec<_> = secret.data.as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["tls.crt", "tls.key"]);
    }
    assert_eq!(
        ClusterPki::find("prod", &secrets),
        Ok(Found::All(Box::new(pki.clone())))
    );
    assert_eq!(ClusterPki::find("other", &secrets), Ok(Found::Nothing));
    assert_eq!(
        ClusterPki::find("prod", &secrets[..2]),
        Ok(Found::Lacking(vec![
            "prod-proxy".to_owned(),
            "prod-sa".to_owned()
        ]))
    );
    let completed = ClusterPki::complete("prod", &secrets[..2], now()).unwrap();
    assert_eq!(
        (&completed.cluster, &completed.etcd),
        (&pki.cluster, &pki.etcd)
    );
    assert_ne!(completed.service_account, pki.service_account);
}

#[test]
fn secrets_that_hold_something_else_are_refused() {
    let pki = ClusterPki::generate(now()).unwrap();
    let other = ClusterPki::generate(now()).unwrap();
    let edit = |purpose: Purpose, edit: &dyn Fn(&mut Secret)| {
        let mut secrets = pki.secrets("fleet", "prod");
        edit(&mut secrets[purpose as usize]);
        ClusterPki::find("prod", &secrets).unwrap_err().to_string()
    };
    let set = |key: &'static str, value: &[u8]| {
        let value = ByteString(value.to_vec());
        move |secret: &mut Secret| {
            secret
                .data
                .as_mut()
                .unwrap()
                .insert(key.to_owned(), value.clone());
        }
    };
    let foreign = other.cluster.key.expose().as_bytes();
    for (got, want) in [
        (
            edit(Purpose::Cluster, &|secret| secret.data = None),
            "Secret prod-ca: has no key tls.crt",
        ),
        (
            edit(Purpose::Etcd, &set("tls.crt", b"\xff")),
            "Secret prod-etcd: tls.crt is no text",
        ),
        (
            edit(Purpose::FrontProxy, &set("tls.crt", b"nothing")),
            "Secret prod-proxy: the certificate: has no block CERTIFICATE",
        ),
        (
            edit(Purpose::Cluster, &set("tls.key", foreign)),
            "Secret prod-ca: tls.key: is not the key of the certificate",
        ),
        (
            edit(Purpose::ServiceAccount, &set("tls.key", foreign)),
            "Secret prod-sa: tls.key: is not the private key of the public key",
        ),
        (
            edit(
                Purpose::Cluster,
                &set(
                    "tls.key",
                    b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                ),
            ),
            "Secret prod-ca: the private key: is none that can be used",
        ),
    ] {
        assert!(got.starts_with(want), "{got}");
    }
}

#[test]
fn nothing_prints_a_key() {
    let pki = ClusterPki::generate(now()).unwrap();
    let leaf = pki.cluster.client(ADMIN, LEAF_VALIDITY, now()).unwrap();
    let printed = format!("{pki:?} {leaf:?}");
    for key in [
        &pki.cluster.key,
        &pki.etcd.key,
        &pki.service_account.key,
        &leaf.key,
    ] {
        let line = key.expose().lines().nth(1).unwrap();
        assert!(!printed.contains(line));
    }
    assert!(!printed.contains("PRIVATE"));
}

#[test]
fn certificates_are_renewed_at_half_life() {
    let (from, to) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
    let half = at("2026-07-02T12:00:00Z");
    for (now, want) in [
        ("2025-12-01T00:00:00Z", Renewal::At(half)),
        ("2026-01-01T00:00:00Z", Renewal::At(half)),
        ("2026-07-02T11:59:59Z", Renewal::At(half)),
        ("2026-07-02T12:00:00Z", Renewal::Due),
        ("2026-12-31T00:00:00Z", Renewal::Due),
        ("2030-01-01T00:00:00Z", Renewal::Due),
    ] {
        assert_eq!(renewal(from, to, at(now)), want, "{now}");
    }
    assert_eq!(renewal(to, from, at("2026-12-01T00:00:00Z")), Renewal::Due);
    assert_eq!(renewal(from, from, from), Renewal::Due);
}

#[test]
fn an_authority_that_expired_signs_nothing() {
    let made = now().checked_sub((24 * 366 * 11).hours()).unwrap();
    let authority = Authority::generate("kubernetes", made).unwrap();
    let error = authority.client(ADMIN, LEAF_VALIDITY, now()).unwrap_err();
    assert!(error.to_string().contains("expired at"), "{error}");
}

#[test]
fn a_kubeconfig_is_renewed_when_it_must() {
    let start = at("2026-01-01T00:00:00Z");
    let server = "https://10.0.0.1:6443";
    let (ours, other) = (
        Authority::generate("kubernetes", start).unwrap(),
        Authority::generate("kubernetes", start).unwrap(),
    );
    let config = kubeconfig::admin("prod", server, &ours, LEAF_VALIDITY, start).unwrap();
    let broken = SecretText::new("[");
    let empty = SecretText::new("clusters: []");
    for (config, authority, server, now, want) in [
        (&config, &ours, server, "2026-02-01T00:00:00Z", None),
        (
            &config,
            &ours,
            server,
            "2026-07-03T00:00:00Z",
            Some("half of its certificate's life has passed"),
        ),
        (
            &config,
            &other,
            server,
            "2026-02-01T00:00:00Z",
            Some("the cluster's authority is another one"),
        ),
        (
            &config,
            &ours,
            "https://lb:6443",
            "2026-02-01T00:00:00Z",
            Some("the API server is reached elsewhere"),
        ),
        (
            &broken,
            &ours,
            server,
            "2026-02-01T00:00:00Z",
            Some("it cannot be read"),
        ),
        (
            &empty,
            &ours,
            server,
            "2026-02-01T00:00:00Z",
            Some("the API server is reached elsewhere"),
        ),
    ] {
        match (kubeconfig::due(config, authority, server, at(now)), want) {
            (Due::At(time), None) => assert!(time > at(now)),
            (Due::Now(got), Some(want)) => assert_eq!(got, want),
            (got, want) => panic!("{got:?} where {want:?} was due"),
        }
    }
}

#[test]
fn kubectl_reads_the_kubeconfig() {
    let Some(kubectl) = tool("kubectl") else {
        return;
    };
    let authority = Authority::generate("kubernetes", now()).unwrap();
    let config = kubeconfig::admin(
        "prod",
        "https://10.0.0.1:6443",
        &authority,
        LEAF_VALIDITY,
        now(),
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, config.expose()).unwrap();
    let said = Command::new(kubectl)
        .args(["config", "view", "--minify", "--raw", "-o"])
        .arg("jsonpath={.current-context} {.clusters[0].cluster.server} {.users[0].name}")
        .arg("--kubeconfig")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "prod-admin@prod https://10.0.0.1:6443 prod-admin",
        "{said:?}"
    );
}
