use std::path::Path;

use fleetwright_api::fleet::Allow;
use fleetwright_core::catalogue::Catalogue;

use super::*;
use crate::{
    gather::load_files,
    load::{Loaded, SourceFile},
};

fn loaded(files: &[(&str, &str)]) -> Loaded {
    let files: Vec<SourceFile> = files
        .iter()
        .map(|(path, text)| SourceFile {
            path: (*path).into(),
            content: Ok(text.as_bytes().to_vec()),
        })
        .collect();
    let mut catalogue = Catalogue::default();
    for schema in fleetwright_provider_sim::config::schemas() {
        catalogue.insert(&schema.api_version, &schema.kind, schema.schema);
    }
    load_files(
        &files,
        &catalogue,
        &Allow::default(),
        &[("default".into(), "metal".into())].into(),
    )
}

/// The worked example of the documentation is what its pages say it is.
#[test]
fn the_example_of_the_documentation_renders_as_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/repository.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let documents: Vec<&str> = blocks.filter(|b| b.starts_with("apiVersion")).collect();
    let [pool, clouds, web] = documents.as_slice() else {
        panic!("{} documents", documents.len());
    };
    let loaded = loaded(&[
        ("base/pool.yaml", pool),
        ("base/clouds.yaml", clouds),
        ("clusters/metal-web.yaml", web),
    ]);
    assert_eq!(loaded.errors, []);
    let [object] = loaded.objects.as_slice() else {
        panic!("{:?}", loaded.objects);
    };
    let text = render(object);
    let said = page.split("--object md/metal-web\n").nth(1).unwrap();
    let said = said.split("```").next().unwrap();
    for part in said.split("...\n").map(str::trim_end) {
        assert!(text.contains(part), "{part}\n\nis not in\n\n{text}");
    }
    assert!(
        object.document["spec"]["template"]["spec"]["deletion"]
            .as_object()
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        object.document["spec"]["template"]["spec"]["providerConfig"]["account"],
        "sim-metal"
    );
}

#[test]
fn any_text_stays_what_it_is() {
    let base = "apiVersion: v1\nkind: ConfigMap\nbase: true\ndata:\n  lines: |\n    a: 1 # no comment\n    b\n\n  folded: \"x  y\\n\\n z \"\n  long: WORDS\n  \"odd: key #\": \"# text\"\n  empty: \"\"\n";
    let base = base.replace("WORDS", &"many words in a row ".repeat(40));
    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nbases: [base.yaml]\n";
    let loaded = loaded(&[("base.yaml", &base), ("a.yaml", own)]);
    assert_eq!(loaded.errors, []);
    let text = render(&loaded.objects[0]);
    let read = yaml::parse(&text).unwrap();
    assert_eq!(read[0].to_value(), loaded.objects[0].document, "{text}");
    assert!(text.contains("  # base.yaml:6\n"), "{text}");
}
