use fleetwright_api::fleet::Allow;
use serde_json::json;

use super::*;
use crate::edit::tests::POOL;

const BASE: &str = "kind: MachineDeployment
base: true
metadata: {name: web}
spec:
  template:
    spec:
      version: v1.33.2
      failureDomain: a
      providerConfig:
        kind: M
        size: 2
        tags: {team: shop}
";
const WEB: &str = "kind: MachineDeployment
bases: [base.yaml]
metadata: {name: web}
spec:
  # Fewer than elsewhere.
  replicas: 1
  template:
    spec:
      providerConfig:
        size: 4 # large
";

/// The declaration of the pool in `web` beside the base, and what `change` makes of it.
fn edited(web: &str, change: impl FnOnce(&mut Value)) -> Result<String, Obstacle> {
    let file = |path: &str, text: &str| SourceFile {
        path: path.into(),
        content: Ok(text.as_bytes().to_vec()),
    };
    let files = [file("base.yaml", BASE), file("web.yaml", web)];
    let allow = Allow::default();
    let context = LoadContext {
        provider_schema: &|_, _| None,
        allow: &allow,
    };
    let mut found = find(&files, POOL, &context).unwrap().unwrap();
    assert_eq!(found.file, "web.yaml");
    let mut wanted = found.document.clone();
    change(&mut wanted);
    let new = found.edit(POOL, &wanted)?;
    let files = [file("base.yaml", BASE), file("web.yaml", &new)];
    let again = find(&files, POOL, &context).unwrap().unwrap();
    assert_eq!(again.document, wanted);
    Ok(new)
}

#[test]
fn a_value_of_a_base_is_changed_in_the_document() {
    let spec = "/spec/template/spec";
    let new = edited(WEB, |wanted| {
        let spec = wanted.pointer_mut(spec).unwrap();
        assert_eq!(
            spec["providerConfig"],
            json!({"kind": "M", "size": 4, "tags": {"team": "shop"}})
        );
        spec["version"] = "v1.32.0".into();
        spec["providerConfig"]["size"] = 2.into();
        spec["providerConfig"]["tags"]["team"] = "web".into();
        // What the base says goes only when the document says so.
        spec.as_object_mut().unwrap().remove("failureDomain");
    });
    assert_eq!(
        new.unwrap(),
        "kind: MachineDeployment
bases: [base.yaml]
metadata: {name: web}
spec:
  # Fewer than elsewhere.
  replicas: 1
  template:
    spec:
      providerConfig:
        size: 2 # large
        tags:
          team: web
      failureDomain: null
      version: v1.32.0
"
    );
}

#[test]
fn a_document_that_only_names_its_base_gets_the_value() {
    let web = "kind: MachineDeployment\nbases: [base.yaml]\nmetadata: {name: web}\n";
    let new = edited(web, |wanted| {
        wanted["spec"]["template"]["spec"]["version"] = "v1.32.0".into();
    });
    let spec = "spec:\n  template:\n    spec:\n      version: v1.32.0\n";
    assert_eq!(new.unwrap(), format!("{web}{spec}"));
    let same = edited(web, |_| {});
    assert_eq!(same.unwrap(), web);
}

#[test]
fn what_a_document_cannot_take_back_is_told() {
    // Null in a document of bases takes a value away: it cannot be the value.
    let found = edited(WEB, |wanted| wanted["spec"]["replicas"] = Value::Null);
    assert_eq!(found.unwrap_err().why, Why::Bases);
}

#[test]
fn a_base_of_the_same_name_declares_nothing_and_a_missing_one_is_told() {
    let allow = Allow::default();
    let context = LoadContext {
        provider_schema: &|_, _| None,
        allow: &allow,
    };
    let file = |text: &str| SourceFile {
        path: "web.yaml".into(),
        content: Ok(text.as_bytes().to_vec()),
    };
    assert!(find(&[file(BASE)], POOL, &context).unwrap().is_none());
    let files = [file(WEB)];
    let missing = find(&files, POOL, &context).err().unwrap();
    assert!(
        missing
            .to_string()
            .starts_with("web.yaml:2:9: there is no file base.yaml"),
        "{missing}"
    );
}
