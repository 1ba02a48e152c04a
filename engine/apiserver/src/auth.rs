//! Who makes a request: bearer tokens and their users.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::Action;
use crate::error::ApiError;
use crate::{Error, Result, User};

/// Users by the digest of their token, so that looking one up tells nothing by its time.
type Tokens = std::collections::BTreeMap<Vec<u8>, User>;

/// The tokens that a server accepts. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    fixed: Tokens,
    file: Option<Arc<TokenFile>>,
}

/// A file of tokens, read again whenever it has changed.
#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    read: Mutex<(Option<Stamp>, Arc<Tokens>)>,
}

/// What changes when a file does: time, length, inode.
type Stamp = (std::time::SystemTime, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len(), about.ino()))
}

impl TokenFile {
    /// The tokens now. A file that cannot be read, or that is wrong, leaves those that were good before.
    fn tokens(&self) -> Arc<Tokens> {
        let now = stamp(&self.path);
        let mut read = self.read.lock();
        if now.is_some() && read.0 != now {
            match parse(&self.path) {
                Ok(tokens) => read.1 = Arc::new(tokens),
                Err(error) => {
                    tracing::warn!(%error, "the token file cannot be used; the tokens before it stay");
                }
            }
            read.0 = now;
        }
        Arc::clone(&read.1)
    }
}

impl Auth {
    /// Accepts `token` as `user`.
    #[must_use]
    pub fn with(mut self, token: &str, user: User) -> Self {
        self.fixed.insert(digest(token), user);
        self
    }

    /// Reads a token file in kube-apiserver's form: lines of `token,user,uid` and optionally `,"group1,group2"`.
    /// It is read again when it changes.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not of that form.
    pub fn from_file(path: &Path) -> Result<Self> {
        let stamp = stamp(path);
        let file = TokenFile {
            path: path.to_owned(),
            read: Mutex::new((stamp, Arc::new(parse(path)?))),
        };
        Ok(Self {
            file: Some(Arc::new(file)),
            ..Self::default()
        })
    }

    /// The user of a request; `Err` for a token that is not accepted.
    pub(crate) fn user(&self, headers: &http::HeaderMap) -> std::result::Result<User, ApiError> {
        let header = headers.get(http::header::AUTHORIZATION);
        let header = header.and_then(|h| h.to_str().ok()).unwrap_or_default();
        let (scheme, token) = header.trim().split_once(' ').unwrap_or_default();
        // Whoever shows no token, be it that they show something else, is not known.
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Ok(User {
                name: "system:anonymous".to_owned(),
                uid: String::new(),
                groups: vec!["system:unauthenticated".to_owned()],
            });
        }
        let digest = digest(token.trim());
        let from_file = || self.file.as_ref()?.tokens().get(&digest).cloned();
        self.fixed
            .get(&digest)
            .cloned()
            .or_else(from_file)
            .ok_or_else(|| ApiError::new(401, "Unauthorized", "Unauthorized"))
    }
}

/// Whom a request is made as: administrators may make one as somebody else.
pub(crate) fn impersonated(
    user: User,
    headers: &http::HeaderMap,
) -> std::result::Result<User, ApiError> {
    let texts = |name: &str| {
        let all = headers.get_all(name).iter();
        all.filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let Some(name) = texts("impersonate-user").into_iter().next() else {
        return Ok(user);
    };
    let action = Action::Resource {
        verb: "impersonate".to_owned(),
        group: String::new(),
        resource: "users".to_owned(),
        namespace: String::new(),
        name: name.clone(),
    };
    if !user.may(&action) {
        return Err(action.forbidden(&user));
    }
    let mut groups = texts("impersonate-group");
    let known = match name.as_str() {
        "system:anonymous" => "system:unauthenticated",
        _ => "system:authenticated",
    };
    if !groups.iter().any(|group| group == known) {
        groups.push(known.to_owned());
    }
    let uid = texts("impersonate-uid").into_iter().next();
    Ok(User {
        name,
        uid: uid.unwrap_or_default(),
        groups,
    })
}

fn parse(path: &Path) -> Result<Tokens> {
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::Io(format!("cannot read {shown}"), e))?;
    let mut tokens = Tokens::default();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || Error::Tokens {
            path: shown.clone(),
            line: n + 1,
        };
        let fields: Vec<&str> = line.splitn(4, ',').map(str::trim).collect();
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(wrong());
        };
        if token.is_empty() || name.is_empty() {
            return Err(wrong());
        }
        // An empty field names one empty group, as it does for kube-apiserver; nothing is allowed to it.
        let groups = rest
            .first()
            .map(|groups| groups.trim_matches('"').split(','));
        let mut groups: Vec<String> = groups
            .into_iter()
            .flatten()
            .map(|group| group.trim().to_owned())
            .collect();
        groups.push("system:authenticated".to_owned());
        let user = User {
            name: (*name).to_owned(),
            uid: (*uid).to_owned(),
            groups,
        };
        tokens.insert(digest(token), user);
    }
    Ok(tokens)
}

fn digest(token: &str) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(auth: &Auth, token: &str) -> Option<String> {
        let mut headers = http::HeaderMap::new();
        let value = format!("Bearer {token}").parse().unwrap();
        headers.insert(http::header::AUTHORIZATION, value);
        auth.user(&headers).ok().map(|user| user.name)
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "one,ann,1\n").unwrap();
        let auth = Auth::from_file(&path).unwrap();
        assert_eq!(named(&auth, "one").as_deref(), Some("ann"));
        std::fs::write(&path, "three,carol,3,\"a,b\"\n").unwrap();
        assert_eq!(named(&auth, "three").as_deref(), Some("carol"));
        assert_eq!(named(&auth, "one"), None);
        std::fs::write(&path, "broken").unwrap();
        assert_eq!(named(&auth, "three").as_deref(), Some("carol"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(named(&auth, "three").as_deref(), Some("carol"));
    }
}
