//! What is no plain file, and what a Fleet leaves out.

use super::*;

#[test]
fn what_is_no_plain_file_is_a_mistake_or_passed_over() {
    let remote = Remote::new();
    let blob = |text: &[u8]| remote.repository.blob(text).unwrap();
    let below = remote.tree(&[("100644", b"b.yaml", blob(b"b: 1"))]);
    let large = vec![b'x'; crate::load::MAX_FILE_BYTES + 1];
    let tree = remote.tree(&[
        ("40000", b".github", below),
        ("120000", b".hidden", blob(b"/etc")),
        (
            "160000",
            b".module",
            Oid::from_str(&"1".repeat(40)).unwrap(),
        ),
        ("120000", b"down", blob(b"below/../.github")),
        ("120000", b"etc", blob(b"/etc")),
        ("100644", b"large.yaml", blob(&large)),
        ("100644", b"line\nbreak.yaml", blob(b"c: 1")),
        ("120000", b"link.yaml", blob(b"/etc/passwd")),
        ("160000", b"module", Oid::from_str(&"1".repeat(40)).unwrap()),
        ("100644", b"plain.yaml", blob(b"a: 1")),
        ("120000", b"up", blob(b"../x")),
        ("100644", b"\xff.yaml", blob(b"d: 1")),
    ]);
    remote.commit_tree(tree);
    let files = remote.files();
    let names: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    let wanted = [
        "\\xff.yaml",
        "etc",
        "large.yaml",
        "line\\nbreak.yaml",
        "link.yaml",
        "module",
        "plain.yaml",
        "up",
    ];
    assert_eq!(names, wanted);
    let of = |name: &str| &files.iter().find(|(path, _)| path == name).unwrap().1;
    assert!(of("large.yaml").as_ref().unwrap_err().contains("too large"));
    let link = of("link.yaml").as_ref().unwrap_err();
    assert!(link.contains("symbolic link"), "{link}");
    assert!(of("module").as_ref().unwrap_err().contains("submodule"));
    for out in ["etc", "up"] {
        let why = of(out).as_ref().unwrap_err();
        assert!(why.contains("leads out"), "{why}");
    }
    assert_eq!(of("plain.yaml"), &Ok("a: 1".to_owned()));
}

#[test]
fn a_directory_holds_the_same_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
    std::fs::write(at(b"plain.yaml"), "a: 1").unwrap();
    let empty = read_directory(dir.path(), "", &Filter::default()).unwrap();
    symlink("/etc/passwd", at(b"link.yaml")).unwrap();
    symlink("/etc", at(b"etc")).unwrap();
    std::fs::write(
        at(b"large.yaml"),
        vec![b'x'; crate::load::MAX_FILE_BYTES + 1],
    )
    .unwrap();
    std::fs::write(at(b"\xff.yaml"), "d: 1").unwrap();
    let read = read_directory(dir.path(), "", &Filter::default()).unwrap();
    assert_ne!(read.tree, empty.tree, "a mistake is part of the revision");
    let files = named(read.files);
    let bad: Vec<&str> = files
        .iter()
        .filter(|(_, content)| content.is_err())
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(bad, ["etc", "large.yaml", "link.yaml"]);
    assert!(files.iter().any(|(path, _)| path == "\\xff.yaml"));
    let without = read_directory(Path::new("/no/such/directory"), "", &Filter::default());
    assert!(matches!(without, Err(SourceError::Io { .. })));
}

#[test]
fn cve_2022_31036_symlink_out_of_tree() {
    let dir = tempfile::tempdir().unwrap();
    let remote = Remote::new();
    let rows: [(&str, &str, Option<&str>); 13] = [
        (
            "values.yaml",
            "/etc/passwd",
            Some("symbolic link is not read"),
        ),
        (
            "values.yaml",
            "plain.yaml",
            Some("symbolic link is not read"),
        ),
        ("values.txt", "/etc/passwd", Some("leads out")),
        ("values.txt", "../secret", Some("leads out")),
        ("values.txt", "below/../../secret", Some("leads out")),
        ("values.txt", "below/../plain.txt", None),
        ("values.txt", "./plain.txt", None),
        ("values.txt", "values.txt", None),
        ("below/values.txt", "../plain.txt", None),
        ("below/values.txt", "../../secret", Some("leads out")),
        ("below/folder", "..", None),
        ("folder", "..", Some("leads out")),
        ("folder", &"x/".repeat(3000), Some("leads out")),
    ];
    for (n, (path, target, wanted)) in rows.into_iter().enumerate() {
        let blob = remote.repository.blob(target.as_bytes()).unwrap();
        let (mut name, mut entries) = (path, vec![]);
        let below;
        if let Some((folder, rest)) = path.split_once('/') {
            below = remote.tree(&[("120000", rest.as_bytes(), blob)]);
            (name, entries) = (folder, vec![("40000", folder.as_bytes(), below)]);
        }
        if entries.is_empty() {
            entries.push(("120000", name.as_bytes(), blob));
        }
        let inner = remote.tree(&entries);
        // The followed folder is not the repository's root: out of the one is not out of the other.
        let commit = remote.commit_tree(remote.tree(&[("40000", b"fleet", inner)]));
        remote.branch("main").unwrap();
        let tree = remote.source.tree(commit, "fleet").unwrap();
        let in_git = named(remote.source.files(tree, &Filter::default()).unwrap());

        let root = dir.path().join(n.to_string());
        let link = root.join(path);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        // A file system keeps no target as long as Git does.
        let in_directory = symlink(target, link).is_ok().then(|| {
            let read = read_directory(&root, "", &Filter::default()).unwrap();
            named(read.files)
        });
        for files in [Some(in_git), in_directory].into_iter().flatten() {
            match (files.as_slice(), wanted) {
                ([], None) => {}
                ([(file, Err(why))], Some(part)) => {
                    assert_eq!(file, path);
                    assert!(why.contains(part), "{path} -> {target}: {why}");
                }
                other => panic!("{path} -> {target}: {other:?}"),
            }
        }
    }
}

/// The folder that is followed lies in the repository, whatever its name says and wherever a link of its name leads.
#[test]
fn cve_2022_24877_the_followed_folder_stays_inside() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(outside.path().join("deep")).unwrap();
    for file in ["secret.yaml", "deep/secret.yaml"] {
        std::fs::write(outside.path().join(file), "a: secret").unwrap();
    }
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("fleet")).unwrap();
    std::fs::write(dir.path().join("secret.yaml"), "a: secret").unwrap();
    std::fs::write(root.join("fleet/a.yaml"), "a: 1").unwrap();
    symlink(outside.path(), root.join("link")).unwrap();
    symlink(outside.path(), root.join("fleet/link")).unwrap();
    let remote = Remote::new();
    let target = outside.path().as_os_str().as_bytes();
    let link = remote.repository.blob(target).unwrap();
    let file = remote.repository.blob(b"a: 1").unwrap();
    let fleet = remote.tree(&[("100644", b"a.yaml", file), ("120000", b"link", link)]);
    let commit =
        remote.commit_tree(remote.tree(&[("40000", b"fleet", fleet), ("120000", b"link", link)]));
    remote.branch("main").unwrap();
    let absolute = outside.path().to_str().unwrap();
    for path in [
        "..",
        "../x",
        "fleet/../..",
        "fleet/..",
        "fleet/./../fleet",
        "link",
        "link/deep",
        "./link/",
        "fleet/link",
        "fleet/link/deep",
        absolute,
        "/etc",
    ] {
        let in_git = remote.source.tree(commit, path);
        let in_directory = read_directory(&root, path, &Filter::default());
        let mark = Fingerprint::of(&root, path);
        assert!(mark.is_err(), "{path}");
        // A link that leads out is a mistake of the folder that holds it; here it is the folder.
        match (&in_git, &in_directory) {
            (Err(SourceError::Outside), Err(SourceError::Outside)) => {
                assert!(path.contains(".."), "{path}");
            }
            (Err(SourceError::NoPath(_)), Err(SourceError::Linked(_))) => {
                assert!(path.contains("link"), "{path}");
            }
            // From the repository's root.
            (Err(SourceError::NoPath(_)), Err(SourceError::Io { .. })) => {
                assert!(path.starts_with('/'), "{path}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    let read = read_directory(&root, "/fleet/", &Filter::default()).unwrap();
    let files = named(read.files);
    assert_eq!(files[0], ("a.yaml".to_owned(), Ok("a: 1".to_owned())));
}

/// A file that is small only as it is sent: its size is asked for before it is unpacked.
#[test]
fn cve_2023_40584_what_unpacks_to_much_is_not_unpacked() {
    let remote = Remote::new();
    let bomb = vec![b' '; 32 << 20];
    let bomb = remote.repository.blob(&bomb).unwrap();
    let good = remote.repository.blob(b"a: 1").unwrap();
    remote.commit_tree(remote.tree(&[
        ("100644", b"bomb.yaml", bomb),
        ("100644", b"good.yaml", good),
    ]));
    let files = remote.files();
    let why = files[0].1.as_ref().unwrap_err();
    assert!(
        files[0].0 == "bomb.yaml" && why.contains("too large"),
        "{why}"
    );
    assert_eq!(files[1], ("good.yaml".to_owned(), Ok("a: 1".to_owned())));
}

#[test]
fn what_is_left_out_is_not_read() {
    let remote = Remote::new();
    let blob = |text: &[u8]| remote.repository.blob(text).unwrap();
    let lost = Oid::from_str(&"2".repeat(40)).unwrap();
    let eu = remote.tree(&[
        ("100644", b"a.yaml", blob(b"a: 1")),
        ("120000", b"link.yaml", blob(b"/etc/passwd")),
        ("100644", b"lost.yaml", blob(b"c: 1")),
        ("160000", b"module", lost),
    ]);
    let root = remote.tree(&[("100644", b"b.yaml", blob(b"b: 1")), ("40000", b"eu", eu)]);
    let commit = remote.commit_tree(root);
    remote.branch("main").unwrap();
    let tree = remote.source.tree(commit, "").unwrap();
    let texts = |globs: &[&str]| globs.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rows: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &["eu/"], &["b.yaml"]),
        (
            &[],
            &["lost.*", "link.yaml", "/eu/module"],
            &["b.yaml", "eu/a.yaml"],
        ),
        (&["a.yaml"], &[], &["eu/a.yaml"]),
        (&["*.json"], &[], &[]),
    ];
    for (include, exclude, wanted) in rows {
        let filter = Filter::new(&texts(include), &texts(exclude)).unwrap();
        let files = remote.source.files(tree, &filter).unwrap();
        let names: Vec<String> = named(files).into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, wanted, "{include:?} {exclude:?}");
    }
    let filter = Filter::new(&[], &texts(&["lost.*"])).unwrap();
    let mut found = collect::Collector::new(&filter);
    let taken = found.file(b"eu/lost.yaml", 4, || panic!("it is read"));
    assert!(!taken.unwrap());
}

#[test]
fn what_is_left_out_of_a_directory_is_no_part_of_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.yaml", "a: 1");
    write("b.yaml", "b: 1");
    let filter = Filter::new(&[], &["b.yaml".to_owned()]).unwrap();
    let read = |filter: &Filter| read_directory(dir.path(), "", filter).unwrap();
    let (part, all) = (read(&filter), read(&Filter::default()));
    assert_eq!((part.files.len(), all.files.len()), (1, 2));
    assert_ne!(part.tree, all.tree);
    write("b.yaml", "b: 2");
    assert_eq!(read(&filter), part);
}

#[test]
fn cve_2022_31016_bytes_of_all_together() {
    use crate::load::{MAX_FILE_BYTES, MAX_TOTAL_BYTES};
    let filter = Filter::default();
    let mut found = collect::Collector::new(&filter);
    let fits = MAX_TOTAL_BYTES / MAX_FILE_BYTES;
    for n in 0..=fits {
        let path = format!("{n}.yaml");
        // Nothing more is read once there is too much of it.
        let read = || match n < fits {
            true => Ok(b"a: 1".to_vec()),
            false => panic!("{n} is read"),
        };
        found.file(path.as_bytes(), MAX_FILE_BYTES, read).unwrap();
    }
    let files = named(found.into_files());
    let bad = files.iter().filter(|(_, content)| content.is_err());
    assert_eq!(bad.count(), 1);
}
