//! A repository behind https, with a certificate of a private authority and a token.

use std::{path::Path, process::Stdio, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use fleetwright_api::{Cluster, Fleet, condition};
use fleetwright_apiserver::Tls;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command, task::JoinSet};

use crate::{
    forge::{commit, git},
    kit::{Engine, fleet},
};

/// Serves the bare repository in `dir` to who knows the token; gives the URL.
async fn serve(dir: &Path, tasks: &mut JoinSet<()>) -> String {
    let pki = dir.join("pki");
    Tls::open(&pki).unwrap();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(pki.join("server.crt"))
        .unwrap()
        .collect();
    let key = PrivateKeyDer::from_pem_file(pki.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let repository = Arc::new(dir.join("fleet.git").to_str().unwrap().to_owned());
    let router = Router::new()
        .route("/acme/fleet.git/info/refs", get(refs))
        .route("/acme/fleet.git/git-upload-pack", post(pack))
        .with_state(repository);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/acme/fleet.git", listener.local_addr().unwrap());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            connections.spawn(async move {
                // Who does not trust the authority hangs up.
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = TowerToHyperService::new(router);
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    url
}

/// The answer that asks for the token, unless the request has it.
fn refusal(headers: &HeaderMap) -> Option<Response> {
    let wanted = format!("Basic {}", BASE64_STANDARD.encode("x-access-token:t0ken"));
    let given = headers.get(header::AUTHORIZATION);
    if given.is_some_and(|g| g.as_bytes() == wanted.as_bytes()) {
        return None;
    }
    let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"fleet\"")];
    Some((StatusCode::UNAUTHORIZED, ask).into_response())
}

async fn upload_pack(repository: &str, args: &[&str], input: Bytes) -> Vec<u8> {
    let mut child = Command::new("git")
        .arg("upload-pack")
        .args(args)
        .arg(repository)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        stdin.write_all(&input).await.ok();
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    output.unwrap().stdout
}

async fn refs(State(repository): State<Arc<String>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refusal(&headers) {
        return refusal;
    }
    let args = ["--stateless-rpc", "--advertise-refs"];
    let refs = upload_pack(&repository, &args, Bytes::new()).await;
    let body = [b"001e# service=git-upload-pack\n0000".as_slice(), &refs].concat();
    let kind = "application/x-git-upload-pack-advertisement";
    ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response()
}

async fn pack(State(repository): State<Arc<String>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = refusal(&headers) {
        return refusal;
    }
    let pack = upload_pack(&repository, &["--stateless-rpc"], body).await;
    let kind = "application/x-git-upload-pack-result";
    ([(header::CONTENT_TYPE, kind)], Body::from(pack)).into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_is_followed_with_its_token_over_trusted_connections_alone() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    commit(&work, &fleet("v1.33.2", Some(1)));
    let mut tasks = JoinSet::new();
    let url = serve(dir.path(), &mut tasks).await;
    let authority = dir.path().join("pki/ca.crt");
    let trusted = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let rows = [
        ("stranger", false, Some("certificate is not trusted")),
        ("wr0ng", true, Some("refuses the credentials")),
        ("", true, Some("asks for credentials")),
        ("t0ken", true, None),
    ];
    for (token, trusts, wanted) in rows {
        let environment = if trusts { &trusted[..] } else { &[] };
        let data = dir.path().join(format!("data-{token}"));
        let file = dir.path().join("token");
        std::fs::write(&file, token).unwrap();
        let mut more = vec!["--branch", "main", "--interval", "1"];
        if !token.is_empty() {
            more.extend(["--token-file", file.to_str().unwrap()]);
        }
        let engine = Engine::up_with(&url, &data, &more, environment).await;
        let Some(wanted) = wanted else {
            engine.until_at("v1.33.2").await;
            // And again: what is new of it alone comes over.
            commit(&work, &fleet("v1.33.4", Some(1)));
            engine.until_at("v1.33.4").await;
            assert_eq!(engine.process.interrupt().await, Some(0));
            continue;
        };
        let refused = move |f: Option<&Fleet>| {
            let conditions = f.and_then(|f| Some(f.status.as_ref()?.conditions.as_slice()));
            conditions
                .and_then(|c| condition::get(c, condition::kind::READY))
                .is_some_and(|c| {
                    assert!(
                        token.is_empty() || !c.message.contains(token),
                        "{}",
                        c.message
                    );
                    c.reason == "SourceFailed" && c.message.contains(wanted)
                })
        };
        engine.until("default", wanted, refused).await;
        let clusters = kube::Api::<Cluster>::all(engine.client.clone());
        let all = clusters.list(&Default::default()).await.unwrap();
        assert!(all.items.is_empty(), "{token:?} reads nothing");
        assert_eq!(engine.process.interrupt().await, Some(0));
    }
}
