//! What the commands that look at a repository share: its files, read and checked, and the plan for a Fleet.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use fleetwright_api::{
    Fleet, ProviderAccount,
    fleet::{Allow, FleetSource},
};
use fleetwright_controllers::with_credentials;
use fleetwright_core::{
    catalogue::Catalogue,
    images::{Image, Missing},
    plan::{Images, Live, Plan, Policy, faults},
};
use fleetwright_gitops::{
    foretell::Foretold,
    gather::{live_clusters, load_files},
    load::{LoadError, Loaded, dangling, refused},
    read::{Declared, ReadError, Reader, Tree},
    source::{Filter, Snapshot, read_directory},
};
use fleetwright_providers::{ConfigError, ConfigSchema, Registry, lacks_image};
use fleetwright_webhook::forge::Forges;
use jiff::Timestamp;
use kube::{Api, Client};

use crate::{
    client::{self, Connection},
    cloud,
    error::{Failure, step},
    images::boot_images,
    tokens::Tokens,
};

/// The schemas of all providers of this program, as core wants them.
pub(crate) fn catalogue() -> Catalogue {
    catalogue_of(crate::providers::schemas())
}

/// These schemas as core wants them.
pub(crate) fn catalogue_of(schemas: Vec<ConfigSchema>) -> Catalogue {
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
    read_directory(directory, "", &Filter::default()).map_err(|e| cannot(&crate::error::chain(&e)))
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
    pub(crate) revision: String,
    /// Git tree id of the files.
    pub(crate) tree: String,
    pub(crate) declared: Arc<Declared>,
    /// What the Fleet declared before, where that is known.
    pub(crate) previous: Option<Arc<Declared>>,
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
    #[command(flatten)]
    connection: Connection,
}

impl Target {
    /// What the Fleet follows itself.
    pub(crate) fn followed(fleet: String, connection: Connection) -> Self {
        Self {
            directory: None,
            fleet,
            connection,
        }
    }

    /// A client of the engine.
    ///
    /// # Errors
    /// No kubeconfig that can be used.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.connection.client().await
    }

    /// What applying the files would do now.
    ///
    /// # Errors
    /// The files have mistakes, or the engine cannot be asked.
    pub(crate) async fn plan(&self, client: &Client, now: Timestamp) -> Result<Planned, Failure> {
        let fleet = self.fleet(client).await?;
        let catalogue = Arc::new(catalogue());
        let allow = fleet.spec.allow.clone().unwrap_or_default();
        let cache = tempfile::tempdir().context("cannot make a folder for what is read")?;
        let forges = step(Forges::new(), "cannot reach forges")?;
        let mut reader = Reader::new(client.clone(), Arc::clone(&catalogue), cache.path().into())
            .with_tokens(Some(Arc::new(Tokens(forges.apps()))));
        let followed = look(&mut reader, &fleet, &allow, now).await;
        let source = self.source(&fleet);
        let mut here = fleet.clone();
        here.spec.source = source.clone();
        let Looked {
            revision,
            tree,
            declared,
        } = match &self.directory {
            Some(_) => look(&mut reader, &here, &allow, now).await?,
            None => followed.clone()?,
        };
        let mut errors = declared.errors.clone();
        let clusters = step(live_clusters(client).await, "cannot plan")?;
        errors.extend(dangling(&declared.outside, &clusters));
        if !errors.is_empty() {
            let place = source.directory.unwrap_or_default();
            return Err(mistakes(Path::new(&place), &errors));
        }
        if let Err(failure) = &followed {
            tracing::warn!(%failure, "what this commit changes is not known: fields that others hold are shown as left to them");
        }
        let previous = followed.ok().map(|looked| looked.declared);
        let previous = previous.filter(|declared| declared.errors.is_empty());
        let foretold = Foretold::of(
            client,
            &fleet,
            &declared,
            previous.as_deref(),
            &catalogue,
            now,
        );
        let mut foretold = step(foretold.await, "cannot plan")?;
        if let Some(providers) = self.providers(client, &foretold.images).await? {
            let images = all(&foretold.images);
            let missing = missing_images(client, &providers, &images).await;
            let missing =
                missing.map_err(|e| client::failure("cannot read the ProviderAccount", e))?;
            let from = (&mut reader, tree.clone(), &*declared);
            let lacks = foretold.lacks(missing, from, &catalogue, now).await;
            step(lacks, "cannot read the files again")?;
            let told = boot_images(client, &providers, &all(&foretold.images)).await;
            foretold.boots_from(&told);
        }
        let Foretold {
            live, policy, plan, ..
        } = foretold;
        Ok(Planned {
            fleet,
            revision,
            tree: tree.id(),
            declared,
            previous,
            live,
            policy,
            plan,
        })
    }

    /// The providers, where something is to be asked of them and they can be.
    async fn providers(
        &self,
        client: &Client,
        images: &Images,
    ) -> Result<Option<Registry>, Failure> {
        if images.is_empty() {
            return Ok(None);
        }
        let Some(provider) = cloud::of_engine(&self.connection).await? else {
            tracing::warn!(
                "the providers cannot be asked from here: missing images are not in this plan"
            );
            return Ok(None);
        };
        Ok(Some(crate::providers::registry(provider, client, "")))
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

    /// What is read: the directory given, else what the Fleet follows.
    fn source(&self, fleet: &Fleet) -> FleetSource {
        match &self.directory {
            None => fleet.spec.source.clone(),
            Some(directory) => FleetSource {
                directory: Some(directory.display().to_string()),
                include: fleet.spec.source.include.clone(),
                exclude: fleet.spec.source.exclude.clone(),
                ..FleetSource::default()
            },
        }
    }
}

/// The revision of a Fleet's source, its files and what they declare.
#[derive(Clone)]
struct Looked {
    revision: String,
    tree: Tree,
    declared: Arc<Declared>,
}

async fn look(
    reader: &mut Reader,
    fleet: &Fleet,
    allow: &Allow,
    now: Timestamp,
) -> Result<Looked, Failure> {
    let source = &fleet.spec.source;
    let place = source.url.as_ref().or(source.directory.as_ref());
    let cannot = |error: ReadError| {
        let place = place.map_or("the source", String::as_str);
        Failure::usage(format!(
            "cannot read {place}: {}",
            crate::error::chain(&error)
        ))
        .hint("give the directory with the Clusters and MachineDeployments")
    };
    let found = reader.find(fleet, now).await.map_err(cannot)?;
    let tree = found.tree.map_err(|error| cannot(error.into()))?;
    let declared = reader.declared(tree.clone(), allow).await;
    Ok(Looked {
        revision: found.revision,
        tree,
        declared: declared.map_err(cannot)?,
    })
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

/// All images of a forecast, each once.
pub(crate) fn all(images: &Images) -> BTreeSet<Image> {
    images.values().flatten().cloned().collect()
}

/// Those of these images that a provider has none of, or cannot tell of, with what it says to that.
///
/// # Errors
/// The API cannot be read.
pub(crate) async fn missing_images(
    client: &Client,
    providers: &Registry,
    images: &BTreeSet<Image>,
) -> Result<BTreeMap<Image, Missing>, kube::Error> {
    let mut missing = BTreeMap::new();
    // Many images, few accounts: each is read once, with its credentials.
    let mut accounts = BTreeMap::new();
    for image in images {
        if !accounts.contains_key(&image.account) {
            let api = Api::<ProviderAccount>::all(client.clone());
            let usable = match api.get_opt(&image.account).await? {
                Some(account) => Some(with_credentials(client, &account).await),
                None => None,
            };
            accounts.insert(&image.account, usable);
        }
        // That there is no such account, or no such provider, is said where machines are made.
        let asked = match accounts.get(&image.account) {
            Some(Some(Ok(account))) => {
                let Some(provider) = providers.get(&account.provider) else {
                    continue;
                };
                let (provider, config) = (provider.as_ref(), image.config());
                lacks_image(provider, account, &image.version, &config).await
            }
            Some(Some(Err(error))) => Err(error.to_string()),
            Some(None) | None => continue,
        };
        let (field, why) = match asked {
            Ok(None) => continue,
            Ok(Some(ConfigError { field, message })) => (Some(field), message),
            Err(why) => (None, why),
        };
        missing.insert(image.clone(), Missing { field, why });
    }
    Ok(missing)
}

/// What the files say, with no live state at hand.
pub(crate) fn loaded(snapshot: &Snapshot, catalogue: &Catalogue) -> Loaded {
    let none = BTreeSet::new();
    load_files(&snapshot.files, catalogue, &Allow::default(), &none)
}

/// How many objects the files declare, and all mistakes that can be told with no live state at hand.
pub(crate) fn offline(snapshot: &Snapshot, catalogue: &Catalogue) -> (usize, Vec<LoadError>) {
    let loaded = loaded(snapshot, catalogue);
    if !loaded.errors.is_empty() {
        return (loaded.objects.len(), loaded.errors);
    }
    let found = loaded.objects.iter().flat_map(|object| {
        let faults = faults(&object.document).into_iter();
        faults.map(move |fault| (object, fault))
    });
    let mistakes = refused(found.collect(), &snapshot.files);
    (loaded.objects.len(), mistakes)
}
