use std::process::Command;

use age::secrecy::ExposeSecret;
use fleetwright_tests::tools::tool;

use super::*;

fn pki() -> ClusterPki {
    ClusterPki::generate("2026-01-01T00:00:00Z".parse().unwrap()).unwrap()
}

/// A new pair: the recipient, and the identity.
fn pair() -> (String, SecretText) {
    let identity = Identity::generate();
    (
        identity.to_public().to_string(),
        SecretText::new(identity.to_string().expose_secret()),
    )
}

#[test]
fn each_recipient_opens_it_and_nobody_else() {
    let (first, first_identity) = pair();
    let (second, second_identity) = pair();
    let (_, stranger) = pair();
    let pki = pki();
    let sealed = escrow("fleet", "prod", &pki, &[first, format!(" {second}\n")]).unwrap();
    assert!(sealed.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
    let want = Escrowed {
        namespace: "fleet".to_owned(),
        cluster: "prod".to_owned(),
        pki,
    };
    assert_eq!(unseal(&sealed, &first_identity).unwrap(), want);
    let file = format!(
        "# created: 2026-01-01\n# public key: age1…\n{}\n",
        second_identity.expose()
    );
    assert_eq!(unseal(&sealed, &SecretText::new(file)).unwrap(), want);
    let refused = unseal(&sealed, &stranger).unwrap_err().to_string();
    assert!(
        refused.contains("other keys than this identity"),
        "{refused}"
    );
}

#[test]
fn errors_say_what_to_do_and_repeat_no_secret() {
    let (recipient, identity) = pair();
    let sealed = escrow("fleet", "prod", &pki(), std::slice::from_ref(&recipient)).unwrap();
    let secret = identity.expose().to_owned();
    for (got, want) in [
        (
            escrow("fleet", "prod", &pki(), &[]).map(drop),
            "no recipients",
        ),
        (
            escrow("fleet", "prod", &pki(), &["ssh-ed25519 AAAA".to_owned()]).map(drop),
            "is no age recipient",
        ),
        (
            escrow("fleet", "prod", &pki(), std::slice::from_ref(&secret)).map(drop),
            "is a secret key",
        ),
        (unseal(b"", &identity).map(drop), "no age file"),
        (unseal(b"hello", &identity).map(drop), "no age file"),
        (
            unseal(&sealed, &SecretText::new(recipient)).map(drop),
            "AGE-SECRET-KEY-1",
        ),
        (
            unseal(&sealed, &SecretText::new("")).map(drop),
            "AGE-SECRET-KEY-1",
        ),
    ] {
        let error = got.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
        assert!(!error.contains(&secret), "{error}");
    }
}

/// Any change of the file is noticed; none makes it panic.
#[test]
fn damage_is_noticed() {
    let (recipient, identity) = pair();
    let sealed = escrow("fleet", "prod", &pki(), &[recipient]).unwrap();
    for cut in (0..sealed.len()).step_by(97) {
        assert!(unseal(&sealed[..cut], &identity).is_err(), "cut at {cut}");
        let mut changed = sealed.clone();
        // Base64 has no such character, and neither has the header.
        changed[cut] = b'!';
        assert!(unseal(&changed, &identity).is_err(), "changed at {cut}");
    }
}

#[test]
fn age_itself_opens_it_and_we_open_ages() {
    let (Some(age), Some(keygen)) = (tool("age"), tool("age-keygen")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.txt");
    assert!(
        Command::new(keygen)
            .arg("-o")
            .arg(&key)
            .status()
            .unwrap()
            .success()
    );
    let identity = std::fs::read_to_string(&key).unwrap();
    let recipient = identity
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap()
        .to_owned();
    let pki = pki();
    let sealed = folder.path().join("prod.age");
    std::fs::write(
        &sealed,
        escrow("fleet", "prod", &pki, std::slice::from_ref(&recipient)).unwrap(),
    )
    .unwrap();
    let opened = Command::new(&age)
        .arg("--decrypt")
        .arg("--identity")
        .arg(&key)
        .arg(&sealed)
        .output()
        .unwrap();
    assert!(opened.status.success(), "{opened:?}");
    let list: serde_json::Value = serde_json::from_slice(&opened.stdout).unwrap();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&"List".into(), &"v1".into())
    );
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    for item in items {
        assert_eq!(
            (&item["kind"], &item["apiVersion"]),
            (&"Secret".into(), &"v1".into())
        );
        assert_eq!(item["metadata"]["namespace"], "fleet");
    }

    let plain = folder.path().join("plain.json");
    std::fs::write(&plain, &opened.stdout).unwrap();
    let again = Command::new(&age)
        .args(["--encrypt", "--armor", "--recipient", &recipient])
        .arg(&plain)
        .output()
        .unwrap();
    let unsealed = unseal(&again.stdout, &SecretText::new(identity)).unwrap();
    assert_eq!(unsealed.pki, pki);
}

#[test]
fn a_snapshot_is_sealed_in_parts_of_any_size_and_only_whole() {
    let identity = Identity::generate();
    let recipients = [identity.to_public().to_string()];
    let database: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&database);
    let snapshot = [database.as_slice(), digest.as_slice()].concat();
    let seal = |snapshot: &[u8], size| {
        let mut sealer = SnapshotSealer::new(&recipients).unwrap();
        let parts = snapshot.chunks(size);
        let mut file: Vec<u8> = parts.flat_map(|p| sealer.part(p).unwrap()).collect();
        file.extend(sealer.finish()?);
        Ok::<_, EscrowError>(file)
    };
    for size in [7, 32, 33, 32 << 10, snapshot.len()] {
        let file = seal(&snapshot, size).unwrap();
        let decryptor = Decryptor::new_buffered(file.as_slice()).unwrap();
        let mut plain = Vec::new();
        let mut reader = decryptor
            .decrypt(std::iter::once(&identity as &dyn age::Identity))
            .unwrap();
        reader.read_to_end(&mut plain).unwrap();
        assert!(plain == snapshot, "{size}");
    }
    let mut other = snapshot.clone();
    other[5] ^= 1;
    for snapshot in [
        &snapshot[..snapshot.len() - 1],
        &snapshot[..database.len()],
        &snapshot[1..],
        &other,
        &[],
        &[0; 31],
    ] {
        assert!(matches!(seal(snapshot, 1000), Err(EscrowError::Digest)));
    }
}
