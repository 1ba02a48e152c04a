//! The kubeconfig of a cluster's administrator.

use base64::{Engine, prelude::BASE64_STANDARD};
use fleetwright_api::secret::SecretText;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    pki::{Authority, PkiError, Renewal, keys::validity, leaf::ADMIN, renewal},
    yaml,
};

/// Makes a kubeconfig for `server` (such as `https://10.0.0.1:6443`) whose new client certificate is valid for `lasts` from `now`.
///
/// # Errors
/// As [`Authority::client`].
pub fn admin(
    cluster: &str,
    server: &str,
    authority: &Authority,
    lasts: SignedDuration,
    now: Timestamp,
) -> Result<SecretText, PkiError> {
    let leaf = authority.client(ADMIN, lasts, now)?;
    let user = format!("{cluster}-admin");
    let context = format!("{user}@{cluster}");
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {
            "certificate-authority-data": BASE64_STANDARD.encode(&authority.certificate),
            "server": server,
        }}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "users": [{"name": user, "user": {
            "client-certificate-data": BASE64_STANDARD.encode(&leaf.certificate),
            "client-key-data": BASE64_STANDARD.encode(leaf.key.expose()),
        }}],
    });
    yaml::documents(&[document])
        .map(SecretText::new)
        .map_err(|e| crate::pki::cannot_make("the kubeconfig", e))
}

/// Whether a kubeconfig that [`admin`] made is to be made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Not before this time.
    At(Timestamp),
    /// Now, for this reason.
    Now(&'static str),
}

/// Judges `kubeconfig`: it is made anew at its certificate's half-life, and when authority or server are no longer what it says.
pub fn due(kubeconfig: &SecretText, authority: &Authority, server: &str, now: Timestamp) -> Due {
    let Ok(document) = serde_saphyr::from_str::<Value>(kubeconfig.expose()) else {
        return Due::Now("it cannot be read");
    };
    let cluster = &document["clusters"][0]["cluster"];
    if cluster["server"].as_str() != Some(server) {
        return Due::Now("the API server is reached elsewhere");
    }
    if decoded(&cluster["certificate-authority-data"]).as_ref() != Some(&authority.certificate) {
        return Due::Now("the cluster's authority is another one");
    }
    let certificate = decoded(&document["users"][0]["user"]["client-certificate-data"]);
    match certificate.and_then(|pem| validity(&pem).ok()) {
        None => Due::Now("it has no client certificate"),
        Some((from, to)) => match renewal(from, to, now) {
            Renewal::At(at) => Due::At(at),
            Renewal::Due => Due::Now("half of its certificate's life has passed"),
        },
    }
}

fn decoded(value: &Value) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(value.as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}
