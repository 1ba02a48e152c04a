//! What a cluster that kubeadm made tells those who join it: ConfigMap `cluster-info` in `kube-public`.

use base64::{Engine, prelude::BASE64_STANDARD};
use fleetwright_api::cluster::Endpoint;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::pki;

/// Namespace and name of the ConfigMap.
pub const PLACE: (&str, &str) = ("kube-public", "cluster-info");
const KEY: &str = "kubeconfig";
const HTTPS: i32 = 443;

/// What a node needs to know of a cluster that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Where its API is reached.
    pub endpoint: Endpoint,
    /// Hash of its authority ([`pki::hash`]).
    pub authority: String,
}

/// Reads the ConfigMap.
///
/// # Errors
/// What of it cannot be used.
pub fn read(info: &ConfigMap) -> Result<Discovered, &'static str> {
    let text = info.data.as_ref().and_then(|data| data.get(KEY));
    let text = text.ok_or("it has no key kubeconfig")?;
    let document: Value =
        serde_saphyr::from_str(text).map_err(|_| "its kubeconfig cannot be read")?;
    let cluster = &document["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().and_then(endpoint);
    let certificate = cluster["certificate-authority-data"].as_str();
    let certificate = certificate.and_then(|text| BASE64_STANDARD.decode(text).ok());
    let certificate = certificate.and_then(|bytes| String::from_utf8(bytes).ok());
    let hash = certificate.and_then(|pem| pki::hash(&pem).ok());
    Ok(Discovered {
        endpoint: server.ok_or("its server is no https://HOST:PORT")?,
        authority: hash.ok_or("its certificate-authority-data is no certificate")?,
    })
}

/// The endpoint of a URL such as `https://[fd00::5]:6443`.
fn endpoint(url: &str) -> Option<Endpoint> {
    let rest = url.strip_prefix("https://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let port: u16 = match port {
        "" => return of(host, HTTPS),
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    of(host, i32::from(port))
}

fn of(host: &str, port: i32) -> Option<Endpoint> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    let host = (!host.is_empty() && host.chars().all(good)).then(|| host.to_owned())?;
    Some(Endpoint { host, port })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::pki::ClusterPki;

    #[test]
    fn server_and_authority_are_read() {
        let pki = ClusterPki::generate(Timestamp::UNIX_EPOCH).unwrap();
        let data = BASE64_STANDARD.encode(&pki.cluster.certificate);
        let info = |server: &str, data: &str| {
            let text = format!(
                "apiVersion: v1\nclusters:\n- name: \"\"\n  cluster:\n    certificate-authority-data: {data}\n    server: {server}\n"
            );
            ConfigMap {
                data: Some([(KEY.to_owned(), text)].into()),
                ..ConfigMap::default()
            }
        };
        for (server, want) in [
            ("https://10.0.0.1:6443", Some(("10.0.0.1", 6443))),
            ("https://api.theirs.test", Some(("api.theirs.test", 443))),
            ("https://[fd00::5]:6443/", Some(("fd00::5", 6443))),
            ("https://[fd00::5]", Some(("fd00::5", 443))),
            ("http://10.0.0.1:6443", None),
            ("https://", None),
            ("https://a:b", None),
            ("https://a/b:1", None),
            ("https://a$(id):1", None),
            ("https://[a]:1", None),
        ] {
            let found = read(&info(server, &data));
            let Some((host, port)) = want else {
                let why = found.unwrap_err();
                assert_eq!(why, "its server is no https://HOST:PORT", "{server}");
                continue;
            };
            let found = found.unwrap();
            assert_eq!(
                (found.endpoint.host.as_str(), found.endpoint.port),
                (host, port)
            );
            assert_eq!(found.authority, pki.cluster.hash().unwrap());
        }
        for (info, want) in [
            (ConfigMap::default(), "it has no key kubeconfig"),
            (
                info("https://a:1", "aHVzaA=="),
                "its certificate-authority-data is no certificate",
            ),
        ] {
            assert_eq!(read(&info).unwrap_err(), want);
        }
    }
}
