//! Repositories behind https, with authorities of their own.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

use super::{ssh::secret, *};

/// An authority, as PEM and to sign with.
pub(super) struct Ca {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// A server's certificate for a host, until a year.
    pub(super) fn sign(&self, host: &str, until: i32) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.unwrap())
    }
}

/// What a server does with a request.
#[derive(Clone)]
pub(super) enum Role {
    /// Serves the repository at this path to who knows this token.
    Repository(String, &'static str),
    /// Sends to this URL.
    Redirect(String),
}

/// A server on loopback: its port, and the heads of the requests that it got.
pub(super) struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn start(config: Arc<ServerConfig>, role: Role) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                // Who does not trust the authority hangs up.
                answer(StreamOwned::new(connection, stream.unwrap()), &role, &seen).ok();
            }
        });
        Self { port, heads }
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}/acme/fleet.git", self.port)
    }

    /// Whether it was told the token.
    fn knows(&self) -> bool {
        let heads = self.heads.lock().unwrap();
        heads
            .iter()
            .any(|head| head.to_lowercase().contains("authorization:"))
    }
}

fn answer(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    role: &Role,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part)?;
        bytes.extend_from_slice(&part[..n]);
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if n == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    seen.lock().unwrap().push(head.clone());
    let lower = head.to_lowercase();
    let length = lower.split_once("content-length:").map_or(0, |(_, rest)| {
        rest.lines().next().unwrap().trim().parse().unwrap()
    });
    // A push comes in chunks.
    let chunked = lower.contains("transfer-encoding: chunked");
    let is_whole = |bytes: &[u8]| match chunked {
        true => bytes.ends_with(b"0\r\n\r\n"),
        false => bytes.len() >= end + length,
    };
    while !is_whole(&bytes) {
        let mut part = [0; 4096];
        let n = stream.read(&mut part)?;
        if n == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&part[..n]);
    }
    let body = match chunked {
        true => unchunked(&bytes[end..]),
        false => bytes[end..].to_vec(),
    };
    let service = ["git-receive-pack", "git-upload-pack"];
    let service = service.into_iter().find(|service| head.contains(service));
    let (status, header, body) = match role {
        Role::Redirect(to) => ("302 Found", format!("Location: {to}"), Vec::new()),
        Role::Repository(_, token) if !head.contains(&basic(token)) => (
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"fleet\"".to_owned(),
            Vec::new(),
        ),
        Role::Repository(path, _) => {
            let service = service.unwrap();
            let name = service.strip_prefix("git-").unwrap();
            if head.starts_with("GET") {
                let refs = pack(name, path, &["--advertise-refs"], &[]);
                let first = format!("# service={service}\n");
                let first = format!("{:04x}{first}0000", first.len() + 4);
                let kind = format!("Content-Type: application/x-{service}-advertisement");
                ("200 OK", kind, [first.as_bytes(), &refs].concat())
            } else {
                let kind = format!("Content-Type: application/x-{service}-result");
                ("200 OK", kind, pack(name, path, &[], &body))
            }
        }
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), &body].concat())?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// How a client writes this token.
fn basic(token: &str) -> String {
    // Of `x-access-token:t0ken`.
    match token {
        "t0ken" => "Basic eC1hY2Nlc3MtdG9rZW46dDBrZW4=".into(),
        other => panic!("{other}"),
    }
}

/// What was sent in chunks.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 4 + size..];
    }
    whole
}

fn pack(service: &str, path: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args([service, "--stateless-rpc"])
        .args(args)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// What a fetch of main comes to.
fn fetch(url: &str, data: &BTreeMap<String, ByteString>) -> Result<Oid, String> {
    let address = Address::parse(url).map_err(|e| e.to_string())?;
    let credentials = Credentials::of(Some(data), &address)?;
    let cache = tempfile::tempdir().unwrap();
    let source = Caches::from(cache.path().join("caches")).source(address, credentials);
    let wanted = Wanted::of(&GitRef::default()).unwrap();
    let found = source.resolve(std::slice::from_ref(&wanted), &wanted, now());
    found.map_err(|e| {
        let cause = std::error::Error::source(&e).map(ToString::to_string);
        format!("{e} {}", cause.unwrap_or_default())
    })
}

#[test]
fn an_authority_is_a_fleets_own() {
    let remote = Remote::new();
    let head = remote.commit(&[("a.yaml", "a: 1")]);
    let path = remote.repository.path().to_str().unwrap().to_owned();
    let (ours, theirs) = (Ca::new(), Ca::new());
    let here = "127.0.0.1";
    let both = format!("{}{}", theirs.pem, ours.pem);
    let rows = [
        (
            "signed by it",
            ours.sign(here, 2100),
            &ours.pem,
            "t0ken",
            "",
        ),
        ("one of two", ours.sign(here, 2100), &both, "t0ken", ""),
        (
            "by another",
            theirs.sign(here, 2100),
            &ours.pem,
            "t0ken",
            "ca.crt",
        ),
        ("over", ours.sign(here, 2020), &ours.pem, "t0ken", "expired"),
        (
            "another host",
            ours.sign("example.org", 2100),
            &ours.pem,
            "t0ken",
            "not valid for name",
        ),
        (
            "none of its own",
            ours.sign(here, 2100),
            &String::new(),
            "t0ken",
            "not trusted",
        ),
        (
            "no token",
            ours.sign(here, 2100),
            &ours.pem,
            "",
            "asks for credentials",
        ),
    ];
    for (what, config, ca, token, wanted) in rows {
        let server = Server::start(config, Role::Repository(path.clone(), "t0ken"));
        let data = secret(&[("token", token), ("ca.crt", ca)]);
        match fetch(&server.url(), &data) {
            Ok(commit) => assert!(wanted.is_empty() && commit == head, "{what}"),
            Err(why) => {
                assert!(!wanted.is_empty() && why.contains(wanted), "{what}: {why}");
                assert!(!why.contains("t0ken"), "{what}: {why}");
                assert!(!server.knows() || wanted.contains("credentials"), "{what}");
            }
        }
    }
    let odd = fetch("https://127.0.0.1/x", &secret(&[("ca.crt", "x")]));
    assert!(odd.unwrap_err().contains("ca.crt"));
}

#[test]
fn a_redirect_takes_no_token_to_another_server() {
    let remote = Remote::new();
    remote.commit(&[("a.yaml", "a: 1")]);
    let path = remote.repository.path().to_str().unwrap().to_owned();
    let ca = Ca::new();
    let config = ca.sign("127.0.0.1", 2100);
    let other = Server::start(Arc::clone(&config), Role::Repository(path, "t0ken"));
    let plain = other.url().replace("https://", "http://");
    let data = secret(&[("token", "t0ken"), ("ca.crt", &ca.pem)]);
    for to in [other.url(), plain] {
        let to = format!("{to}/info/refs?service=git-upload-pack");
        let server = Server::start(Arc::clone(&config), Role::Redirect(to.clone()));
        fetch(&server.url(), &data).unwrap_err();
        assert!(!other.knows(), "{to}");
    }
    assert!(
        !other.heads.lock().unwrap().is_empty(),
        "it was asked, without a token"
    );
}

#[test]
fn cve_2024_52009_credentials_not_logged() {
    let rows = [
        (
            "https://127.0.0.1:1/x",
            secret(&[("username", "u"), ("token", "s3cret")]),
        ),
        ("https://127.0.0.1:1/x", secret(&[("password", "s3cret")])),
        (
            "https://127.0.0.1:1/x",
            secret(&[
                ("githubAppID", "1"),
                ("githubAppInstallationID", "2"),
                ("githubAppPrivateKey", "s3cret"),
            ]),
        ),
        (
            "ssh://git@127.0.0.1:1/x",
            secret(&[
                ("identity", "s3cret"),
                ("identityPassword", "s3cret"),
                (
                    "known_hosts",
                    "h ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
                ),
            ]),
        ),
    ];
    for (url, data) in rows {
        let address = Address::parse(url).unwrap();
        let credentials = Credentials::of(Some(&data), &address).unwrap();
        let source = Caches::default().source(address, credentials);
        assert!(!format!("{source:?}").contains("s3cret"), "{url}");
        let refused = fetch(url, &data).unwrap_err();
        assert!(!refused.contains("s3cret"), "{refused}");
    }
}
