//! The documentation says what the code does.

use std::{collections::BTreeSet, path::Path};

use fleetwright_tests::reference;

/// `UPDATE_DOCS=1` writes the page anew.
#[test]
fn the_reference_of_kinds_is_what_their_definitions_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kinds.md");
    let page = reference::page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == page,
        "docs/kinds.md is out of date: run `make docs`"
    );
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("examples-repo/README.md")];
    for folder in ["docs", "docs/providers"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|file| file.is_file()));
    }
    let mut broken = BTreeSet::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty()
                && !target.contains("://")
                && !page.parent().unwrap().join(target).exists()
            {
                broken.insert(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}
