//! What the commands that look at a repository share: its files, read and checked, and the plan for a Fleet.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fleetwright_api::Fleet;
use fleetwright_core::{
    catalogue::Catalogue,
    plan::{Desired, Live, Plan, Policy, forecast, plan},
};
use fleetwright_gitops::{
    gather::{desired_of, gather, gather_machines, live_clusters, load_files, policy_of},
    load::LoadError,
    source::{Snapshot, read_directory},
};
use fleetwright_providers::ConfigSchema;
use jiff::Timestamp;
use kube::{Api, Client};

use crate::{
    client,
    error::{Failure, step},
};

/// The providers' schemas as core wants them.
pub(crate) fn catalogue(schemas: Vec<ConfigSchema>) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for schema in schemas {
        catalogue.insert(&schema.api_version, &schema.kind, schema.schema);
    }
    catalogue
}

/// The files below `directory`.
///
/// # Errors
/// It is no directory, or cannot be read.
pub(crate) fn read(directory: &Path) -> Result<Snapshot, Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read {}: {why}", directory.display()))
            .hint("give the directory with the Clusters and MachineDeployments")
    };
    if !directory.is_dir() {
        return Err(cannot(&"there is no such directory"));
    }
    read_directory(directory, "").map_err(|e| cannot(&crate::error::chain(&e)))
}

/// A mistake with its path as the caller can open it.
pub(crate) fn placed(directory: &Path, mistake: &LoadError) -> LoadError {
    LoadError {
        file: directory.join(&mistake.file).display().to_string(),
        ..mistake.clone()
    }
}

/// Everything that a plan for a Fleet is made of.
pub(crate) struct Planned {
    pub(crate) fleet: Fleet,
    pub(crate) snapshot: Snapshot,
    pub(crate) desired: Vec<Desired>,
    pub(crate) live: Live,
    pub(crate) policy: Policy,
    pub(crate) plan: Plan,
}

/// Which Fleet is planned for, and from what.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Directory with the files; what the Fleet follows when left out.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The Fleet, as NAMESPACE/NAME.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "default/default")]
    fleet: String,
    /// Kubeconfig of the engine; its data folder's when left out.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Data folder of the engine.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Target {
    /// A client of the engine.
    ///
    /// # Errors
    /// No kubeconfig that can be used.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        client::connect(self.kubeconfig.as_deref(), self.data.as_deref()).await
    }

    /// What applying the files would do now.
    ///
    /// # Errors
    /// The files have mistakes, or the engine cannot be asked.
    pub(crate) async fn plan(&self, client: &Client, now: Timestamp) -> Result<Planned, Failure> {
        let fleet = self.fleet(client).await?;
        let directory = self.directory(&fleet)?;
        let snapshot = read(&directory)?;
        let catalogue = catalogue(fleetwright_provider_sim::config::schemas());
        let allow = fleet.spec.allow.clone().unwrap_or_default();
        let clusters = step(live_clusters(client).await, "cannot plan")?;
        let loaded = load_files(&snapshot.files, &catalogue, &allow, &clusters);
        if !loaded.errors.is_empty() {
            return Err(mistakes(&directory, &loaded.errors));
        }
        let desired = desired_of(&loaded);
        let policy = policy_of(&fleet);
        let mut live = step(gather(client, &desired, &policy).await, "cannot plan")?;
        let mut plan = plan(&desired, &live, &policy, &catalogue);
        let machines = gather_machines(client, &plan, &mut live).await;
        step(machines, "cannot foretell the steps")?;
        forecast(&mut plan, &live, &catalogue, now);
        Ok(Planned {
            fleet,
            snapshot,
            desired,
            live,
            policy,
            plan,
        })
    }

    /// Whether the files are those that the Fleet follows itself.
    pub(crate) fn is_followed(&self, fleet: &Fleet) -> bool {
        let given = self.directory.as_ref().map(std::fs::canonicalize);
        let followed = fleet.spec.source.directory.as_ref().map(PathBuf::from);
        match given {
            None => true,
            Some(given) => given.is_ok_and(|given| Some(given) == followed),
        }
    }

    async fn fleet(&self, client: &Client) -> Result<Fleet, Failure> {
        let Some((namespace, name)) = self.fleet.split_once('/') else {
            return Err(Failure::usage(format!("{:?} names no Fleet", self.fleet))
                .hint("write it as NAMESPACE/NAME, such as default/default"));
        };
        let found = Api::<Fleet>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await;
        found
            .map_err(|e| client::failure("cannot read the Fleet", e))?
            .ok_or_else(|| {
                Failure::usage(format!("there is no Fleet {}", self.fleet))
                    .hint("name one with --fleet; `fleetwright status` lists them")
            })
    }

    fn directory(&self, fleet: &Fleet) -> Result<PathBuf, Failure> {
        let followed = || fleet.spec.source.directory.as_ref().map(PathBuf::from);
        self.directory.clone().or_else(followed).ok_or_else(|| {
            Failure::usage("the Fleet follows a repository").hint(
                "give the directory of a checkout: what is there is planned as if it were merged",
            )
        })
    }
}

/// Mistakes as a failure, a line each.
pub(crate) fn mistakes(directory: &Path, errors: &[LoadError]) -> Failure {
    let lines: Vec<String> = errors
        .iter()
        .map(|e| placed(directory, e).to_string())
        .collect();
    let count = match lines.len() {
        1 => "1 mistake".to_owned(),
        n => format!("{n} mistakes"),
    };
    Failure::input(format!(
        "{count} in {}\n{}",
        directory.display(),
        lines.join("\n")
    ))
}

/// What the files say, with no live state at hand.
pub(crate) fn offline(snapshot: &Snapshot, catalogue: &Catalogue) -> (usize, Vec<LoadError>) {
    let allow = fleetwright_api::fleet::Allow::default();
    let loaded = load_files(&snapshot.files, catalogue, &allow, &BTreeSet::new());
    if !loaded.errors.is_empty() {
        return (loaded.objects.len(), loaded.errors);
    }
    let policy = Policy {
        namespace: "default".into(),
        fleet: "default".into(),
        max_machines: 0,
    };
    let plan = plan(&desired_of(&loaded), &Live::default(), &policy, catalogue);
    // What the schemas' rules refuse has the place of its document.
    let refused = plan.refused.iter().filter_map(|refusal| {
        let object = loaded
            .objects
            .iter()
            .find(|o| o.key.to_string() == refusal.key.to_string())?;
        let place = format!("{}:{}: ", object.file, object.line);
        Some(LoadError {
            file: object.file.clone(),
            line: object.line,
            column: 1,
            message: refusal
                .reason
                .strip_prefix(&place)
                .unwrap_or(&refusal.reason)
                .to_owned(),
        })
    });
    (loaded.objects.len(), refused.collect())
}
