//! What `up` puts into the API before anything runs: the Fleet, and accounts of the simulated cloud when there are none.

use std::path::PathBuf;

use fleetwright_api::{
    Fleet, ProviderAccount,
    cluster::LocalSecretRef,
    fleet::{FleetSource, FleetSpec, Forge, ForgeType, GitRef, PullRequests},
    provider_account::ProviderAccountSpec,
    secret::SecretText,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{client, error::Failure};

const FIELD_MANAGER: &str = "fleetwright-up";
/// Name and namespace of the Fleet that `up` makes.
pub(crate) const FLEET: &str = "default";
/// Secret with the token for the repository.
const SOURCE_SECRET: &str = "fleetwright-source";
/// Accounts of the simulated cloud, with their regions.
const ACCOUNTS: [(&str, &str); 4] = [
    ("sim-eu", "eu"),
    ("sim-us", "us"),
    ("sim-ap", "ap"),
    ("sim-metal", "metal"),
];

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An absolute directory of this machine.
    Directory(PathBuf),
    /// A Git URL.
    Url(String),
}

impl Source {
    /// Reads the argument of `up`.
    ///
    /// # Errors
    /// It is neither a URL that is fetched nor a directory.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if let Some((scheme, _)) = text.split_once("://") {
            return match scheme {
                "https" | "file" => Ok(Self::Url(text.to_owned())),
                _ => Err(Failure::usage(format!("cannot follow {scheme}:// URLs"))
                    .hint("use https://, file://, or the path of a directory; a repository behind ssh needs a Fleet with its keys (docs/sources.md)")),
            };
        }
        let directory = std::fs::canonicalize(text).map_err(|e| {
            Failure::usage(format!("cannot follow {text}: {e}"))
                .hint("give a directory, or a URL with https:// or file://; a repository behind ssh needs a Fleet with its keys (docs/sources.md)")
        })?;
        if !directory.is_dir() {
            return Err(Failure::usage(format!(
                "cannot follow {text}: it is no directory"
            )));
        }
        Ok(Self::Directory(directory))
    }
}

/// The Fleet that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) source: Source,
    pub(crate) branch: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) interval: Option<i32>,
    pub(crate) forge: ForgeType,
    pub(crate) forge_url: Option<String>,
    pub(crate) repository: Option<String>,
    pub(crate) pull_requests: bool,
    pub(crate) notes: bool,
    pub(crate) token: Option<SecretText>,
    pub(crate) replace_source: bool,
}

impl Wish {
    fn spec(&self) -> FleetSpec {
        let (url, directory) = match &self.source {
            Source::Url(url) => (Some(url.clone()), None),
            Source::Directory(path) => (None, Some(path.display().to_string())),
        };
        let secret = self
            .token
            .as_ref()
            .filter(|_| url.as_ref().is_some_and(|u| u.starts_with("https://")));
        FleetSpec {
            source: FleetSource {
                url,
                directory,
                reference: self.branch.clone().map(|branch| GitRef {
                    branch: Some(branch),
                    ..GitRef::default()
                }),
                path: self.path.clone(),
                interval_seconds: self.interval,
                secret_ref: secret.map(|_| LocalSecretRef {
                    name: SOURCE_SECRET.into(),
                }),
                notes: self.notes,
                ..FleetSource::default()
            },
            forge: self.repository.clone().map(|repository| Forge {
                kind: self.forge,
                api_url: self.forge_url.clone(),
                repository,
                ..Forge::default()
            }),
            pull_requests: self.pull_requests.then(|| PullRequests {
                plan: true,
                ..PullRequests::default()
            }),
            ..FleetSpec::default()
        }
    }
}

/// Makes the Fleet, or leaves it as it is.
///
/// # Errors
/// The state belongs to another source, or the API refuses.
pub(crate) async fn fleet(client: &Client, wish: &Wish) -> Result<(), Failure> {
    let spec = wish.spec();
    let fleets = Api::<Fleet>::namespaced(client.clone(), "default");
    let there = fleets
        .get_opt(FLEET)
        .await
        .map_err(|e| client::failure("cannot read the Fleet", e))?;
    if let Some(there) = &there {
        let same = |f: &FleetSource| (f.url.clone(), f.directory.clone(), f.path.clone());
        if same(&there.spec.source) != same(&spec.source) && !wish.replace_source {
            let old = there
                .spec
                .source
                .url
                .clone()
                .or_else(|| there.spec.source.directory.clone())
                .unwrap_or_default();
            return Err(Failure::usage(format!("the state here belongs to {old}, another source"))
                .hint("choose another folder with --data, or say --replace-source to follow the new source with this state"));
        }
    }
    if let (Some(token), Some(reference)) = (&wish.token, &spec.source.secret_ref) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": reference.name},
            "stringData": {"token": token.expose()}});
        Api::<k8s_openapi::api::core::v1::Secret>::namespaced(client.clone(), "default")
            .patch(
                &reference.name,
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(&secret),
            )
            .await
            .map_err(|e| client::failure("cannot store the token", e))?;
    }
    let fleet = Fleet::new(FLEET, spec);
    fleets
        .patch(
            FLEET,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(&fleet),
        )
        .await
        .map_err(|e| client::failure("cannot make the Fleet", e))?;
    Ok(())
}

/// Makes accounts of the simulated cloud where there are none at all.
///
/// # Errors
/// The API refuses.
pub(crate) async fn accounts(client: &Client) -> Result<(), Failure> {
    let api = Api::<ProviderAccount>::all(client.clone());
    let cannot = |e| client::failure("cannot make the simulated cloud's accounts", e);
    if !api
        .list(&ListParams::default().limit(1))
        .await
        .map_err(cannot)?
        .items
        .is_empty()
    {
        return Ok(());
    }
    for (name, region) in ACCOUNTS {
        let spec = ProviderAccountSpec {
            provider: "sim".into(),
            region: Some(region.into()),
            ..ProviderAccountSpec::default()
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let made = api.create(&params, &ProviderAccount::new(name, spec)).await;
        match made {
            Ok(_) => {}
            // Another engine that starts at the same time.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(cannot(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert_eq!(
            Source::parse(dir.path().to_str().unwrap()).unwrap(),
            Source::Directory(path)
        );
        assert_eq!(
            Source::parse("file:///srv/a.git").unwrap(),
            Source::Url("file:///srv/a.git".into())
        );
        for bad in ["ssh://git@example.org/a", "/no/such/directory", "/dev/null"] {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }
}
