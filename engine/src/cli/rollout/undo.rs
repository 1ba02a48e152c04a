//! `fleetwright rollout undo`: back to an earlier revision; in the repository, where Git owns the pool.

use std::path::PathBuf;

use anyhow::Context as _;
use fleetwright_api::{
    Fleet, MachineDeployment,
    fleet::Allow,
    meta, names,
    time::{Clock as _, SystemClock},
};
use fleetwright_core::{
    catalogue::Catalogue,
    rollout::{self, Undo},
    why::short,
};
use fleetwright_gitops::{
    edit::{Declares, Obstacle, changes, find, patch},
    load::{LoadContext, SourceFile},
    read::Reader,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{BY, history::pool};
use crate::{
    client,
    error::{Failure, chain, step},
    object::Object,
    output::{Output, print},
    repository::{catalogue, read},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    object: Object,
    /// The revision to go back to; the one before the current one when left out.
    #[arg(long, value_name = "N")]
    to_revision: Option<u64>,
    /// Directory of the repository that declares the pool; what its Fleet follows is read when left out.
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.object.client().await?;
    let pool = pool(&args.object, &client).await?;
    let sets = args.object.sets(&client, &pool).await?;
    let schemas = catalogue();
    let back = rollout::undo(&pool, &sets, args.to_revision, &schemas);
    let back = back.map_err(|why| Failure::input(format!("{}: {why}", args.object.object)))?;
    if is_declared(&pool) {
        return tell(&args, &client, &schemas, &pool, &back).await;
    }
    write(&args, &client, &pool, &back).await?;
    let document = json!({"written": true, "revision": back.revision, "changes": back.changes});
    args.output.print(&document, || {
        let changes: Vec<String> = back.changes.iter().map(ToString::to_string).collect();
        let (pool, revision) = (&args.object.object, back.revision);
        format!(
            "{pool} goes back to revision {revision}: {}\n",
            changes.join("; ")
        )
    })
}

/// Whether a repository says what the pool is: then only the repository can take it back.
fn is_declared(pool: &MachineDeployment) -> bool {
    let managers = pool
        .managed_fields()
        .iter()
        .filter_map(|e| e.manager.as_deref());
    pool.labels().contains_key(meta::LABEL_FLEET)
        || managers.into_iter().any(|m| m.starts_with("fleetwright/"))
}

async fn write(
    args: &Args,
    client: &Client,
    pool: &MachineDeployment,
    back: &Undo,
) -> Result<(), Failure> {
    let template = step(
        serde_json::to_value(&back.template),
        "cannot write the template",
    )?;
    // The whole template is put in place of the one that was read: what was not there then goes.
    let patch = step(
        serde_json::from_value(json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": pool.resource_version()},
            {"op": "replace", "path": "/spec/template", "value": template},
        ])),
        "cannot write the patch",
    )?;
    let params = PatchParams {
        field_manager: Some(BY.to_owned()),
        ..PatchParams::default()
    };
    let api = Api::<MachineDeployment>::namespaced(client.clone(), &args.object.namespace);
    let written = api
        .patch(&pool.name_any(), &params, &Patch::<()>::Json(patch))
        .await;
    written.map_err(|e| client::failure(&format!("cannot change {}", args.object.object), e))?;
    Ok(())
}

/// What the repository has to say for the pool to go back.
struct Way {
    /// Path of the file, where it was found.
    file: Option<String>,
    /// The patch of the file, where its text can be edited.
    patch: Option<String>,
    /// Why it cannot be.
    obstacle: Option<Obstacle>,
    /// What the file has to say: paths with their values, `None` where there is to be none.
    values: Vec<(String, Option<Value>)>,
    /// The document as it should be.
    document: Value,
}

impl Way {
    /// Where the file cannot be edited, and why.
    fn trouble(&self) -> Option<String> {
        let (file, obstacle) = (self.file.as_ref()?, self.obstacle?);
        let (line, column) = (obstacle.place.line, obstacle.place.column);
        Some(format!("{file}:{line}:{column}: {obstacle}"))
    }

    /// For people: the patch; the values where the file is known and cannot be patched; else the whole document.
    fn text(&self) -> String {
        let line = |(path, value): &(String, Option<Value>)| match value {
            Some(value) => format!("{path}: {value}\n"),
            None => format!("{path}: (take it away)\n"),
        };
        match (&self.patch, &self.file) {
            (Some(patch), _) => patch.clone(),
            (None, Some(_)) => self.values.iter().map(line).collect(),
            (None, None) => serde_saphyr::to_string(&self.document).unwrap_or_default(),
        }
    }
}

async fn tell(
    args: &Args,
    client: &Client,
    schemas: &Catalogue,
    pool: &MachineDeployment,
    back: &Undo,
) -> Result<(), Failure> {
    let fleet = fleet_of(client, pool).await?;
    let (files, trouble) = match files(args, client, fleet.as_ref()).await {
        Ok(files) => (files, None),
        Err(failure) if args.repo.is_some() => return Err(failure),
        Err(failure) => (Vec::new(), Some(failure.message)),
    };
    let way = way(&files, schemas, pool, back)?;
    if way.file.is_some() && way.patch.as_deref() == Some("") {
        let text = format!(
            "the repository says already what revision {} was\n",
            back.revision
        );
        let document = json!({"written": false, "revision": back.revision, "patch": ""});
        return args.output.print(&document, || text);
    }
    let document = json!({
        "written": false, "revision": back.revision, "changes": back.changes, "file": way.file, "patch": way.patch,
        "obstacle": way.trouble(), "document": way.document, "revert": back.commit,
    });
    match args.output {
        // As it is: it is for `git apply`.
        Output::Text => print(&way.text()),
        other => other.print(&document, String::new)?,
    }
    let fleet = fleet.map_or_else(String::new, |f| {
        format!(
            " (Fleet {}/{})",
            f.namespace().unwrap_or_default(),
            f.name_any()
        )
    });
    let what = match (&way.patch, &way.file) {
        (Some(_), _) => "apply this patch in the repository (`git apply`), commit and push",
        (None, Some(_)) => "its document in the repository has to say these values",
        (None, None) => "the repository has to say this of it",
    };
    let (object, revision) = (&args.object.object, back.revision);
    let mut message =
        format!("nothing was written: Git owns {object}{fleet}; for revision {revision} {what}");
    if let Some(trouble) = trouble.or_else(|| way.trouble()) {
        message.push_str(&format!(" ({trouble})"));
    }
    let failure = Failure::repository(message);
    Err(match back.commit.as_deref().filter(|c| c.len() == 40) {
        Some(commit) => failure.hint(format!(
            "`git revert {}` does the same, if that commit changed nothing else",
            short(commit)
        )),
        None if way.file.is_none() => {
            failure.hint("name the repository's directory with --repo DIR for a patch")
        }
        None => failure,
    })
}

fn way(
    files: &[SourceFile],
    schemas: &Catalogue,
    pool: &MachineDeployment,
    back: &Undo,
) -> Result<Way, Failure> {
    let namespace = pool.namespace().unwrap_or_default();
    let name = pool.name_any();
    let object = Declares {
        kind: "MachineDeployment",
        namespace: &namespace,
        name: &name,
    };
    let allow = Allow::default();
    let context = LoadContext {
        provider_schema: &|version, kind| schemas.schema(version, kind),
        allow: &allow,
    };
    let mut found =
        find(files, object, &context).map_err(|mistake| Failure::input(mistake.to_string()))?;
    let mut document = match &found {
        Some(found) => found.document.clone(),
        None => json!({
            "apiVersion": fleetwright_api::API_VERSION, "kind": "MachineDeployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": step(serde_json::to_value(&pool.spec), "cannot write the pool")?,
        }),
    };
    let template = step(
        serde_json::to_value(&back.template.spec),
        "cannot write the template",
    )?;
    if let Some(spec) = document
        .pointer_mut("/spec/template/spec")
        .and_then(Value::as_object_mut)
    {
        for field in ["version", "failureDomain", "providerConfig"] {
            match template.get(field) {
                Some(value) => spec.insert(field.to_owned(), value.clone()),
                None => spec.remove(field),
            };
        }
    }
    let edited = found.as_mut().map(|found| {
        let new = found.edit(object, &document)?;
        Ok(patch(found.file, found.text, &new))
    });
    let (patch, obstacle) = match edited {
        None => (None, None),
        Some(Ok(patch)) => (Some(patch), None),
        Some(Err(obstacle)) => (None, Some(obstacle)),
    };
    let values = found.as_ref().map(|f| changes(&f.document, &document));
    let values = values.unwrap_or_default().into_iter();
    Ok(Way {
        file: found.map(|found| found.file.to_owned()),
        patch,
        obstacle,
        values: values
            .map(|(path, value)| (path.join("."), value))
            .collect(),
        document,
    })
}

/// The Fleet that applied the pool.
async fn fleet_of(client: &Client, pool: &MachineDeployment) -> Result<Option<Fleet>, Failure> {
    let Some(hash) = pool.labels().get(meta::LABEL_FLEET) else {
        return Ok(None);
    };
    let all = Api::<Fleet>::all(client.clone())
        .list(&ListParams::default())
        .await;
    let all = all.map_err(|e| client::failure("cannot list the Fleets", e))?;
    let is =
        |f: &Fleet| names::fleet_hash(&f.namespace().unwrap_or_default(), &f.name_any()) == *hash;
    Ok(all.items.into_iter().find(is))
}

/// The files of the repository, with paths from its root.
async fn files(
    args: &Args,
    client: &Client,
    fleet: Option<&Fleet>,
) -> Result<Vec<SourceFile>, Failure> {
    if let Some(directory) = &args.repo {
        return Ok(read(directory)?.files);
    }
    let Some(fleet) = fleet else {
        return Err(Failure::input(
            "no Fleet of this engine follows its repository",
        ));
    };
    let cannot = |e: &(dyn std::error::Error + 'static)| Failure::input(chain(e));
    let cache = tempfile::tempdir().context("cannot make a folder for what is read")?;
    let catalogue = catalogue();
    let mut reader = Reader::new(client.clone(), catalogue.into(), cache.path().into());
    let found = reader
        .find(fleet, SystemClock.now())
        .await
        .map_err(|e| cannot(&e))?;
    let tree = found.tree.map_err(|e| cannot(&e))?;
    let mut files = reader.files(tree).await.map_err(|e| cannot(&e))?;
    if let Some(path) = fleet
        .spec
        .source
        .path
        .as_deref()
        .map(|p| p.trim_matches('/'))
        .filter(|p| !p.is_empty() && *p != ".")
    {
        for file in &mut files {
            file.path = format!("{path}/{}", file.path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(config: Value) -> MachineDeployment {
        let spec = json!({"clusterName": "eu", "template": {"spec": {"providerConfig": config}}});
        let object = json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment",
            "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    /// What is told of the way back to `config` where this file declares the pool.
    fn told(file: &str, config: Value) -> (String, Option<String>) {
        let (pool, file) = (
            pool(config),
            SourceFile {
                path: "pools/web.yaml".into(),
                content: Ok(file.as_bytes().to_vec()),
            },
        );
        let back = Undo {
            revision: 1,
            template: pool.spec.template.clone(),
            changes: Vec::new(),
            commit: None,
        };
        let way = way(&[file], &Catalogue::default(), &pool, &back).unwrap();
        (way.text(), way.trouble())
    }

    const HEAD: &str = "kind: Cluster
metadata: {name: web}
---
kind: MachineDeployment
metadata: {name: web}
spec:
  clusterName: eu
  template:
    spec:
";

    #[test]
    fn the_last_key_of_a_map_goes_and_leaves_a_map() {
        let file = format!(
            "{HEAD}      providerConfig:\n        tags:\n          team: shop\n        kind: K\n"
        );
        let (text, trouble) = told(&file, json!({"kind": "K", "tags": {}}));
        assert_eq!(trouble, None);
        let changed: Vec<&str> = text
            .lines()
            .filter(|l| l.starts_with(['-', '+']))
            .skip(2)
            .collect();
        assert_eq!(
            changed,
            [
                "-        tags:",
                "-          team: shop",
                "+        tags: {}"
            ]
        );
        assert!(
            text.starts_with("diff --git a/pools/web.yaml b/pools/web.yaml\n"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_patched_is_told_with_its_place_and_its_values() {
        // Another value is an alias of the one that goes.
        let file = format!(
            "{HEAD}      failureDomain: &zone b\n      providerConfig:\n        kind: K\n        zone: *zone\n"
        );
        let (text, trouble) = told(&file, json!({"kind": "K", "zone": "b", "image": "old"}));
        assert_eq!(
            text,
            "spec.template.spec.providerConfig.image: \"old\"\nspec.template.spec.failureDomain: (take it away)\n"
        );
        assert_eq!(
            trouble.as_deref(),
            Some("pools/web.yaml:10:7: this is written in a way that cannot be edited safely")
        );
    }

    #[test]
    fn without_a_file_the_whole_document_is_told() {
        let (text, trouble) = told("kind: Other\n", json!({"kind": "K"}));
        assert_eq!(trouble, None);
        assert!(
            text.contains("kind: MachineDeployment") && text.contains("kind: K"),
            "{text}"
        );
    }
}
