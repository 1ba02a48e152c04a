//! What of a kubeconfig is believed: an address, authorities and credentials, all of them in the kubeconfig itself.

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{
    Config,
    config::{AuthInfo, Cluster, Context, Kubeconfig},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

#[cfg(test)]
mod tests;

/// Largest kubeconfig in bytes: those with several certificates have less than 20,000.
pub const MOST_BYTES: usize = 100 << 10;

/// Why a kubeconfig is refused: nothing of what it holds is repeated, since it holds secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is too large.
    #[error(
        "it has {0} bytes, and at most {MOST_BYTES} are read: leave out the contexts that are not used"
    )]
    Size(usize),
    /// It is no UTF-8.
    #[error("it is no text")]
    Text,
    /// It is no YAML, or a field has a value of another type than kubeconfigs have there.
    #[error("line {line}, column {column}: this is no YAML of a kubeconfig")]
    Yaml {
        /// Line.
        line: u64,
        /// Column.
        column: u64,
    },
    /// A field cannot be used.
    #[error("{field}: {why}")]
    Field {
        /// Its path.
        field: String,
        /// What is wrong and what to do instead.
        why: &'static str,
    },
}

fn refuse<T>(field: impl Into<String>, why: &'static str) -> Result<T, Refused> {
    let field = field.into();
    Err(Refused::Field { field, why })
}

/// What the current context of a kubeconfig says. No file is read, no program is run and no variable of the environment counts.
///
/// # Errors
/// See [`Refused`].
pub fn read(bytes: &[u8]) -> Result<Config, Refused> {
    if bytes.len() > MOST_BYTES {
        return Err(Refused::Size(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::Text)?;
    let whole: Kubeconfig = serde_saphyr::from_str(text).map_err(|error| {
        let at = error.location();
        Refused::Yaml {
            line: at.map_or(1, |at| at.line()),
            column: at.map_or(1, |at| at.column()),
        }
    })?;
    let context = context(&whole)?;
    let (at, cluster) = cluster(&whole, context)?;
    let mut config = of_cluster(&at, cluster)?;
    let (at, user) = user(&whole, context)?;
    if let Some((field, why)) = untrusted(user) {
        return refuse(format!("{at}.{field}"), why);
    }
    config.auth_info = user.clone();
    if let Some(namespace) = &context.namespace {
        config.default_namespace.clone_from(namespace);
    }
    crate::client::check(&config).map_err(|why| Refused::Field { field: at, why })?;
    Ok(config)
}

fn context(whole: &Kubeconfig) -> Result<&Context, Refused> {
    let field = "current-context";
    let Some(current) = &whole.current_context else {
        return refuse(
            field,
            "it is missing: name the entry of contexts that counts",
        );
    };
    let named = whole.contexts.iter().find(|c| c.name == *current);
    match named.and_then(|c| c.context.as_ref()) {
        Some(context) => Ok(context),
        None => refuse(field, "contexts has no entry of this name"),
    }
}

fn cluster<'a>(whole: &'a Kubeconfig, context: &Context) -> Result<(String, &'a Cluster), Refused> {
    let mut all = whole.clusters.iter().enumerate();
    let named = all.find(|(_, c)| c.name == context.cluster);
    match named.and_then(|(n, c)| Some((n, c.cluster.as_ref()?))) {
        Some((n, cluster)) => Ok((format!("clusters[{n}].cluster"), cluster)),
        None => refuse(
            "clusters",
            "it has no entry of the name that the current context gives as cluster",
        ),
    }
}

fn user<'a>(whole: &'a Kubeconfig, context: &Context) -> Result<(String, &'a AuthInfo), Refused> {
    let mut all = whole.auth_infos.iter().enumerate();
    let named = all.find(|(_, u)| Some(&u.name) == context.user.as_ref());
    match named.and_then(|(n, u)| Some((n, u.auth_info.as_ref()?))) {
        Some((n, user)) => Ok((format!("users[{n}].user"), user)),
        None => refuse(
            "users",
            "it has no entry of the name that the current context gives as user",
        ),
    }
}

/// The address, and who answers there.
fn of_cluster(at: &str, cluster: &Cluster) -> Result<Config, Refused> {
    let field = |name: &str| format!("{at}.{name}");
    let server = cluster.server.as_deref().unwrap_or_default();
    let Ok(url) = server.parse::<http::Uri>() else {
        return refuse(
            field("server"),
            "it is no URL: it is of the form https://HOST:PORT",
        );
    };
    if url.scheme_str() != Some("https") {
        return refuse(
            field("server"),
            "it is not https: clusters are reached over TLS alone, so give an https:// address",
        );
    }
    let authority = url.authority().map_or("", |a| a.as_str());
    if authority.is_empty() || authority.contains('@') || url.query().is_some() {
        return refuse(
            field("server"),
            "it has a user or a query: it is of the form https://HOST:PORT, and who asks is said in users",
        );
    }
    if cluster.insecure_skip_tls_verify == Some(true) {
        return refuse(
            field("insecure-skip-tls-verify"),
            "who answers is always verified: leave it out, and give the authority's certificates in certificate-authority-data",
        );
    }
    if cluster.proxy_url.is_some() {
        return refuse(
            field("proxy-url"),
            "no proxy is used: leave it out, and give an address in server that the engine itself reaches",
        );
    }
    if cluster.certificate_authority.is_some() {
        return refuse(
            field("certificate-authority"),
            "no file is read: give its content as base64 in certificate-authority-data",
        );
    }
    let data = cluster.certificate_authority_data.as_deref();
    let Some(data) = data.filter(|data| !data.is_empty()) else {
        return refuse(
            field("certificate-authority-data"),
            "it is missing: give the certificates of the server's authority, as base64 of PEM",
        );
    };
    let Some(authorities) = certificates(data) else {
        return refuse(
            field("certificate-authority-data"),
            "it is no base64 of certificates in PEM",
        );
    };
    let mut config = Config::new(url);
    config.root_cert = Some(authorities);
    config.tls_server_name.clone_from(&cluster.tls_server_name);
    // Whether a call may be repeated is for the caller to say.
    config.default_retry = false;
    Ok(config)
}

/// The certificates in base64 of PEM; `None` where there are none, or something else.
fn certificates(data: &str) -> Option<Vec<Vec<u8>>> {
    let data: String = data.split_whitespace().collect();
    let pem = STANDARD.decode(data).ok()?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.ok().filter(|all| !all.is_empty())?;
    Some(all.into_iter().map(|der| der.to_vec()).collect())
}

/// The first field of a user that needs a program or a file of this machine, and what to use instead.
fn untrusted(user: &AuthInfo) -> Option<(&'static str, &'static str)> {
    [
        (
            user.exec.is_some(),
            "exec",
            "no program is run: use a client certificate or a token of a service account",
        ),
        (
            user.auth_provider.is_some(),
            "auth-provider",
            "no program is run: use a client certificate or a token of a service account",
        ),
        (
            user.token_file.is_some(),
            "tokenFile",
            "no file is read: give the token itself in token",
        ),
        (
            user.client_certificate.is_some(),
            "client-certificate",
            "no file is read: give its content as base64 in client-certificate-data",
        ),
        (
            user.client_key.is_some(),
            "client-key",
            "no file is read: give its content as base64 in client-key-data",
        ),
    ]
    .into_iter()
    .find_map(|(is, field, why)| is.then_some((field, why)))
}
