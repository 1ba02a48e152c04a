//! A repository at a forge, as it is reached.

use fleetwright_api::{
    Fleet,
    fleet::{Forge, ForgeType},
    secret::SecretText,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use url::Url;

use super::{Credentials, PostError};

/// API of github.com; an Enterprise Server has `https://HOST/api/v3`.
pub const PUBLIC_GITHUB_API: &str = "https://api.github.com";

/// What is used for Fleets that say nothing of their own.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Token that may write statuses.
    pub token: Option<SecretText>,
    /// Base URL of the forge's API.
    pub api_url: Option<String>,
}

/// A repository at a forge, and what lets us in.
#[derive(Clone, Debug)]
pub struct Remote {
    pub(crate) kind: ForgeType,
    pub(crate) api: Url,
    repository: String,
    pub(crate) credentials: Credentials,
}

impl Remote {
    /// A repository whose API is at `api`; at the forge's public one when left out.
    ///
    /// # Errors
    /// The API's URL is none of such a forge or would send the token in plain text; or the repository's name is malformed.
    pub fn new(
        kind: ForgeType,
        api: Option<&str>,
        repository: &str,
        credentials: Credentials,
    ) -> Result<Self, PostError> {
        let api = base(kind, api).map_err(PostError::Configuration)?;
        if !is_repository(kind, repository) {
            let form = match kind {
                ForgeType::Gitlab => "group/name, group/subgroup/name or a project's number",
                ForgeType::Github | ForgeType::Gitea => "owner/name",
            };
            return Err(PostError::Configuration(format!(
                "the forge's repository {repository:?} is not of the form {form}"
            )));
        }
        Ok(Self {
            kind,
            api,
            repository: repository.to_owned(),
            credentials,
        })
    }

    /// The repository `repository` at the forge of a Fleet. `fleet` is `None` where the Fleet is gone: then the defaults hold.
    ///
    /// # Errors
    /// The API cannot be read (it may pass), the Fleet has another kind of forge by now, or there are no credentials.
    pub async fn of(
        client: &Client,
        fleet: Option<&Fleet>,
        (kind, repository): (ForgeType, &str),
        defaults: &Defaults,
    ) -> Result<Self, PostError> {
        let forge = fleet.and_then(|f| f.spec.forge.as_ref());
        if let Some(other) = forge.filter(|f| f.kind != kind) {
            return Err(PostError::Configuration(format!(
                "{repository} is at a forge of type {}, but the Fleet's is {} by now",
                kind.as_str(),
                other.kind.as_str()
            )));
        }
        let credentials = credentials(client, fleet, forge, defaults).await?;
        let api = forge.and_then(|f| f.api_url.as_deref());
        let api = api.or(defaults.api_url.as_deref());
        Self::new(kind, api, repository, credentials)
    }

    /// Kind of its forge.
    #[must_use]
    pub const fn kind(&self) -> ForgeType {
        self.kind
    }

    /// `owner/name`; at GitLab a path or a number.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// A URL below the API's base. A segment may hold a slash, which is escaped.
    pub(crate) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.api.clone();
        // Such a URL has been refused in `base`.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// A URL below the repository's.
    pub(crate) fn repository_url<'a>(&'a self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let (root, names): (&str, Vec<&str>) = match self.kind {
            ForgeType::Gitlab => ("projects", vec![&self.repository]),
            ForgeType::Github | ForgeType::Gitea => ("repos", self.repository.split('/').collect()),
        };
        self.url([root].into_iter().chain(names).chain(segments))
    }

    /// Who shares our rate: the same credentials at the same forge.
    pub(crate) fn lane(&self) -> String {
        lane(&self.api, &self.credentials.identity())
    }
}

/// Who shares a rate.
pub(super) fn lane(api: &Url, identity: &str) -> String {
    let port = api.port_or_known_default().unwrap_or_default();
    format!("{}:{port} {identity}", api.host_str().unwrap_or_default())
}

async fn credentials(
    client: &Client,
    fleet: Option<&Fleet>,
    forge: Option<&Forge>,
    defaults: &Defaults,
) -> Result<Credentials, PostError> {
    let name = fleet.map(ResourceExt::name_any).unwrap_or_default();
    let help = "set forge.secretRef to a Secret with key token, or start with --token-file";
    let Some(reference) = forge.and_then(|f| f.secret_ref.as_ref()) else {
        let token = defaults.token.clone().filter(|t| !t.is_empty());
        let missing = || PostError::Configuration(format!("no token for Fleet {name}: {help}"));
        return token.map(Credentials::Token).ok_or_else(missing);
    };
    let namespace = fleet.and_then(ResourceExt::namespace).unwrap_or_default();
    let secret = Api::<Secret>::namespaced(client.clone(), &namespace)
        .get_opt(&reference.name)
        .await
        .map_err(|e| PostError::Passing(format!("cannot read the forge's Secret: {e}")))?;
    let wrong = |why: String| {
        let secret = &reference.name;
        PostError::Configuration(format!("Secret {secret} of Fleet {name}: {why}"))
    };
    let secret = secret.ok_or_else(|| wrong("there is none".to_owned()))?;
    let kind = forge.map(|f| f.kind).unwrap_or_default();
    Credentials::of(&secret.data.unwrap_or_default(), kind).map_err(wrong)
}

/// The API's base, if a token may be sent there.
pub(super) fn base(kind: ForgeType, api: Option<&str>) -> Result<Url, String> {
    let (public, path) = match kind {
        ForgeType::Github => (Some(PUBLIC_GITHUB_API), ""),
        ForgeType::Gitlab => (Some("https://gitlab.com/api/v4"), "/api/v4"),
        ForgeType::Gitea => (None, "/api/v1"),
    };
    let Some(api) = api.or(public) else {
        return Err(format!(
            "{} has no public API: set forge.apiURL",
            kind.as_str()
        ));
    };
    let url =
        Url::parse(api).map_err(|e| format!("the forge's URL {api:?} cannot be read: {e}"))?;
    let loopback = url.host().is_some_and(|host| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    });
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "the forge's URL holds a user or password: put the token into its Secret".into(),
        );
    }
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        return Err(format!(
            "the token is sent over https only, but the forge's URL is {api}"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "the forge's URL {api} has a query or a fragment: leave it out"
        ));
    }
    if !url.path().trim_end_matches('/').ends_with(path) {
        return Err(format!(
            "the forge's URL {api} is not that of its API: it ends with {path}"
        ));
    }
    Ok(url)
}

fn is_repository(kind: ForgeType, repository: &str) -> bool {
    let part = |text: &str| {
        !text.is_empty()
            && text != "."
            && text != ".."
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let count = repository.split('/').filter(|text| part(text)).count();
    let whole = count == repository.split('/').count();
    match kind {
        ForgeType::Github | ForgeType::Gitea => whole && count == 2,
        ForgeType::Gitlab => {
            let number = count == 1 && repository.chars().all(|c| c.is_ascii_digit());
            whole && (count >= 2 || number)
        }
    }
}
