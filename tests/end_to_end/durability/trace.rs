//! The order of system calls: what is answered was made durable before.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use fleetwright_tests::tools::tool;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Server, apiserver_by, data};

/// Writes of each client, one after the other.
const WRITES: usize = 24;
/// Clients that write at once, after one that was alone.
const CLIENTS: usize = 6;

/// One system call: when it began and ended, as positions in the trace.
#[derive(Debug)]
struct Call {
    name: String,
    /// The file or socket that its first argument names.
    file: String,
    arguments: String,
    result: i64,
    begun: usize,
    ended: usize,
}

impl Call {
    fn reads(&self) -> bool {
        matches!(
            self.name.as_str(),
            "read" | "readv" | "recvfrom" | "recvmsg"
        ) && self.result > 0
    }

    fn writes(&self) -> bool {
        matches!(
            self.name.as_str(),
            "write" | "writev" | "sendto" | "sendmsg"
        ) && self.result > 0
    }

    fn syncs(&self, file: &str) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.file == file && self.result == 0
    }
}

/// Reads what `strace -f -yy` wrote: a thread's number, then a call, in one line or in two.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let mut all = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            open.insert(thread, (at, head.trim_end()));
            continue;
        }
        let (begun, text) = match rest.strip_prefix("<... ") {
            None => (at, rest.to_owned()),
            Some(resumed) => {
                let Some((begun, head)) = open.remove(thread) else {
                    continue;
                };
                let tail = resumed.split_once("resumed>").map_or("", |(_, tail)| tail);
                (begun, format!("{head}{tail}"))
            }
        };
        let Some((name, arguments)) = text.split_once('(') else {
            continue;
        };
        let result = text
            .rsplit_once(" = ")
            .and_then(|(_, said)| said.split(' ').next());
        let Some(result) = result.and_then(|number| number.parse().ok()) else {
            continue;
        };
        // A socket has an angle in its name: `9<TCP:[127.0.0.1:1->127.0.0.1:2]>`.
        let file = arguments.split_once('<').map_or("", |(_, rest)| rest);
        let ends = [">,", ">)"].iter().filter_map(|end| file.find(end));
        all.push(Call {
            name: name.to_owned(),
            file: file[..ends.min().unwrap_or(0)].to_owned(),
            arguments: arguments.to_owned(),
            result,
            begun,
            ended: at,
        });
    }
    all
}

/// What a client did on one connection: its port, and a mark in each of its last requests, all of them writes. A removal
/// has none.
struct Client {
    port: u16,
    marks: Vec<Option<String>>,
    /// Whether nobody else wrote meanwhile.
    alone: bool,
}

/// Which answers went out before what they tell was in the log and synced.
fn early(calls: &[Call], log: &str, client: &Client) -> Vec<String> {
    let port = format!(":{}]", client.port);
    let on_socket = calls.iter().filter(|c| c.file.ends_with(&port));
    // One request after the other: reads and writes of the socket take turns. (when the last read ended, first write began)
    let mut turns: Vec<(usize, Option<usize>)> = Vec::new();
    for call in on_socket {
        match turns.last_mut() {
            Some((read, written @ None)) if call.reads() => (*read, *written) = (call.ended, None),
            Some((_, written @ None)) if call.writes() => *written = Some(call.begun),
            _ if call.reads() => turns.push((call.ended, None)),
            _ => {}
        }
    }
    let answered: Vec<(usize, usize)> = turns
        .iter()
        .filter_map(|(read, written)| Some((*read, (*written)?)))
        .collect();
    let Some(first) = answered.len().checked_sub(client.marks.len()) else {
        return vec![format!(
            "port {} has only {} answers",
            client.port,
            answered.len()
        )];
    };
    let mut wrong = Vec::new();
    for ((read, answer), mark) in answered[first..].iter().zip(&client.marks) {
        let in_time = |c: &&Call| c.begun > *read && c.ended < *answer;
        let mut logged = calls
            .iter()
            .filter(|c| c.name == "pwrite64" && c.file == log)
            .filter(in_time);
        // Who writes alone has written nothing after the sync.
        let written = match mark {
            Some(mark) if !client.alone => logged.find(|c| c.arguments.contains(mark.as_str())),
            Some(mark) => {
                let all: Vec<&Call> = logged.collect();
                let marked = all.iter().any(|c| c.arguments.contains(mark.as_str()));
                all.last().copied().filter(|_| marked)
            }
            None => logged.next_back(),
        };
        let Some(written) = written else {
            wrong.push(format!("{mark:?} was answered before it was written"));
            continue;
        };
        let mut synced = calls
            .iter()
            .filter(in_time)
            .filter(|c| c.syncs(log) && c.begun > written.ended);
        if synced.next().is_none() {
            wrong.push(format!("{mark:?} was answered before it was synced"));
        }
    }
    wrong
}

/// A connection that is its own client: one request after the other.
struct Connection {
    stream: TlsStream<TcpStream>,
    port: u16,
}

impl Connection {
    async fn open(url: &str, authority: &Path) -> Self {
        let address = url.strip_prefix("https://").unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let port = stream.local_addr().unwrap().port();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await
            .unwrap();
        Self { stream, port }
    }

    /// Sends a request, and reads the whole answer; gives its status code.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> u16 {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer admintoken\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        let mut got = Vec::new();
        loop {
            assert!(
                self.stream.read_buf(&mut got).await.unwrap() > 0,
                "the connection ended"
            );
            let text = String::from_utf8_lossy(&got);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse::<usize>().unwrap() {
                return head[9..12].parse().unwrap();
            }
        }
    }
}

/// Creates, patches, replaces and removes objects of its own.
async fn write(url: String, authority: std::path::PathBuf, number: usize, alone: bool) -> Client {
    let mut connection = Connection::open(&url, &authority).await;
    // After this one the handshake is over, and each answer is one to a write.
    assert_eq!(connection.ask("GET", "/version", "").await, 200);
    let all = "/api/v1/namespaces/default/configmaps";
    let mut marks = Vec::new();
    for n in 0..WRITES {
        let name = format!("t{number}-{}", n / 4);
        let mark = format!("mark-{number}-{n}-end");
        let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"text":"{mark}"}}}}"#);
        let one = format!("{all}/{name}");
        let code = match n % 4 {
            0 => connection.ask("POST", all, &body).await,
            1 => connection.ask("PATCH", &one, &body).await,
            2 => connection.ask("PUT", &one, &body).await,
            // Among others a removal leaves nothing in the log that tells it apart.
            _ if !alone => connection.ask("PATCH", &one, &body).await,
            _ => connection.ask("DELETE", &one, "").await,
        };
        assert!(matches!(code, 200 | 201), "{code}");
        marks.push((!alone || n % 4 != 3).then_some(mark));
    }
    Client {
        port: connection.port,
        marks,
        alone,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_was_synced_before() {
    let Some(strace) = tool("strace") else { return };
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let options = ["-f", "-yy", "-s", "8192", "-e", "signal=none", "-e"];
    let traced =
        "trace=pwrite64,fsync,fdatasync,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg";
    let mut arguments = options.to_vec();
    arguments.extend([traced, "-o", trace.to_str().unwrap()]);
    let server = Server::spawn(
        apiserver_by(&strace, &arguments, dir.path()),
        Path::new("/"),
    )
    .await;
    let url = server.process.told("API");
    let authority = data(dir.path()).join("pki/ca.crt");
    let mut clients = vec![write(url.clone(), authority.clone(), 0, true).await];
    let mut writers = JoinSet::new();
    for number in 1..=CLIENTS {
        writers.spawn(write(url.clone(), authority.clone(), number, false));
    }
    clients.extend(writers.join_all().await);
    // strace ends with the server that it runs, and has all of the trace written then.
    let tracer = server.process.id();
    let traced = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children"));
    let traced = traced.unwrap().trim().parse().unwrap();
    server.process.signal_at(traced, "INT").await;
    assert_eq!(server.process.end().await, Some(0));
    let calls = calls(&std::fs::read_to_string(&trace).unwrap());
    let log = data(dir.path()).join("state.db-wal").canonicalize();
    let log = log.unwrap_or_else(|_| {
        data(dir.path())
            .canonicalize()
            .unwrap()
            .join("state.db-wal")
    });
    for client in &clients {
        let wrong = early(&calls, log.to_str().unwrap(), client);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// The trace of one write in order, and what becomes of it when the order is another.
#[test]
fn an_answer_that_goes_out_early_is_found() {
    let read = r#"7 recvfrom(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "x", 5, 0, NULL, NULL) = 5"#;
    let written = r#"8 pwrite64(5</d/state.db-wal>, "a mark-1 b", 4096, 56) = 4096"#;
    let synced = "8 fdatasync(5</d/state.db-wal>) = 0";
    let begins = "8 fdatasync(5</d/state.db-wal> <unfinished ...>";
    let ends = "8 <... fdatasync resumed>) = 0";
    let failed = "8 fdatasync(5</d/state.db-wal>) = -1 EIO (Input/output error)";
    let other = "8 fdatasync(5</d/state.db>) = 0";
    let answer =
        r#"7 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "y", 5, MSG_NOSIGNAL, NULL, 0) = 5"#;
    let table: &[(&[&str], bool)] = &[
        (&[read, written, synced, answer], true),
        (&[read, written, begins, ends, answer], true),
        (&[read, written, answer], false),
        (&[read, written, answer, synced], false),
        (&[read, written, begins, answer, ends], false),
        (&[read, synced, written, answer], false),
        (&[read, begins, written, ends, answer], false),
        (&[read, written, failed, answer], false),
        (&[read, written, other, answer], false),
        (&[read, answer, written, synced], false),
        (&[read, written, synced], false),
    ];
    for alone in [true, false] {
        for (lines, good) in table {
            let calls = calls(&lines.join("\n"));
            let marks = vec![Some("mark-1".to_owned())];
            let client = Client {
                port: 2,
                marks,
                alone,
            };
            let wrong = early(&calls, "/d/state.db-wal", &client);
            assert_eq!(wrong.is_empty(), *good, "{lines:?}: {wrong:?}");
        }
    }
}
