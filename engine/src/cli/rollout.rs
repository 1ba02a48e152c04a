//! `fleetwright rollout`: revisions of a pool, the way back to one, and pauses and restarts of pools and control planes.

mod history;
mod undo;

use fleetwright_api::{
    Cluster, MachineDeployment, meta,
    time::{Clock as _, SystemClock},
};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    client,
    error::Failure,
    object::{Kind, Object},
    output::Output,
};

/// Field manager of what these commands write.
const BY: &str = "fleetwright-rollout";
/// How often a change is tried while others change the same object.
const TRIES: u32 = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the revisions that a pool keeps: what changed with each, and which commit brought it.
    History(history::Args),
    /// Take a pool back to an earlier revision. A pool that Git owns is not written: the patch for the repository is printed,
    /// and the exit code is 3.
    Undo(undo::Args),
    /// Stop replacing machines of a pool or a control plane; a pool goes on scaling.
    Pause(One),
    /// End a pause.
    Resume(One),
    /// Replace all machines of a pool or a control plane, within the bounds of a rollout.
    Restart(One),
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    object: Object,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::History(args) => history::run(args).await,
        Command::Undo(args) => undo::run(args).await,
        Command::Pause(one) => {
            let paused = |_: Timestamp| Some(String::new());
            switch(one, meta::ANNOTATION_PAUSED, paused, "is paused").await
        }
        Command::Resume(one) => switch(one, meta::ANNOTATION_PAUSED, |_| None, "goes on").await,
        Command::Restart(one) => {
            // Times of creation are cut to whole seconds: what was made within this one is older than its end.
            let second = TimestampRound::new()
                .smallest(Unit::Second)
                .mode(RoundMode::Ceil);
            let now = |now: Timestamp| Some(now.round(second).unwrap_or(now).to_string());
            let says = "replaces all its machines";
            switch(one, meta::ANNOTATION_RESTARTED_AT, now, says).await
        }
    }
}

async fn switch(
    one: One,
    annotation: &str,
    value: impl Fn(Timestamp) -> Option<String>,
    says: &str,
) -> Result<(), Failure> {
    let client = one.object.client().await?;
    let value = value(SystemClock.now());
    let outcome = match one.object.object.kind {
        Kind::Pool => put::<MachineDeployment>(&client, &one, annotation, value).await?,
        Kind::Cluster => put::<Cluster>(&client, &one, annotation, value).await?,
        Kind::HealthCheck => {
            let what = format!("{} is not rolled out", one.object.object);
            return Err(Failure::usage(what).hint("name a pool (md/…) or a Cluster (cluster/…)"));
        }
        Kind::Set | Kind::Machine | Kind::Node => {
            let what = format!("{} is rolled out by its owner", one.object.object);
            return Err(
                Failure::usage(what).hint("name its pool (md/…) or its Cluster (cluster/…)")
            );
        }
    };
    let name = format!(
        "{} in namespace {}",
        one.object.object, one.object.namespace
    );
    one.output.print(&outcome, || {
        let already = if outcome["changed"] == json!(false) {
            " already"
        } else {
            ""
        };
        let paused = annotation != meta::ANNOTATION_PAUSED && outcome["paused"] == json!(true);
        let but = if paused {
            "; it is paused, so that begins when it is resumed"
        } else {
            ""
        };
        format!("{name} {says}{already}{but}\n")
    })
}

/// Puts an annotation on the object or takes it away, where it is not so already; gives what came of it.
async fn put<K>(
    client: &Client,
    one: &One,
    annotation: &str,
    value: Option<String>,
) -> Result<Value, Failure>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let restarts = annotation == meta::ANNOTATION_RESTARTED_AT;
    let mut tries = TRIES;
    let (object, same) = loop {
        let object: K = one.object.get(client).await?;
        let has = object.annotations().get(annotation);
        let same = if restarts {
            has == value.as_ref()
        } else {
            has.is_some() == value.is_some()
        };
        if same {
            break (object, same);
        }
        if value.is_none() && declared(&object, annotation) {
            let what = format!("Git declares {annotation} on {}", one.object.object);
            return Err(
                Failure::input(what).hint("remove it in the repository: here it would come back")
            );
        }
        let patch = json!({"metadata": {
            "annotations": {annotation: value}, "resourceVersion": object.resource_version(), "uid": object.uid(),
        }});
        let params = PatchParams {
            field_manager: Some(BY.to_owned()),
            ..PatchParams::default()
        };
        let api = Api::<K>::namespaced(client.clone(), &one.object.namespace);
        let written = api
            .patch(&object.name_any(), &params, &Patch::Merge(patch))
            .await;
        tries -= 1;
        match written {
            Ok(_) => break (object, same),
            // Somebody else wrote in between, as the controllers do all the time.
            Err(kube::Error::Api(status)) if status.code == 409 && tries > 0 => {}
            Err(error) => {
                let what = format!("cannot change {}", one.object.object);
                return Err(client::failure(&what, error));
            }
        }
    };
    let paused = match annotation {
        meta::ANNOTATION_PAUSED => value.is_some(),
        _ => object.annotations().contains_key(meta::ANNOTATION_PAUSED),
    };
    Ok(json!({
        "kind": K::kind(&()), "namespace": one.object.namespace, "name": object.name_any(),
        "changed": !same, "paused": paused,
        "restartedAt": restarts.then_some(value),
    }))
}

/// Whether a Fleet's manager holds an annotation of the object.
fn declared<K: ResourceExt>(object: &K, annotation: &str) -> bool {
    let field = format!("f:{annotation}");
    object.managed_fields().iter().any(|entry| {
        let manager = entry.manager.as_deref().unwrap_or_default();
        let fields = entry
            .fields_v1
            .as_ref()
            .map(|f| &f.0["f:metadata"]["f:annotations"]);
        manager.starts_with("fleetwright/") && fields.is_some_and(|f| f.get(&field).is_some())
    })
}
