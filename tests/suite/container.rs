//! The image and what is installed fit together. Whether it builds, only a build tells.

use std::{fs, path::Path};

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[test]
fn the_image_is_made_with_our_toolchain_and_runs_as_the_user_that_is_installed() {
    let image = read("Containerfile");
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let rust = toolchain["toolchain"]["channel"].as_str().unwrap();
    let bases: Vec<&str> = image
        .lines()
        .filter_map(|l| l.strip_prefix("FROM "))
        .collect();
    assert_eq!(bases.len(), 2, "{bases:?}");
    assert!(
        bases[0].contains(&format!("/rust:{rust}-")),
        "{} is not Rust {rust}",
        bases[0]
    );
    for base in bases {
        let tag = base.split(' ').next().unwrap().rsplit_once(':').unwrap().1;
        assert!(
            tag.starts_with(|c: char| c.is_ascii_digit()),
            "{base} moves"
        );
    }
    let user = image.lines().find_map(|l| l.strip_prefix("USER ")).unwrap();
    let (user, group) = user.split_once(':').unwrap();
    let installed = read("docs/installed.yaml");
    for line in [format!("runAsUser: {user}"), format!("runAsGroup: {group}")] {
        assert!(
            installed.contains(&line),
            "docs/installed.yaml has no {line}"
        );
    }
    assert!(image.contains("ENTRYPOINT [\"/usr/local/bin/fleetwright\"]"));
}
