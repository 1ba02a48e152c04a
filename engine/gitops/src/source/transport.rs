//! How a repository is reached: the forms of its URL, who we are there, and whom we believe.

use std::cell::{Cell, RefCell};

use git2::{
    CertificateCheckStatus, Cred, CredentialType, ErrorClass, ErrorCode, RemoteCallbacks,
    cert::Cert,
};
use jiff::Timestamp;

use super::{SourceError, credentials::Credentials};

/// The URL of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As it is written.
    pub url: String,
    /// How it is reached.
    pub form: Form,
}

/// How a repository is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `https://host/path`
    Https,
    /// `ssh://user@host:port/path` or `user@host:path`
    Ssh {
        /// The server as `known_hosts` names it: `host`, or `[host]:port` where the port is not 22.
        name: String,
    },
    /// `file:///path`
    File,
}

impl Address {
    /// Of `spec.source.url`.
    ///
    /// # Errors
    /// It is of no form that is fetched, holds a password, or could be read in two ways.
    pub fn parse(url: &str) -> Result<Self, SourceError> {
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
        if url.contains(odd) {
            return Err(SourceError::BadUrl);
        }
        let form = if url.starts_with("file://") {
            Form::File
        } else {
            let (is_ssh, user, host, port) = parts(url).ok_or(SourceError::Scheme)?;
            if user.contains(':') {
                return Err(SourceError::Password);
            }
            // A program would take it for an option.
            if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
                return Err(SourceError::BadUrl);
            }
            let host = host.to_lowercase();
            match (is_ssh, port) {
                (false, _) => Form::Https,
                (true, 22) => Form::Ssh { name: host },
                (true, port) => Form::Ssh {
                    name: format!("[{host}]:{port}"),
                },
            }
        };
        let url = url.to_owned();
        Ok(Self { url, form })
    }
}

/// Whether it is ssh, user (with a password, if there is one), host and port of a URL that is no file's.
fn parts(url: &str) -> Option<(bool, &str, &str, u16)> {
    if url.starts_with("https://") {
        let (user, host) = authority(url);
        return Some((false, user, host, 443));
    }
    if url.starts_with("ssh://") {
        let (user, host) = authority(url);
        let (host, port) = match (host.strip_prefix('['), host.rsplit_once(':')) {
            (Some(v6), _) => {
                let (host, port) = v6.split_once(']')?;
                (host, port.strip_prefix(':').unwrap_or("22"))
            }
            (None, Some((host, port))) => (host, port),
            (None, None) => (host, "22"),
        };
        return Some((true, user, host, port.parse().ok()?));
    }
    let (left, path) = url.split_once(':')?;
    let (user, host) = left.split_once('@')?;
    let fits = !left.contains(['/', '[', ']']) && !path.is_empty() && !path.starts_with("//");
    fits.then_some((true, user, host, 22))
}

/// User (with a password, if there is one) and host (with its port, if it is another than https') of a URL.
fn authority(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    (user, host.strip_suffix(":443").unwrap_or(host))
}

/// Whether what is meant for `ours` may go to `other` too.
fn is_same_server(other: &str, ours: &str) -> bool {
    other.starts_with("https://") && authority(other).1.eq_ignore_ascii_case(authority(ours).1)
}

/// One connection's answers to what libgit2 asks, and what was refused in them: libgit2 keeps its own words alone.
pub(super) struct Session<'a> {
    address: &'a Address,
    credentials: &'a Credentials,
    now: Timestamp,
    tried: Cell<bool>,
    refused: RefCell<Option<SourceError>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(address: &'a Address, credentials: &'a Credentials, now: Timestamp) -> Self {
        Self {
            address,
            credentials,
            now,
            tried: Cell::new(false),
            refused: RefCell::new(None),
        }
    }

    pub(super) fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(|url, user, kinds| {
            let offered = match &self.address.form {
                Form::Ssh { .. } => self.key(user, kinds),
                Form::Https | Form::File => self.token(url, user),
            };
            offered.unwrap_or_else(|why| Err(self.refuse(SourceError::Login(why.into()))))
        });
        // Else OpenSSL judges, and libgit2 tells its judgement better where nobody asks for the certificate.
        if self.address.form != Form::Https || self.credentials.authority.is_some() {
            callbacks.certificate_check(|certificate, host| {
                let believed = self.believe(certificate, host);
                believed.map_err(|why| self.refuse(why))
            });
        }
        callbacks
    }

    fn refuse(&self, why: SourceError) -> git2::Error {
        let error = git2::Error::new(ErrorCode::User, ErrorClass::Callback, why.to_string());
        self.refused.replace(Some(why));
        error
    }

    fn token(
        &self,
        url: &str,
        user: Option<&str>,
    ) -> Result<Result<Cred, git2::Error>, &'static str> {
        let Some(token) = &self.credentials.token else {
            return Err(
                "it asks for credentials: name a Secret with a token in spec.source.secretRef",
            );
        };
        if !is_same_server(url, &self.address.url) {
            return Err(
                "it redirects to another host, which gets no credentials: correct spec.source.url",
            );
        }
        if self.tried.replace(true) {
            return Err("it refuses the credentials: check the Secret of spec.source.secretRef");
        }
        let name = self.credentials.username.as_deref().or(user);
        let name = name.unwrap_or("x-access-token");
        Ok(Cred::userpass_plaintext(name, token.expose()))
    }

    fn key(
        &self,
        user: Option<&str>,
        kinds: CredentialType,
    ) -> Result<Result<Cred, git2::Error>, &'static str> {
        let name = user
            .or(self.credentials.username.as_deref())
            .unwrap_or("git");
        if kinds.contains(CredentialType::USERNAME) {
            return Ok(Cred::username(name));
        }
        if !kinds.contains(CredentialType::SSH_MEMORY) {
            return Err("it takes no keys: follow it by https");
        }
        let Some(identity) = &self.credentials.identity else {
            return Err(
                "it asks for a key: name a Secret with key identity in spec.source.secretRef",
            );
        };
        if self.tried.replace(true) {
            return Err(
                "it refuses the private key: check key identity of the Secret of spec.source.secretRef, and that the server knows its public key",
            );
        }
        let password = self.credentials.identity_password.as_ref();
        // Keys in memory must end as keys in files do.
        let identity = format!("{}\n", identity.expose());
        Ok(Cred::ssh_key_from_memory(
            name,
            None,
            &identity,
            password.map(|p| p.expose()),
        ))
    }

    fn believe(
        &self,
        certificate: &Cert<'_>,
        host: &str,
    ) -> Result<CertificateCheckStatus, SourceError> {
        let ours = self.credentials;
        if let Form::Ssh { name } = &self.address.form {
            let shown = certificate.as_hostkey().and_then(|key| key.hostkey());
            let (Some(known), Some(key)) = (&ours.known_hosts, shown) else {
                let why = format!("there is nothing to know {name} by");
                return Err(SourceError::HostKey(why));
            };
            known.check(name, key).map_err(SourceError::HostKey)?;
            return Ok(CertificateCheckStatus::CertificateOk);
        }
        let (Some(x509), Some(authority)) = (certificate.as_x509(), &ours.authority) else {
            return Ok(CertificateCheckStatus::CertificatePassthrough);
        };
        let verified = authority.verify(x509.data(), host, self.now);
        verified.map_err(SourceError::Authority)?;
        Ok(CertificateCheckStatus::CertificateOk)
    }

    /// What an error of libgit2 comes from.
    pub(super) fn explain(&self, error: git2::Error, doing: &'static str) -> SourceError {
        if let Some(why) = self.refused.take() {
            return why;
        }
        match (error.code(), error.class()) {
            (ErrorCode::Certificate, _) => SourceError::Untrusted(error),
            (_, ErrorClass::Ssh) if self.tried.get() => SourceError::Login(format!(
                "the private key could not be used: check keys identity and identityPassword of the Secret of spec.source.secretRef ({})",
                error.message()
            )),
            _ => SourceError::Git {
                doing,
                source: error,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_urls() {
        let ssh = |name: &str| Form::Ssh { name: name.into() };
        let rows = [
            ("https://example.org/acme/fleet.git", Form::Https),
            ("https://me@example.org:8443/acme/fleet", Form::Https),
            ("file:///srv/fleet.git", Form::File),
            ("ssh://git@example.org/acme/fleet", ssh("example.org")),
            ("ssh://example.org:22/acme/fleet", ssh("example.org")),
            ("ssh://git@Example.org:2222/acme", ssh("[example.org]:2222")),
            ("ssh://git@[::1]:2222/acme", ssh("[::1]:2222")),
            ("ssh://git@[::1]/acme", ssh("::1")),
            ("git@example.org:acme/fleet.git", ssh("example.org")),
            ("git@example.org:/srv/fleet.git", ssh("example.org")),
        ];
        for (url, form) in rows {
            assert_eq!(Address::parse(url).unwrap().form, form, "{url}");
        }
        for bad in [
            "",
            "http://example.org/acme",
            "git://example.org/acme",
            "ext::sh -c id",
            "example.org:acme/fleet",
            "/srv/fleet.git",
            "javascript://example.org/%0aalert(1)",
            "git@example.org:",
            "git@example.org://x",
            "ssh://git@example.org:x/acme",
            "ssh://git@-oProxyCommand=id/acme",
            "ssh://-user@example.org/acme",
            "-user@example.org:acme",
            "https:///acme",
            "https://example.org\\@evil.net/acme",
            "https://example.org/a b",
            "https://example.org/a\nb",
        ] {
            let refused = Address::parse(bad).unwrap_err();
            assert!(
                matches!(refused, SourceError::Scheme | SourceError::BadUrl),
                "{bad}"
            );
        }
        for open in [
            "https://a:s3cret@example.org/x",
            "ssh://a:s3cret@example.org/x",
        ] {
            let refused = Address::parse(open).unwrap_err();
            assert!(matches!(refused, SourceError::Password), "{open}");
            assert!(!refused.to_string().contains("s3cret"));
        }
    }

    #[test]
    fn the_token_goes_to_the_same_host_alone() {
        let ours = "https://Example.org/acme/fleet.git";
        for same in [
            "https://example.org/other",
            "https://example.org:443/acme/fleet",
            "https://user@example.org",
        ] {
            assert!(is_same_server(same, ours), "{same}");
        }
        for other in [
            "http://example.org/acme/fleet.git",
            "https://example.org:8443/acme/fleet.git",
            "https://example.org.evil.net/acme/fleet.git",
            "https://evil.net/@example.org",
            "https://evil.net?@example.org",
            "https://example.org@evil.net/",
        ] {
            assert!(!is_same_server(other, ours), "{other}");
        }
    }
}
