//! The recorded exchanges are what they were.

use std::{fmt::Write as _, fs, path::Path};

use sha2::{Digest, Sha256};

#[test]
fn files_are_what_was_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 40, "39 scenarios and their kinds");
    for line in sums.lines() {
        let (want, file) = line.split_once("  ").unwrap();
        let got = Sha256::digest(fs::read(folder.join(file)).unwrap())
            .iter()
            .fold(String::new(), |mut text, b| {
                write!(text, "{b:02x}").unwrap();
                text
            });
        assert_eq!(
            got, want,
            "{file} was changed: recordings are facts, mend the server instead"
        );
    }
}

#[test]
fn a_recording_equals_itself_and_nothing_else() {
    use fleetwright_tests::conformance::{first_difference, scenarios};
    let all =
        scenarios(&Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/recorded")).unwrap();
    assert_eq!(all.len(), 39);
    for scenario in &all {
        for step in &scenario.steps {
            assert_eq!(first_difference(&step["answer"], &step["answer"]), None);
            let mut other = step["answer"].clone();
            other["status"] = 599.into();
            assert!(first_difference(&step["answer"], &other).is_some());
        }
    }
}
