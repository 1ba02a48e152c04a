use std::{fs, io::Read, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use fleetwright_tests::tools::tool;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    setup::{OperatingSystem, node_setup},
    testing,
};

fn file(path: &str, content: Content) -> File {
    File {
        path: path.to_owned(),
        mode: 0o640,
        owner: "root:adm".to_owned(),
        content,
    }
}

fn open_setup(content: &str) -> NodeSetup {
    NodeSetup {
        files: vec![file("/etc/example", Content::Open(content.to_owned()))],
        commands: vec!["echo one".to_owned(), "echo 'two'".to_owned()],
    }
}

fn unzip(base64: &str) -> String {
    let bytes = BASE64_STANDARD.decode(base64).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// Path, mode, owner and content of what user data writes, as its reader would see it.
fn written(format: Format, text: &str) -> Vec<(String, u32, String, String)> {
    match format {
        Format::CloudInit => {
            let rest = text.strip_prefix("#cloud-config\n").unwrap();
            let document: Value = serde_saphyr::from_str(rest).unwrap();
            let files = document["write_files"].as_array().unwrap();
            files
                .iter()
                .map(|file| {
                    let text = |key: &str| file[key].as_str().unwrap().to_owned();
                    let content = match file.get("encoding") {
                        None => text("content"),
                        Some(encoding) => {
                            assert_eq!(encoding, "gz+b64");
                            unzip(&text("content"))
                        }
                    };
                    let mode = u32::from_str_radix(&text("permissions"), 8).unwrap();
                    (text("path"), mode, text("owner"), content)
                })
                .collect()
        }
        Format::Ignition => {
            let config: Value = serde_json::from_str(text).unwrap();
            is_of(&config, &["ignition", "storage", "systemd"]);
            assert_eq!(config["ignition"], json!({"version": "3.4.0"}));
            is_of(&config["systemd"], &["units"]);
            let [unit] = config["systemd"]["units"].as_array().unwrap().as_slice() else {
                panic!("one unit runs the commands");
            };
            is_of(unit, &["contents", "enabled", "name"]);
            assert_eq!(unit["enabled"], true);
            assert!(unit["name"].as_str().unwrap().ends_with(".service"));
            let unit = unit["contents"].as_str().unwrap();
            let files = config["storage"]["files"].as_array().unwrap();
            is_of(&config["storage"], &["files"]);
            let runs = |file: &&Value| {
                let start = format!("ExecStart=/bin/sh {}\n", file["path"].as_str().unwrap());
                unit.contains(&start)
            };
            assert_eq!(files.iter().filter(runs).count(), 1, "{unit}");
            let read = |file: &Value| {
                let keys = ["contents", "group", "mode", "overwrite", "path", "user"];
                is_of(file, &keys);
                assert_eq!(file["overwrite"], true);
                is_of(&file["contents"], &["compression", "source"]);
                assert_eq!(file["contents"]["compression"], "gzip");
                let source = file["contents"]["source"].as_str().unwrap();
                let data = source.strip_prefix("data:;base64,").unwrap();
                let name = |of: &str| {
                    is_of(&file[of], &["name"]);
                    file[of]["name"].as_str().unwrap().to_owned()
                };
                let owner = format!("{}:{}", name("user"), name("group"));
                let path = file["path"].as_str().unwrap().to_owned();
                let mode = u32::try_from(file["mode"].as_u64().unwrap()).unwrap();
                (path, mode, owner, unzip(data))
            };
            files.iter().map(read).collect()
        }
    }
}

/// These are its keys, by the names of Ignition's specification, which refuses any other.
fn is_of(object: &Value, names: &[&str]) {
    let mut keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, names);
}

#[test]
fn secrets_and_size_decide_the_steps() {
    let open = open_setup("small");
    let mut secret = open_setup("small");
    secret.files.push(file(
        "/etc/token",
        Content::Secret(SecretText::new("swordfish")),
    ));
    for format in [Format::CloudInit, Format::Ignition] {
        let UserData::OneStep(whole) = render(&open, format, 16 * 1024, false).unwrap() else {
            panic!("one step would do");
        };
        let exact = whole.expose().len();
        assert_eq!(
            render(&open, format, exact, false),
            Ok(UserData::OneStep(whole))
        );
        for (setup, limit) in [(&open, exact - 1), (&secret, 1 << 20)] {
            let UserData::TwoSteps { payload } = render(setup, format, limit, false).unwrap()
            else {
                panic!("{limit}: two steps are needed");
            };
            assert_eq!(payload, super::payload(setup));
        }
        let kept = format!("{:?}", render(&secret, format, 1 << 20, false));
        assert!(!kept.contains("swordfish"));
        // Whoever reads it may know: then all of it is in it, and none of it is printed.
        let sealed = render(&secret, format, 1 << 20, true).unwrap();
        assert!(!format!("{sealed:?}").contains("swordfish"));
        let UserData::OneStep(whole) = sealed else {
            panic!("one step would do");
        };
        let files = written(format, whole.expose());
        assert!(
            files
                .iter()
                .any(|(path, .., content)| path == "/etc/token" && content == "swordfish")
        );
        let large = render(&secret, format, whole.expose().len() - 1, true).unwrap();
        assert!(matches!(large, UserData::TwoSteps { .. }));
    }
}

#[test]
fn user_data_writes_the_files_of_the_setup() {
    for format in [Format::CloudInit, Format::Ignition] {
        for content in [
            "",
            "one line\n",
            "\u{e9}: |\n  - x\n",
            &"long ".repeat(2000),
        ] {
            let UserData::OneStep(text) =
                render(&open_setup(content), format, 1 << 20, false).unwrap()
            else {
                panic!("one step");
            };
            let files = written(format, text.expose());
            let want = (
                "/etc/example".to_owned(),
                0o640,
                "root:adm".to_owned(),
                content.to_owned(),
            );
            assert!(files.contains(&want), "{}", text.expose());
        }
    }
}

/// A payload does what the setup says: it is run here, by the user who runs the test.
#[test]
fn the_payload_writes_the_files_and_runs_the_commands() {
    let owner = |flag: &str| {
        let said = Command::new("id").arg(flag).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    };
    let owner = format!("{}:{}", owner("-u"), owner("-g"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a folder/it's");
    let content = "$(touch evil) `x` \"\\ '\n\n";
    let setup = NodeSetup {
        files: vec![File {
            path: path.to_str().unwrap().to_owned(),
            mode: 0o640,
            owner,
            content: Content::Secret(SecretText::new(content)),
        }],
        commands: vec![
            "echo one".to_owned(),
            "false".to_owned(),
            "echo never".to_owned(),
        ],
    };
    let script = folder.path().join("payload.sh");
    fs::write(&script, payload(&setup).expose()).unwrap();
    let said = Command::new("sh")
        .arg(&script)
        .current_dir(&folder)
        .output()
        .unwrap();
    assert_eq!(
        (said.status.code(), said.stdout.as_slice()),
        (Some(1), b"one\n".as_slice())
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    assert!(!folder.path().join("evil").exists());
}

/// The stub itself, as its reader would write it to the disk.
fn fetcher(format: Format, fetch: &str) -> String {
    let text = stub(format, fetch, 16 * 1024).unwrap();
    let mut files = written(format, &text).into_iter();
    files.find(|(path, ..)| path == FETCH).unwrap().3
}

#[test]
fn stubs_are_golden() {
    for (format, name) in [
        (Format::CloudInit, "stub.sh"),
        (Format::Ignition, "stub.sh"),
    ] {
        let got = fetcher(format, "fetch-secret --name fleet/prod/web-1");
        is_golden(name, &got);
    }
    let error = stub(Format::CloudInit, "fetch", 100).unwrap_err();
    assert!(
        matches!(error, UserDataError::TooLarge { limit: 100, .. }),
        "{error}"
    );
}

fn is_golden(name: &str, got: &str) {
    let golden = testing::golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, got).unwrap();
    }
    assert_eq!(got, fs::read_to_string(&golden).unwrap(), "{name}");
}

/// All of what an instance is given, byte by byte: what is compressed in it is golden as text too, in the payloads.
#[test]
fn whole_documents_are_golden() {
    let (pki, token) = (testing::pki(), testing::token());
    for system in OperatingSystem::ALL {
        let (family, ending) = match system.format() {
            Format::CloudInit => ("apt", "cloud-config.yaml"),
            Format::Ignition => ("flatcar", "ignition.json"),
        };
        let fetch = "fetch-secret --name fleet/prod/web-1";
        let stub = stub(system.format(), fetch, 16 * 1024).unwrap();
        is_golden(&format!("{family}-stub.{ending}"), &stub);
        for (role, what) in testing::roles(&pki, "sha256:00", &token) {
            let setup = node_setup(system, &testing::cluster(), &testing::node(), what).unwrap();
            let rendered = render(&setup, system.format(), usize::MAX, true).unwrap();
            let UserData::OneStep(whole) = rendered else {
                panic!("{system} {role}: one step would do");
            };
            is_golden(&format!("{family}-{role}.{ending}"), whole.expose());
            let files = written(system.format(), whole.expose());
            for file in &setup.files {
                let content = file.content.expose().to_owned();
                let want = (file.path.clone(), file.mode, file.owner.clone(), content);
                assert!(files.contains(&want), "{system} {role}: {}", file.path);
            }
        }
    }
}

#[test]
fn a_stub_runs_only_a_whole_payload_and_ends_as_it_does() {
    let run = |body: &str| {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        let script = fetcher(Format::CloudInit, &format!("echo >>{root}/tries; {body}"));
        let script = ["/run/", "/var/lib/"].iter().fold(script, |text, part| {
            text.replace(part, &format!("{root}{part}"))
        });
        let script = script.replace("sleep ", ": ");
        let file = folder.path().join("stub.sh");
        fs::write(&file, script).unwrap();
        let said = Command::new("sh")
            .arg(&file)
            .current_dir(&folder)
            .output()
            .unwrap();
        let tries = fs::read_to_string(folder.path().join("tries"))
            .unwrap()
            .len();
        let left = folder.path().join("run/fleetwright/payload.sh").exists();
        assert!(!left, "a payload holds secrets");
        (
            said.status.code(),
            String::from_utf8(said.stdout).unwrap(),
            tries,
        )
    };
    let whole = |command: &str| format!("printf '%s\\n' '{command}' '{END}'");
    assert_eq!(run(&whole("echo ran")), (Some(0), "ran\n".to_owned(), 1));
    assert_eq!(run(&whole("exit 3")), (Some(3), String::new(), 1));
    for body in [
        "printf '%s\\n' 'echo ran'".to_owned(),
        "false".to_owned(),
        format!("{}; false", whole("echo ran")),
    ] {
        let (code, said, tries) = run(&body);
        assert_eq!((code, tries), (Some(1), 12), "{body}");
        assert!(!said.contains("ran\n"), "{said}");
    }
    let third = format!("[ \"$(wc -l <tries)\" -ge 3 ] && {}", whole("echo ran"));
    let (code, said, tries) = run(&third);
    assert_eq!((code, tries), (Some(0), 3));
    assert!(said.ends_with("ran\n"), "{said}");
}

/// cloud-init itself reads what we render. It is slow to start, so one run reads everything.
#[test]
fn cloud_init_accepts_its_schema() {
    let Some(cloud_init) = tool("cloud-init") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut texts = vec![stub(Format::CloudInit, "fetch 'a' \"b\": #", 16 * 1024).unwrap()];
    let (pki, token) = (testing::pki(), testing::token());
    for system in [
        OperatingSystem::Ubuntu2204,
        OperatingSystem::Ubuntu2404,
        OperatingSystem::Debian12,
    ] {
        for (_, role) in testing::roles(&pki, "sha256:00", &token) {
            let setup = node_setup(system, &testing::cluster(), &testing::node(), role).unwrap();
            texts.push(cloud_init::render(&setup).unwrap());
        }
    }
    texts.push(cloud_init::render(&open_setup("- y: on\n#cloud-config\n")).unwrap());
    texts.sort();
    texts.dedup();
    let check = |number: usize, text: &str| {
        let file = folder.path().join(format!("{number}.yaml"));
        fs::write(&file, text).unwrap();
        Command::new(&cloud_init)
            .args(["schema", "--config-file"])
            .arg(&file)
            .output()
            .unwrap()
    };
    for (number, text) in texts.iter().enumerate() {
        let said = check(number, text);
        assert!(said.status.success(), "{said:?}\n{text}");
        assert!(
            !String::from_utf8_lossy(&said.stderr).contains("invalid"),
            "{said:?}"
        );
    }
    let said = check(999, "#cloud-config\nwrite_files:\n- owner: root:root\n");
    assert!(!said.status.success(), "it does look: {said:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_content_breaks_out(content in "[ -~\n\t\u{e9}\u{2028}]{0,200}", other in any::<String>()) {
        for content in [content, other] {
            for format in [Format::CloudInit, Format::Ignition] {
                let UserData::OneStep(text) = render(&open_setup(&content), format, 1 << 20, false).unwrap() else {
                    panic!("one step");
                };
                let files = written(format, text.expose());
                let want = ("/etc/example".to_owned(), 0o640, "root:adm".to_owned(), content.clone());
                prop_assert!(files.contains(&want));
            }
        }
    }
}
