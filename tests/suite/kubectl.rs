//! The real kubectl against our server: transcripts in `tests/kubectl`, each a session of its own.
//!
//! A line `$ command` is run by the shell; what follows is what it prints, errors included, and `[exit N]` when it
//! fails. `UPDATE_TRANSCRIPTS=1` writes what is printed now: read the difference before you commit it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use fleetwright_api::{crds, random::OsRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Auth, Options, Tls, write_kubeconfig};
use fleetwright_store::Store;
use fleetwright_tests::tools::kubectl;
use regex::Regex;
use tokio_util::sync::CancellationToken;

/// The oldest minor version whose words are those of the transcripts.
const OLDEST: u32 = 32;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubectl")
}

/// What differs from run to run and from kubectl to kubectl, as a symbol.
fn masked(text: &str) -> String {
    let table = [
        (r"127\.0\.0\.1:\d+", "<address>"),
        (
            r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000)?",
            "<time>",
        ),
        (
            r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000",
            "<time>",
        ),
        (
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "<uid>",
        ),
        (r#"(resourceVersion"?: )"\d+""#, "$1<version>"),
        (r"(Resource Version: +)\d+", "$1<version>"),
        (r"/tmp/(LIVE|MERGED)-\d+", "<$1>"),
        (r#"/\S*kubectl-edit-\d+\.yaml"#, "<file>"),
        (r"(^|\s)\d{1,3}[smhd](\d+[smh])?(\s|$)", "$1<age>$3"),
        (r"(Client Version:|Kustomize Version:) v\S+", "$1 <version>"),
        (r"\(x\d+ over \d+d\)", "(<count>)"),
        // Newer ones say where an object was, and older ones stutter.
        ("(deleted) from [a-z-]+ namespace", "$1"),
        ("cannot delete cannot delete", "cannot delete"),
        // Columns are as wide as what stands in them.
        (r"(\S) {2,}", "$1   "),
        (r"(?m)[ \t]+$", ""),
    ];
    let mut out = text.to_owned();
    for (pattern, with) in table {
        let pattern = Regex::new(&format!("(?m){pattern}")).unwrap();
        out = pattern.replace_all(&out, with).into_owned();
    }
    let skewed = |line: &&str| !line.starts_with("WARNING: version difference");
    out.lines().filter(skewed).collect::<Vec<_>>().join("\n")
}

/// Runs a transcript's commands; gives the transcript as it went.
fn run(transcript: &str, home: &Path, kubeconfig: &Path) -> String {
    let mut out = String::new();
    for line in transcript.lines() {
        let Some(command) = line.strip_prefix("$ ") else {
            if line.starts_with('#') {
                out.push_str(line);
                out.push('\n');
            }
            continue;
        };
        let done = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(folder().join("files"))
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", home)
            .output()
            .unwrap();
        out.push_str(&format!("$ {command}\n"));
        let said = masked(&String::from_utf8_lossy(&done.stdout));
        if !said.is_empty() {
            out.push_str(&said);
            out.push('\n');
        }
        match done.status.code() {
            Some(0) => {}
            code => out.push_str(&format!("[exit {}]\n", code.unwrap_or(-1))),
        }
        out.push('\n');
    }
    out
}

/// Serves a new, empty API with our kinds while a transcript is played against it.
async fn play(name: &str) {
    if kubectl(OLDEST).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let lines = "admintoken,admin,1,\"system:masters\"\nreadertoken,reader,2,\"fleetwright:read-only\"\nusertoken,user,3,\n";
    std::fs::write(&tokens, lines).unwrap();
    let tls = Tls::open(&dir.path().join("pki")).unwrap();
    let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let server = ApiServer::new(Store::memory(), options).unwrap();
    let ours: Vec<_> = crds::all()
        .iter()
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect();
    server.install_crds(&ours).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let kubeconfig = dir.path().join("kubeconfig");
    write_kubeconfig(&kubeconfig, &url, tls.authority(), "admintoken").unwrap();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(server.serve(
        listener,
        tls,
        Auth::from_file(&tokens).unwrap(),
        stop.clone(),
    ));
    let file = folder().join(format!("{name}.txt"));
    let want = std::fs::read_to_string(&file).unwrap();
    let (home, script) = (dir.path().to_owned(), want.clone());
    let got = tokio::task::spawn_blocking(move || run(&script, &home, &kubeconfig))
        .await
        .unwrap();
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(&file, got).unwrap();
        return;
    }
    for (n, (want, got)) in want.lines().zip(got.lines()).enumerate() {
        assert_eq!(got, want, "{}:{}", file.display(), n + 1);
    }
    assert_eq!(got, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_made_changed_and_deleted() {
    play("objects").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_can_be_looked_at() {
    play("looking").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told() {
    play("mistakes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_kinds_work_as_everywhere() {
    play("core").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_made_while_it_runs_are_served() {
    play("definitions").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_see_what_they_may() {
    play("access").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_ordered_made_and_given_back() {
    play("ordered").await;
}
