//! A real OpenSSH server, which speaks to who knows its keys and is known by it.

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fleetwright_tests::tools::tool;

use super::*;

/// A server for one user's keys, with its port on loopback.
pub(super) struct Server {
    pub(super) port: u16,
    /// Connections that were made to it.
    pub(super) connections: Arc<AtomicUsize>,
    user: String,
}

/// Makes a key pair in `dir`; gives the path of the private one.
pub(super) fn key(dir: &Path, name: &str, args: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let made = Command::new(tool("ssh-keygen").unwrap())
        .args(["-q", "-f", path.to_str().unwrap(), "-C", name])
        .args(args)
        .status();
    assert!(made.unwrap().success(), "ssh-keygen {args:?}");
    path
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

pub(super) fn public(key: &Path) -> String {
    read(&key.with_extension("pub"))
}

impl Server {
    /// Starts one process for each connection; none where there is no sshd.
    pub(super) fn start(dir: &Path, hosts: &[&Path], authorized: &str) -> Option<Self> {
        let (sshd, _) = (tool("sshd")?, tool("ssh-keygen")?);
        let root = rustix_uid() == "0";
        if root {
            // Where sshd goes when it gives up its rights; a service would have made it.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let keys = dir.join("authorized_keys");
        std::fs::write(&keys, authorized).unwrap();
        let mut config = format!(
            "AuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n\
             LogLevel QUIET\nForceCommand git shell -c \"$SSH_ORIGINAL_COMMAND\"\n",
            keys.display()
        );
        for host in hosts {
            config += &format!("HostKey {}\n", host.display());
        }
        let file = dir.join("sshd_config");
        std::fs::write(&file, config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = OwnedFd::from(stream.unwrap());
                counted.fetch_add(1, Ordering::SeqCst);
                let child = Command::new(&sshd)
                    .args(["-i", "-f", file.to_str().unwrap()])
                    .stdin(Stdio::from(stream.try_clone().unwrap()))
                    .stdout(Stdio::from(stream))
                    .stderr(Stdio::null())
                    .spawn();
                std::thread::spawn(move || child.unwrap().wait());
            }
        });
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        Some(Self {
            port,
            connections,
            user: String::from_utf8(user).unwrap().trim().to_owned(),
        })
    }

    pub(super) fn url(&self, path: &Path) -> String {
        let (user, port) = (&self.user, self.port);
        format!("ssh://{user}@127.0.0.1:{port}{}", path.display())
    }
}

fn rustix_uid() -> String {
    let out = Command::new("id").arg("-u").output().unwrap().stdout;
    String::from_utf8(out).unwrap().trim().to_owned()
}

/// A Secret's data.
pub(super) fn secret(parts: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let parts = parts.iter();
    parts
        .map(|(key, text)| ((*key).to_owned(), bytes(text)))
        .collect()
}

/// What a fetch of main comes to.
fn fetch(remote: &Remote, url: &str, data: &BTreeMap<String, ByteString>) -> Result<Oid, String> {
    let address = Address::parse(url).map_err(|e| e.to_string())?;
    let credentials = Credentials::of(Some(data), &address)?;
    let cache = tempfile::tempdir().unwrap();
    let source = Caches::from(cache.path().join("caches")).source(address, credentials);
    let main = GitRef {
        branch: Some("main".into()),
        ..GitRef::default()
    };
    let wanted = Wanted::of(&main).unwrap();
    let found = source.resolve(std::slice::from_ref(&wanted), &wanted, now());
    let commit = found.map_err(|e| e.to_string())?;
    let tree = source.tree(commit, "").map_err(|e| e.to_string())?;
    let files = source.files(tree, &Filter::default());
    assert_eq!(named(files.unwrap()).len(), remote.files().len());
    Ok(commit)
}

#[test]
fn cve_2025_23390_host_keys() {
    let remote = Remote::new();
    let dir = remote.dir.path();
    if tool("ssh-keygen").is_none() {
        return;
    }
    let host = key(dir, "host", &["-t", "ed25519", "-N", ""]);
    let stranger = key(dir, "stranger", &["-t", "ed25519", "-N", ""]);
    let plain = key(dir, "plain", &["-t", "ed25519", "-N", ""]);
    let locked = key(dir, "locked", &["-t", "ed25519", "-N", "s3cret"]);
    let rsa = key(dir, "rsa", &["-t", "rsa", "-b", "2048", "-N", ""]);
    let pem = key(dir, "pem", &["-t", "ecdsa", "-m", "PEM", "-N", ""]);
    let pem_locked = key(
        dir,
        "pem-locked",
        &["-t", "rsa", "-m", "PEM", "-N", "s3cret"],
    );
    let known = [&plain, &locked, &rsa, &pem, &pem_locked].map(|key| public(key));
    let Some(server) = Server::start(dir, &[&host], &known.concat()) else {
        return;
    };
    let head = remote.commit(&[("a.yaml", "a: 1"), ("b/c.yaml", "c: 1")]);
    let url = server.url(remote.repository.path());
    let name = format!("[127.0.0.1]:{}", server.port);
    let ours = format!("{name} {}", public(&host));
    let hashed = {
        let file = dir.join("known_hosts");
        std::fs::write(&file, &ours).unwrap();
        let args = ["-q", "-H", "-f", file.to_str().unwrap()];
        let made = Command::new(tool("ssh-keygen").unwrap())
            .args(args)
            .output();
        assert!(made.unwrap().status.success());
        let text = read(&file);
        assert!(text.starts_with("|1|"), "{text}");
        text
    };
    let others = format!("{name} {}", public(&stranger));
    let elsewhere = format!("127.0.0.1 {}", public(&host));
    let revoked = format!("{ours}@revoked * {}", public(&host));
    let two = format!("{others}{ours}");
    let rows = [
        ("a key", &plain, "", &ours, ""),
        ("a key with a password", &locked, "s3cret", &ours, ""),
        ("an RSA key", &rsa, "", &ours, ""),
        ("a key in PEM", &pem, "", &ours, ""),
        (
            "a key in PEM with a password",
            &pem_locked,
            "s3cret",
            &ours,
            "",
        ),
        ("a hashed name", &plain, "", &hashed, ""),
        ("two keys of the host", &plain, "", &two, ""),
        (
            "another key of the host",
            &plain,
            "",
            &others,
            "other keys for [127.0.0.1]",
        ),
        (
            "a host that is not known",
            &plain,
            "",
            &elsewhere,
            "no line for [127.0.0.1]",
        ),
        ("a revoked key", &plain, "", &revoked, "known_hosts revokes"),
        (
            "an unknown identity",
            &stranger,
            "",
            &ours,
            "refuses the private key",
        ),
        (
            "no password",
            &locked,
            "",
            &ours,
            "private key could not be used",
        ),
        (
            "a wrong password",
            &locked,
            "wr0ng",
            &ours,
            "private key could not be used",
        ),
    ];
    for (what, identity, password, known, wanted) in rows {
        let identity = read(identity);
        let data = secret(&[
            ("identity", &identity),
            ("identityPassword", password),
            ("known_hosts", known),
        ]);
        match fetch(&remote, &url, &data) {
            Ok(commit) => assert!(wanted.is_empty() && commit == head, "{what}"),
            Err(why) => {
                assert!(!wanted.is_empty() && why.contains(wanted), "{what}: {why}");
                assert!(
                    !why.contains("s3cret") && !why.contains(&identity),
                    "{what}"
                );
            }
        }
    }
    let identity = read(&plain);
    let without = fetch(&remote, &url, &secret(&[("identity", &identity)]));
    assert!(without.unwrap_err().contains("known_hosts"));
    let without = fetch(&remote, &url, &secret(&[("known_hosts", &ours)]));
    assert!(without.unwrap_err().contains("key identity"));
    let short = format!(
        "{}@127.0.0.1:{}",
        server.user,
        remote.repository.path().display()
    );
    let (_, rest) = url.split_once('@').unwrap();
    let nobody = format!("ssh://nobody-at-all@{rest}");
    let data = secret(&[("identity", &identity), ("known_hosts", &ours)]);
    assert!(fetch(&remote, &nobody, &data).is_err(), "another user");
    // The short form is of port 22, where this server is not.
    let form = Address::parse(&short).unwrap().form;
    assert_eq!(
        form,
        Form::Ssh {
            name: "127.0.0.1".into()
        }
    );
    // No user in the URL: the Secret's.
    let data = secret(&[
        ("username", &server.user),
        ("identity", &identity),
        ("known_hosts", &ours),
    ]);
    assert_eq!(fetch(&remote, &format!("ssh://{rest}"), &data), Ok(head));
}

/// A repository behind a server, with what is needed to read it; none where there is no sshd.
pub(super) fn served() -> Option<(Remote, Server, GitSource)> {
    let remote = Remote::new();
    let dir = remote.dir.path();
    tool("ssh-keygen")?;
    let host = key(dir, "host", &["-t", "ed25519", "-N", ""]);
    let plain = key(dir, "plain", &["-t", "ed25519", "-N", ""]);
    let server = Server::start(dir, &[&host], &public(&plain))?;
    let address = Address::parse(&server.url(remote.repository.path())).unwrap();
    let known = format!("[127.0.0.1]:{} {}", server.port, public(&host));
    let data = secret(&[("identity", &read(&plain)), ("known_hosts", &known)]);
    let credentials = Credentials::of(Some(&data), &address).unwrap();
    let source = GitSource {
        cache: dir.join("ssh-cache"),
        address,
        credentials: credentials.into(),
    };
    Some((remote, server, source))
}
