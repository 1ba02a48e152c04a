//! A real etcd on loopback: members that are processes of their own, with certificates of one authority.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests alone call it")]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{pki::Authority, tools::tool};

struct Member {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

/// Members that know each other. They end with this.
pub struct Members {
    authority: Authority,
    programs: (PathBuf, PathBuf),
    folder: PathBuf,
    all: BTreeMap<String, Member>,
    logs: JoinSet<()>,
}

/// Ports that nobody has.
fn ports() -> (u16, u16) {
    let any = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, other) = (any(), any());
    let port = |l: &TcpListener| l.local_addr().unwrap().port();
    (port(&one), port(&other))
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

impl Members {
    /// None yet, of this authority and with all of their files in a folder; `None` where there is no etcd and a test may be skipped for it.
    ///
    /// # Panics
    /// As [`tool`] does, and when nothing can be written there.
    pub fn new(authority: Authority, folder: &Path) -> Option<Self> {
        let programs = (tool("etcd")?, tool("etcdctl")?);
        std::fs::create_dir_all(folder).unwrap();
        let members = Self {
            authority,
            programs,
            folder: folder.to_owned(),
            all: BTreeMap::new(),
            logs: JoinSet::new(),
        };
        let authority = &members.authority.identity.certificate;
        std::fs::write(members.path("ca.crt"), authority).unwrap();
        Some(members)
    }

    /// A file of theirs.
    ///
    /// # Panics
    /// When the folder has a name that is no text.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// etcd's own tool.
    pub fn tool(&self) -> &Path {
        &self.programs.1
    }

    /// Gives a member its ports and its certificate, and tells the port of its clients: nothing runs yet.
    ///
    /// # Panics
    /// When nothing can be written.
    pub fn add(&mut self, name: &str) -> u16 {
        let (client, peer) = ports();
        let member = Member {
            client,
            peer,
            process: None,
        };
        self.all.insert(name.to_owned(), member);
        let identity = self.authority.sign(name, &["localhost", "127.0.0.1", name]);
        for (ending, text) in [("crt", &identity.certificate), ("key", &identity.key)] {
            std::fs::write(self.path(&format!("{name}.{ending}")), text).unwrap();
        }
        client
    }

    fn member(&self, name: &str) -> &Member {
        let member = self.all.get(name);
        member.unwrap_or_else(|| panic!("there is no member {name}"))
    }

    /// Where clients reach a member.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn client(&self, name: &str) -> String {
        url(self.member(name).client)
    }

    /// Where other members reach a member.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn peer(&self, name: &str) -> String {
        url(self.member(name).peer)
    }

    /// What these members are told of each other.
    ///
    /// # Panics
    /// When one of them is none.
    pub fn initial(&self, names: &[&str]) -> String {
        let one = |name: &&str| format!("{name}={}", self.peer(name));
        names.iter().map(one).collect::<Vec<_>>().join(",")
    }

    /// Starts a member's process.
    ///
    /// # Panics
    /// When there is no such member, or it cannot be started.
    pub fn begin(&mut self, name: &str, state: &str, initial: &str) {
        let (client, peer) = (self.client(name), self.peer(name));
        let (certificate, key) = (
            self.path(&format!("{name}.crt")),
            self.path(&format!("{name}.key")),
        );
        let (ca, data) = (self.path("ca.crt"), self.path(name));
        let process = Command::new(&self.programs.0)
            .args(["--name", name, "--data-dir", &data])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                initial,
                "--initial-cluster-state",
                state,
            ])
            .args(["--cert-file", &certificate, "--key-file", &key])
            .args(["--peer-cert-file", &certificate, "--peer-key-file", &key])
            .args(["--trusted-ca-file", &ca, "--peer-trusted-ca-file", &ca])
            .args(["--client-cert-auth", "--peer-client-cert-auth"])
            .args(["--logger", "zap", "--log-outputs", "stderr"])
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.all.get_mut(name).unwrap().process = Some(process);
    }

    /// Waits until a member says that it serves clients, and goes on reading what it says.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn until_ready(&mut self, name: &str) {
        let process = self.all.get_mut(name).unwrap().process.as_mut().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("serving client traffic") {
                self.logs
                    .spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return;
            }
            said += &line;
            said += "\n";
        }
        panic!("{name} ends before it serves: {said}");
    }

    /// Lets one more member join those that run, as kubeadm does: it learns first, and votes once it has learned. Gives the port of its
    /// clients.
    ///
    /// # Panics
    /// When it cannot join.
    pub async fn join(&mut self, name: &str) -> u16 {
        let there = self.running();
        let port = self.add(name);
        let peer = self.peer(name);
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        if there.is_empty() {
            self.begin(name, "new", &self.initial(&[name]));
            self.until_ready(name).await;
            return port;
        }
        let add = ["member", "add", name, "--learner", "--peer-urls", &peer];
        let added = self
            .etcdctl(&there, &[&add[..], &["-w", "json"]].concat())
            .await;
        let added: Value = serde_json::from_str(&added).unwrap();
        let id = format!("{:x}", added["member"]["ID"].as_u64().unwrap());
        let initial = self.initial(&[&there[..], &[name]].concat());
        self.begin(name, "existing", &initial);
        self.until_ready(name).await;
        // etcd refuses it while the member still learns, and tells nobody when it has.
        while let Err(why) = self.run(&there, &["member", "promote", &id]).await {
            assert!(why.contains("in sync with leader"), "{why}");
        }
        port
    }

    /// Members that have a process that has not ended.
    fn running(&mut self) -> Vec<String> {
        let runs =
            |m: &mut Member| matches!(m.process.as_mut().map(Child::try_wait), Some(Ok(None)));
        let all = self.all.iter_mut();
        all.filter_map(|(name, m)| runs(m).then(|| name.clone()))
            .collect()
    }

    /// Ends a member's process, unless it has ended by itself.
    ///
    /// # Panics
    /// When it had none.
    pub async fn kill(&mut self, name: &str) {
        let mut process = self.all.get_mut(name).unwrap().process.take().unwrap();
        process.start_kill().ok();
        process.wait().await.unwrap();
    }

    /// What etcd's own tool says, asked at these members.
    ///
    /// # Panics
    /// When it fails.
    pub async fn etcdctl(&self, at: &[&str], command: &[&str]) -> String {
        let said = self.run(at, command).await;
        said.unwrap_or_else(|why| panic!("{command:?}: {why}"))
    }

    async fn run(&self, at: &[&str], command: &[&str]) -> Result<String, String> {
        let endpoints: Vec<String> = at.iter().map(|name| self.client(name)).collect();
        let first = at.first().copied().unwrap_or_default();
        let said = Command::new(&self.programs.1)
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoints.join(",")])
            .args(["--cacert", &self.path("ca.crt")])
            .args(["--cert", &self.path(&format!("{first}.crt"))])
            .args(["--key", &self.path(&format!("{first}.key"))])
            .args(command)
            .output()
            .await
            .unwrap();
        match said.status.success() {
            true => Ok(String::from_utf8(said.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&said.stderr).into_owned()),
        }
    }

    /// Who leads, as etcd's own tool has it.
    ///
    /// # Panics
    /// When nobody does.
    pub async fn leader(&self, at: &[&str]) -> String {
        let said = self
            .etcdctl(at, &["endpoint", "status", "-w", "json"])
            .await;
        let all: Value = serde_json::from_str(&said).unwrap();
        let leads = |one: &&Value| one["Status"]["leader"] == one["Status"]["header"]["member_id"];
        let leader = all.as_array().unwrap().iter().find(leads).unwrap();
        let endpoint = leader["Endpoint"].as_str().unwrap();
        let of = |(_, m): &(&String, &Member)| url(m.client) == endpoint;
        self.all.iter().find(of).unwrap().0.clone()
    }
}
