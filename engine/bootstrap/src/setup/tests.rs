//! Payloads are held against files in `tests/golden` (`UPDATE_GOLDEN=1` writes them anew; read the difference), read by other
//! programs, and run: under another root, with programs that only write down what they are called with.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use fleetwright_tests::tools::tool;

use super::*;
use crate::{testing, user_data::payload};

fn setup_of(system: OperatingSystem, role: &str, node: &NodeValues) -> NodeSetup {
    let (pki, token) = (testing::pki(), testing::token());
    let roles = testing::roles(&pki, "sha256:00", &token);
    let (_, role) = roles.into_iter().find(|(name, _)| *name == role).unwrap();
    node_setup(system, &testing::cluster(), node, role).unwrap()
}

const ROLES: [&str; 3] = ["init", "join-control-plane", "join-worker"];

#[test]
fn every_profile_and_role_gives_the_golden_payload() {
    for system in OperatingSystem::ALL {
        // Debian and Ubuntu differ in nothing that we do.
        let family = if system == OperatingSystem::Flatcar {
            "flatcar"
        } else {
            "apt"
        };
        for role in ROLES {
            let got = payload(&setup_of(system, role, &testing::node()));
            let file = testing::golden(&format!("{family}-{role}.sh"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&file, got.expose()).unwrap();
            }
            let want = fs::read_to_string(&file).unwrap();
            let difference = similar::TextDiff::from_lines(want.as_str(), got.expose());
            assert_eq!(
                want,
                got.expose(),
                "{system} {role}\n{}",
                difference.unified_diff()
            );
        }
    }
}

#[test]
fn shells_and_shellcheck_find_no_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let mut scripts = Vec::new();
    for system in [OperatingSystem::Debian12, OperatingSystem::Flatcar] {
        for role in ROLES {
            let setup = setup_of(system, role, &testing::node());
            let script = &setup
                .files
                .iter()
                .find(|file| file.path == SCRIPT)
                .unwrap()
                .content;
            for (name, text) in [
                ("script", script.expose()),
                ("payload", payload(&setup).expose()),
            ] {
                let file = folder.path().join(format!("{system}-{role}-{name}.sh"));
                fs::write(&file, text).unwrap();
                let said = Command::new("sh").arg("-n").arg(&file).output().unwrap();
                assert!(said.status.success(), "{}: {said:?}", file.display());
                scripts.push(file);
            }
        }
    }
    let Some(shellcheck) = tool("shellcheck") else {
        return;
    };
    let said = Command::new(shellcheck)
        // What a payload holds is quoted on purpose.
        .args(["--shell=sh", "--exclude=SC2016"])
        .args(&scripts)
        .output()
        .unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stdout)
    );
}

/// A machine of cardboard: a folder that stands for the root, and programs that write down how they are called.
struct Cardboard {
    root: tempfile::TempDir,
}

const PROGRAMS: [&str; 18] = [
    "apt-get",
    "apt-mark",
    "chown",
    "containerd",
    "curl",
    "install",
    "instance",
    "kubeadm",
    "kubelet",
    "modprobe",
    "sha256sum",
    "sleep",
    "swapoff",
    "sysctl",
    "systemctl",
    "tar",
    "uname",
    "zone",
];

impl Cardboard {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let programs = root.path().join("programs");
        fs::create_dir_all(&programs).unwrap();
        let machine = Self { root };
        for name in PROGRAMS {
            machine.program(name, "");
        }
        machine.program("uname", "echo x86_64");
        machine.program("zone", "printf eu-1a");
        machine.program("instance", "printf i-0123");
        // What it would have fetched: the last argument but one is the file.
        machine.program(
            "curl",
            "while [ $# -gt 2 ]; do shift; done; echo fetched >\"$1\"",
        );
        machine.program("kubelet", "echo 'Kubernetes v1.32.6'");
        machine.program("kubeadm", "if [ \"$1\" = version ]; then echo v1.33.2; fi");
        fs::create_dir_all(machine.root.path().join("etc/apt/sources.list.d")).unwrap();
        fs::write(
            machine.root.path().join("etc/fstab"),
            "/dev/a / ext4 x 0 1\n/dev/b none swap sw 0 0\n",
        )
        .unwrap();
        machine
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// A program that writes down its name and arguments, and does what `body` says.
    fn program(&self, name: &str, body: &str) {
        let file = self.root.path().join("programs").join(name);
        let log = self.root.path().join("log");
        let text = format!(
            "#!/bin/sh\necho \"{name} $*\" >>{}\n{body}\n",
            log.display()
        );
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, script: &str) -> Output {
        let mut script = script.to_owned();
        for folder in ["/etc/", "/opt/", "/run/", "/usr/local", "/var/lib/"] {
            script = script.replace(folder, &format!("{}{folder}", self.root.path().display()));
        }
        let file = self.root.path().join("payload.sh");
        fs::write(&file, script).unwrap();
        let programs = self.root.path().join("programs");
        Command::new("/bin/sh")
            .arg(&file)
            .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
            .output()
            .unwrap()
    }

    /// Calls of kubeadm and pauses so far, but for questions about its version.
    fn kubeadm(&self) -> Vec<String> {
        let log = fs::read_to_string(self.root.path().join("log")).unwrap();
        log.lines()
            .filter(|line| line.starts_with("kubeadm ") && !line.starts_with("kubeadm version"))
            .map(|line| line.split(" --config").next().unwrap().to_owned())
            .collect()
    }

    fn is_node(&self) -> bool {
        self.path(BOOTSTRAPPED).exists() && self.path(SUCCESS).exists()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_instance_becomes_a_node_once() {
    for system in [OperatingSystem::Debian12, OperatingSystem::Flatcar] {
        let machine = Cardboard::new();
        let kept = machine.path("kept.yaml");
        machine.program(
            "kubeadm",
            &format!(
                "case \"$1\" in version) echo v1.33.2;; init) cp \"$3\" {};; esac",
                kept.display()
            ),
        );
        let script = payload(&setup_of(system, "init", &testing::node()));
        let said = machine.run(script.expose());
        assert!(said.status.success(), "{system}: {said:?}");
        assert_eq!(machine.kubeadm(), ["kubeadm init"], "{system}");
        assert!(machine.is_node());
        let kept = fs::read_to_string(kept).unwrap();
        assert!(kept.contains("value: aws:///eu-1a/i-0123\n"), "{kept}");
        assert!(!kept.contains(PROVIDER_ID_PLACEHOLDER));
        assert!(!machine.path(KUBEADM_CONFIG).exists(), "it holds a token");
        assert_eq!(
            mode(&machine.path("/etc/kubernetes/pki/etcd/ca.key")),
            0o600
        );
        assert_eq!(mode(&machine.path("/etc/kubernetes/pki/ca.crt")), 0o644);
        assert_eq!(
            fs::read_to_string(machine.path("/etc/kubernetes/pki/sa.key")).unwrap(),
            "private key of service accounts\n"
        );
        let fstab = fs::read_to_string(machine.path("/etc/fstab")).unwrap();
        assert_eq!(fstab, "/dev/a / ext4 x 0 1\n#/dev/b none swap sw 0 0\n");

        fs::remove_dir_all(machine.path("/run")).unwrap();
        let again = machine.run(script.expose());
        assert!(again.status.success(), "{again:?}");
        assert_eq!(machine.kubeadm().len(), 1, "nothing is done twice");
        assert!(machine.is_node());
    }
}

#[test]
fn a_worker_goes_on_trying_to_join_and_ends_sometime() {
    let script = payload(&setup_of(
        OperatingSystem::Ubuntu2404,
        "join-worker",
        &testing::node(),
    ));
    let fails = |times: u32, call: &str| {
        format!(
            "if [ \"$1\" = version ]; then echo v1.33.2; exit 0; fi
             case \"$*\" in '{call} --config '*) ;; *) exit 0;; esac
             echo >>\"$0.calls\"; [ \"$(wc -l <\"$0.calls\")\" -gt {times} ]"
        )
    };
    let (asks, joins, resets) = (
        "kubeadm join phase preflight",
        "kubeadm join",
        "kubeadm reset --force",
    );
    for (times, call, node, want) in [
        (0, "join", true, vec![asks, joins]),
        (
            2,
            "join phase preflight",
            true,
            vec![asks, asks, asks, joins],
        ),
        (99, "join phase preflight", false, vec![asks; 6]),
        (1, "join", true, vec![asks, joins, resets, joins]),
        (
            99,
            "join",
            false,
            [vec![asks], [[joins, resets]; 5].concat()].concat(),
        ),
    ] {
        let machine = Cardboard::new();
        machine.program("kubeadm", &fails(times, call));
        let said = machine.run(script.expose());
        assert_eq!(
            said.status.success(),
            node,
            "{call} fails {times} times: {said:?}"
        );
        assert_eq!(machine.kubeadm(), want);
        assert_eq!(machine.is_node(), node);
        assert_eq!(machine.path(KUBEADM_CONFIG).exists(), !node);
    }
}

/// A member may be in etcd already.
#[test]
fn a_control_plane_joins_once() {
    let script = payload(&setup_of(
        OperatingSystem::Flatcar,
        "join-control-plane",
        &testing::node(),
    ));
    let machine = Cardboard::new();
    machine.program(
        "kubeadm",
        "case \"$*\" in version*) echo v1.33.2;; 'join phase'*) ;; *) exit 1;; esac",
    );
    let said = machine.run(script.expose());
    assert!(!said.status.success());
    assert_eq!(
        machine.kubeadm(),
        ["kubeadm join phase preflight", "kubeadm join"]
    );
    assert!(!machine.is_node());
}

#[test]
fn what_is_not_right_ends_it_before_kubeadm() {
    for (program, body, why) in [
        ("uname", "echo mips", "no binaries for mips"),
        (
            "kubelet",
            "echo 'Kubernetes v1.30.0'",
            "not of the version that was asked for",
        ),
        ("sha256sum", "exit 1", "cannot be had"),
        ("zone", "", "does not learn its id"),
        ("zone", "printf 'a b'", "does not learn its id"),
        ("instance", "printf 'x|e evil'", "does not learn its id"),
        ("instance", "", "does not learn its id"),
    ] {
        let machine = Cardboard::new();
        machine.program(program, body);
        let script = payload(&setup_of(
            OperatingSystem::Debian12,
            "join-worker",
            &testing::node(),
        ));
        let said = machine.run(script.expose());
        let error = String::from_utf8_lossy(&said.stderr);
        assert!(
            !said.status.success() && error.contains(why),
            "{program} {body}: {said:?}"
        );
        assert!(machine.kubeadm().is_empty());
        assert!(!machine.is_node());
    }
}

/// What is there already, as in images that people build, is not fetched again.
#[test]
fn what_an_image_has_is_not_installed_again() {
    let machine = Cardboard::new();
    for tool in ["conntrack", "ethtool", "iptables", "socat"] {
        machine.program(tool, "");
    }
    machine.program(
        "containerd",
        "echo 'containerd github.com/containerd/containerd v2.3.4 abc'",
    );
    let script = payload(&setup_of(
        OperatingSystem::Debian12,
        "join-worker",
        &testing::node(),
    ));
    let said = machine.run(script.expose());
    assert!(said.status.success(), "{said:?}");
    let log = fs::read_to_string(machine.root.path().join("log")).unwrap();
    for program in ["apt-get", "curl", "install"] {
        assert!(
            !log.lines()
                .any(|line| line.starts_with(&format!("{program} "))),
            "{log}"
        );
    }
}

#[test]
fn packages_are_of_exactly_the_versions_that_were_asked_for() {
    let machine = Cardboard::new();
    machine.program(
        "apt-get",
        "case \"$*\" in *kubelet=1.32.6-*) touch \"$0.done\";; esac",
    );
    machine.program(
        "kubelet",
        "[ -e \"$(dirname \"$0\")/apt-get.done\" ] && echo 'Kubernetes v1.32.6'",
    );
    let script = payload(&setup_of(
        OperatingSystem::Ubuntu2204,
        "join-worker",
        &testing::node(),
    ));
    let said = machine.run(script.expose());
    assert!(said.status.success(), "{said:?}");
    let log = fs::read_to_string(machine.root.path().join("log")).unwrap();
    for part in [
        "kubeadm=1.33.2-* kubectl=1.33.2-* kubelet=1.32.6-*",
        "https://pkgs.k8s.io/core:/stable:/v1.32/deb/Release.key",
        "https://pkgs.k8s.io/core:/stable:/v1.33/deb/Release.key",
        "apt-mark hold kubeadm kubectl kubelet",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    let sources =
        fs::read_to_string(machine.path("/etc/apt/sources.list.d/kubernetes-1.33.list")).unwrap();
    assert!(
        sources.ends_with("https://pkgs.k8s.io/core:/stable:/v1.33/deb/ /\n"),
        "{sources}"
    );
}

#[test]
fn names_of_profiles_read_back() {
    for system in OperatingSystem::ALL {
        assert_eq!(system.as_str().parse(), Ok(system));
    }
    let error = "windows".parse::<OperatingSystem>().unwrap_err();
    assert!(error.to_string().contains("debian-12"), "{error}");
}
