//! What others were broken with: repositories made to be too much. Tests carry the advisories' names.

use std::os::unix::fs::symlink;

use super::*;
use crate::source::{Filter, read_directory};

fn shown(loaded: &Loaded) -> Vec<String> {
    loaded.errors.iter().map(ToString::to_string).collect()
}

/// What a directory on disk is loaded as.
fn read(directory: &std::path::Path) -> Vec<SourceFile> {
    let mut files = read_directory(directory, "", &Filter::default())
        .unwrap()
        .files;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn load_all(files: &[SourceFile]) -> Vec<String> {
    let allow = Allow::default();
    let context = LoadContext {
        provider_schema: &|_, _| None,
        allow: &allow,
    };
    shown(&load(files, &context))
}

#[test]
fn cve_2022_31016_total_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = MAX_TOTAL_BYTES / MAX_FILE_BYTES;
    for at in 0..=whole {
        let file = std::fs::File::create(folder.path().join(format!("f{at:02}.yaml"))).unwrap();
        file.set_len(MAX_FILE_BYTES as u64).unwrap();
    }
    let files = read(folder.path());
    assert_eq!(files.len(), whole + 1);
    // Whichever is found last is not read, and its objects are not taken for gone.
    let refused: Vec<_> = files.into_iter().filter(|f| f.content.is_err()).collect();
    assert_eq!(refused.len(), 1);
    let errors = load_all(&refused);
    assert_eq!(
        errors,
        [format!(
            "{}:1:1: too large: a file may have 4 MiB, all together 64 MiB",
            refused[0].path
        )]
    );
}

#[test]
fn cve_2022_31016_bytes_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("f.yaml")).unwrap();
    file.set_len(MAX_FILE_BYTES as u64 + 1).unwrap();
    assert_eq!(
        load_all(&read(folder.path())),
        ["f.yaml:1:1: too large: a file may have 4 MiB, all together 64 MiB"]
    );
}

/// Files that are each within bounds, and written small: what they become is counted over all of them.
#[test]
fn cve_2022_31016_values_of_all_files() {
    let row = |of: &str| format!("[{}]", vec![of; 20].join(", "));
    let bomb = format!(
        "a: &a {}\nb: &b {}\nc: {}\n",
        row("x"),
        row("*a"),
        row("*b")
    );
    let names: Vec<String> = (0..40).map(|at| format!("f{at:02}.yaml")).collect();
    let files: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), bomb.as_str()))
        .collect();
    let errors = shown(&run(&files, Allow::default()));
    let spent: Vec<_> = errors
        .iter()
        .filter(|e| e.contains("all files together have more than"))
        .collect();
    assert_eq!(spent.len(), 1, "{errors:?}");
    // Nothing is looked at from there on.
    assert_eq!(errors.last(), spent.first().copied());
    assert!(spent[0].contains(".yaml:1:1: "), "{spent:?}");
}

#[test]
fn cve_2022_31016_documents_of_a_file() {
    let text = "---\na: 1\n".repeat(yaml::MAX_DOCUMENTS + 1);
    let errors = shown(&run(&[("a.yaml", &text)], Allow::default()));
    assert_eq!(errors.len(), 1, "{errors:?}");
    let line = errors[0]
        .split(':')
        .nth(1)
        .and_then(|line| line.parse::<usize>().ok());
    assert!(
        line.is_some_and(|line| line >= 2 * yaml::MAX_DOCUMENTS),
        "{errors:?}"
    );
}

#[test]
fn cve_2022_24878_nesting_and_aliases_end_where_they_are() {
    let deep = format!("a: 1\nb: {}\n", "[".repeat(yaml::MAX_DEPTH + 1));
    let bomb: String = (0..9).fold("a0: &a0 [x]\n".to_owned(), |text, at| {
        let row = vec![format!("*a{at}"); 10].join(", ");
        format!("{text}a{}: &a{} [{row}]\n", at + 1, at + 1)
    });
    for (text, lines) in [(deep, 2..=2), (bomb, 2..=10)] {
        let loaded = run(&[("a.yaml", &text), ("b.yaml", CLUSTER)], Allow::default());
        let [error] = loaded.errors.as_slice() else {
            panic!("{:?}", loaded.errors);
        };
        assert!(
            error.file == "a.yaml" && lines.contains(&error.line) && error.column > 1,
            "{error}"
        );
        // The other files are read all the same.
        assert_eq!(loaded.objects.len(), 1);
    }
}

/// One object that cannot be read is one mistake, at its place: nobody else's objects are held up by it.
#[test]
fn cve_2022_39272_malformed_duration_is_one_mistake() {
    let spec = "    spec:\n";
    for (value, wanted) in [
        ("5m", "must be a whole number"),
        ("1e400", "must be a whole number"),
        ("'30'", "must be a whole number"),
        ("-1", "must be at least 1"),
        ("[]", "must be a whole number"),
    ] {
        let pool = POOL.replace(
            spec,
            &format!("{spec}      deletion: {{nodeDrainTimeoutSeconds: {value}}}\n"),
        );
        let files = [
            ("a.yaml", CLUSTER),
            ("bad.yaml", pool.as_str()),
            ("c.yaml", &POOL.replace("name: web", "name: other")),
        ];
        let loaded = run(&files, Allow::default());
        let errors = shown(&loaded);
        let wanted =
            format!("bad.yaml:10:43: spec.template.spec.deletion.nodeDrainTimeoutSeconds {wanted}");
        // A number that is none is a mistake of the text already.
        let finite = value != "1e400";
        assert_eq!(errors.len(), 1, "{value}: {errors:?}");
        assert!(
            if finite {
                errors[0] == wanted
            } else {
                errors[0].starts_with("bad.yaml:10:")
            },
            "{value}: {errors:?}"
        );
        assert!(
            loaded.objects.iter().any(|o| o.key.name == "other"),
            "{value}"
        );
    }
}

/// A base is read from what is followed, never through a link out of it.
#[test]
fn cve_2022_31036_a_base_behind_a_link_is_not_read() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(
        outside.path().join("secret.yaml"),
        "kind: MachineDeployment\npassword: hunter2\n",
    )
    .unwrap();
    symlink(
        outside.path().join("secret.yaml"),
        folder.path().join("base.yaml"),
    )
    .unwrap();
    symlink(outside.path(), folder.path().join("more")).unwrap();
    let pool = |name: &str, base: &str| {
        let text = POOL.replace(
            "kind: MachineDeployment\n",
            &format!("kind: MachineDeployment\nbases: [{base}]\n"),
        );
        std::fs::write(
            folder.path().join(name),
            text.replace(
                "name: web",
                &format!("name: {}", name.split('.').next().unwrap()),
            ),
        )
        .unwrap();
    };
    pool("a.yaml", "base.yaml");
    pool("b.yaml", "more/secret.yaml");
    pool("c.yaml", "'..\\secret.yaml'");
    pool("d.yaml", "..%2fsecret.yaml");
    pool("e.yaml", "x/../../secret.yaml");
    let errors = load_all(&read(folder.path()));
    for wanted in [
        "a.yaml:3:9: base.yaml cannot be read: see its own mistake",
        "b.yaml:3:9: there is no file more/secret.yaml",
        "base.yaml:1:1: a symbolic link is not read",
        "more:1:1: a symbolic link that leads out of the followed folder is not followed",
        "c.yaml:3:9: there is no file ..\\secret.yaml",
        "d.yaml:3:9: there is no file ..%2fsecret.yaml",
        "e.yaml:3:9: x/../../secret.yaml leaves what is followed",
    ] {
        assert!(
            errors.iter().any(|e| e.starts_with(wanted)),
            "wanted {wanted}, got {errors:#?}"
        );
    }
    assert_eq!(errors.len(), 7, "{errors:#?}");
    assert!(!errors.concat().contains("hunter2"));
}
