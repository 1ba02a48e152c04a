//! Servers by others that stand in for clouds, each in a process of its own.
//!
//! An emulator ends with whoever started it, however that ends: a shell between the two waits for the end of its standard input.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use crate::tools::tool;

/// How long an emulator may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at one that starts.
const LOOK: Duration = Duration::from_millis(50);
/// Runs what it is given until that ends or the standard input does; then ends its whole process group: first kindly, after five
/// seconds not.
const KEEPER: &str = r#"
trap : TERM
(trap : TERM; "$@" </dev/null; kill -TERM 0) &
child=$!
cat >/dev/null
kill -TERM 0
n=0
while kill -0 "$child" 2>/dev/null && [ "$n" -lt 50 ]; do
    sleep 0.1
    n=$((n + 1))
done
kill -KILL 0
"#;

/// Where the port of an emulator is written in its arguments; without it, it must say in its log where it listens.
pub const PORT: &str = "{port}";

/// A running emulator. Its process group ends when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct Emulator {
    keeper: Child,
    input: Option<ChildStdin>,
    url: String,
    log: PathBuf,
    /// Regions that tests took.
    taken: Mutex<BTreeSet<String>>,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.input.take());
        self.keeper.wait().ok();
        fs::remove_file(&self.log).ok();
    }
}

impl Emulator {
    /// Starts `program` on a port of loopback, and waits until a GET of `ready` is answered with 200. `None` where the program is
    /// not installed and the test may be skipped for it.
    ///
    /// # Panics
    /// When it does not answer within a minute: with the end of its log.
    pub async fn start(
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        ready: &str,
    ) -> Option<Self> {
        let path = tool(program)?;
        let port = arguments.iter().any(|a| a.contains(PORT)).then(free_port);
        let number = port.map(|p| p.to_string()).unwrap_or_default();
        let arguments = arguments.iter().map(|a| a.replace(PORT, &number));
        let mut emulator = Self::run(&path, arguments, environment, port);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if emulator.url.is_empty() {
                emulator.url = told(&emulator.log()).unwrap_or_default();
            }
            if !emulator.url.is_empty()
                && let Ok((200, _)) = emulator.call("GET", ready, &[], "").await
            {
                return Some(emulator);
            }
            if emulator.keeper.try_wait().ok().flatten().is_some() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        emulator.gives_up(program)
    }

    #[expect(clippy::panic, reason = "tests alone call it")]
    fn gives_up(&self, program: &str) -> ! {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(40)..);
        panic!(
            "{program} does not answer; its log ends with\n{}",
            tail.unwrap_or_default().join("\n")
        );
    }

    #[expect(clippy::expect_used, reason = "tests alone call it")]
    fn run(
        program: &Path,
        arguments: impl Iterator<Item = String>,
        environment: &[(&str, &str)],
        port: Option<u16>,
    ) -> Self {
        let (file, log) = log_file();
        let errors = file.try_clone().expect("a log");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let input = keeper.stdin.take();
        let url = port.map(|port| format!("http://127.0.0.1:{port}"));
        Self {
            keeper,
            input,
            url: url.unwrap_or_default(),
            log,
            taken: Mutex::default(),
        }
    }

    fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = fs::File::open(&self.log) {
            file.read_to_end(&mut text).ok();
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Where it listens, such as `http://127.0.0.1:4711`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends it a request of its own interface; gives status and body.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(u16, String), String> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .map_err(|e| e.to_string())?;
        let answer = client.request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|e| e.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// The address that a server says it listens on.
fn told(log: &str) -> Option<String> {
    let start = log.find("http://127.0.0.1:")?;
    let rest = log.get(start..)?;
    // A line that is not written to its end may hold half a number.
    let (address, _) = rest.split_once(['\n', ' ', '\u{1b}'])?;
    Some(address.trim_end_matches('/').to_owned())
}

#[expect(clippy::expect_used, reason = "tests alone call it")]
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
    listener.local_addr().expect("its address").port()
}

#[expect(clippy::expect_used, reason = "tests alone call it")]
fn log_file() -> (fs::File, PathBuf) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("fleetwright-emulator-{}-{number}.log", std::process::id());
    let path = std::env::temp_dir().join(name);
    (fs::File::create(&path).expect("a log file"), path)
}

/// AWS by moto. It knows the images, instance types and key pairs that there are, and refuses others. Regions share nothing: tests that run
/// at once [take](Emulator::take) one each, and IAM is for all of them.
///
/// # Panics
/// As [`Emulator::start`] does.
pub async fn moto() -> Option<Emulator> {
    let checks = [
        ("MOTO_ENABLE_AMI_VALIDATION", "1"),
        ("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1"),
        ("MOTO_ENABLE_KEYPAIR_VALIDATION", "1"),
    ];
    let arguments = ["-H", "127.0.0.1", "-p", "0"];
    Emulator::start("moto_server", &arguments, &checks, "/moto-api/").await
}

impl Emulator {
    /// Takes a region of a [`moto`] that several tests share.
    ///
    /// # Panics
    /// It was taken before: one test would see what another makes.
    #[expect(clippy::panic, reason = "tests alone call it")]
    pub fn take(&self, region: &str) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(region.to_owned()) {
            panic!("two tests take region {region}: give one of them another");
        }
    }

    /// Lets a [`moto`] that no other test uses at this time forget all that was made in it.
    ///
    /// # Errors
    /// It refuses to.
    pub async fn reset(&self) -> Result<(), String> {
        match self.call("POST", "/moto-api/reset", &[], "").await? {
            (200, _) => {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                taken.clear();
                Ok(())
            }
            (status, text) => Err(format!("HTTP {status}: {text}")),
        }
    }
}

/// EKS by fakecloud, which knows updates of versions, and what is under way; without its other services.
///
/// # Panics
/// As [`Emulator::start`] does.
pub async fn fakecloud() -> Option<Emulator> {
    let address = format!("127.0.0.1:{PORT}");
    let arguments = ["--addr", &address];
    Emulator::start("fakecloud-eks-alone", &arguments, &[], "/_fakecloud/health").await
}

/// A proxy in front of `upstream` by which calls go wrong, microburst.
///
/// # Panics
/// As [`Emulator::start`] does.
pub async fn microburst(upstream: &str) -> Option<Emulator> {
    let arguments = [
        "--upstream",
        upstream,
        "--host",
        "127.0.0.1",
        "--port",
        PORT,
    ];
    Emulator::start("microburst", &arguments, &[], "/_microburst/health").await
}

impl Emulator {
    /// Makes calls go wrong in a [`microburst`] from now on, beside those that do already; gives the rule's number. A rule that names a
    /// region leaves tests in other regions alone.
    ///
    /// # Errors
    /// It refuses the rule.
    pub async fn fault(&self, rule: &Value) -> Result<u64, String> {
        let rules = Value::Array(vec![rule.clone()]);
        let answer = self.control("PATCH", "rules", &rules).await?;
        let number = answer.pointer("/0/id").and_then(Value::as_u64);
        number.ok_or_else(|| format!("no number: {answer}"))
    }

    /// How often a rule has done something.
    ///
    /// # Errors
    /// It cannot tell.
    pub async fn fired(&self, rule: u64) -> Result<usize, String> {
        let path = format!("fired?rule_id={rule}&limit=10000");
        let answer = self.control("GET", &path, &Value::Null).await?;
        let events = answer.as_array().map(Vec::len);
        events.ok_or_else(|| format!("no list: {answer}"))
    }

    /// Takes away all rules of a region.
    ///
    /// # Errors
    /// It refuses to.
    pub async fn mend(&self, region: &str) -> Result<(), String> {
        let rules = serde_json::json!([{"region": region}]);
        self.control("DELETE", "rules", &rules).await.map(drop)
    }

    async fn control(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let path = format!("/_microburst/{path}");
        let json = [("content-type", "application/json")];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, text) = self.call(method, &path, &json, &body).await?;
        match (status, serde_json::from_str(&text)) {
            (200, Ok(answer)) => Ok(answer),
            _ => Err(format!("HTTP {status}: {text}")),
        }
    }
}
