//! Patches of each type to the objects that are there, written as text: a line `OBJECT TYPE QUERY` and the patch.
//!
//! Beside a clean answer: what a patch stored can be read and is accepted when it is sent back as it is, and a patch
//! that states what is wanted, sent again, changes nothing.
#![no_main]

use fleetwright_fuzz::{Subject, objects, with};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
];

fuzz_target!(init: fleetwright_fuzz::seeds::write("patches"), |input: &[u8]| {
    with(|subject| play(subject, input));
});

fn play(subject: &Subject, input: &[u8]) -> Option<()> {
    let end = input.iter().position(|b| *b == b'\n')?;
    let mut head = std::str::from_utf8(&input[..end]).ok()?.splitn(3, ' ');
    let objects = objects();
    let number: usize = head.next()?.parse().ok()?;
    let (collection, object) = &objects[number % objects.len()];
    let number: usize = head.next()?.parse().ok()?;
    let kind = TYPES[number % TYPES.len()];
    let query = head.next()?;
    let name = object["metadata"]["name"].as_str()?;
    let path = format!("{collection}/{name}");
    let uri = format!("{path}?{query}");
    uri.parse::<http::Uri>().ok()?;
    let patch = &input[end + 1..];

    let first = subject.ask("PATCH", &uri, kind, patch);
    if first.status < 300 && first.body["metadata"]["name"] == name {
        let stored = subject.ask("GET", &path, "application/json", b"");
        assert_eq!(stored.status, 200, "what was patched can be read");
        let text = stored.body.to_string();
        let again = subject.ask("PUT", &path, "application/json", text.as_bytes());
        assert_eq!(
            again.status, 200,
            "{uri} stored what is refused: {}",
            again.body
        );
        // A list of operations is no wish, and a version that is asked for is passed.
        if kind != "application/json-patch+json" {
            let second = subject.ask("PATCH", &uri, kind, patch);
            let conflict = second.status == 409;
            assert!(
                conflict || second.status < 300,
                "{uri} is refused the second time: {}",
                second.body
            );
            if !conflict {
                let versions =
                    [&again.body, &second.body].map(|b| &b["metadata"]["resourceVersion"]);
                assert_eq!(
                    versions[0], versions[1],
                    "{uri} changes again: {} -> {}",
                    again.body, second.body
                );
            }
        }
    }
    reset(subject, collection, object);
    Some(())
}

/// Puts the object back as it was, for the next input; where it has what may not change any more, by making it anew.
fn reset(subject: &Subject, collection: &str, object: &Value) {
    let path = format!(
        "{collection}/{}",
        object["metadata"]["name"].as_str().unwrap_or_default()
    );
    let live = subject.ask("GET", &path, "application/json", b"");
    let mut fresh = object.clone();
    fresh["metadata"]["resourceVersion"] = live.body["metadata"]["resourceVersion"].clone();
    fresh["metadata"]["managedFields"] = json!([{}]);
    let back = subject.ask(
        "PUT",
        &path,
        "application/json",
        fresh.to_string().as_bytes(),
    );
    if back.status < 300 {
        return;
    }
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    subject.ask("PATCH", &path, TYPES[1], free.as_bytes());
    let gone = subject.ask(
        "DELETE",
        &format!("{path}?gracePeriodSeconds=0"),
        "application/json",
        b"",
    );
    assert!(gone.status < 300, "{path} cannot be removed: {}", gone.body);
    let made = subject.ask(
        "POST",
        collection,
        "application/json",
        object.to_string().as_bytes(),
    );
    assert_eq!(
        made.status, 201,
        "{path} cannot be made again after {}: {}",
        back.body, made.body
    );
}
