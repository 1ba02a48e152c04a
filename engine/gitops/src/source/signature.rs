//! Who signed a commit or tag, and whether `spec.source.verify` trusts them.

mod openpgp;
mod ssh;

use std::collections::BTreeMap;

use fleetwright_api::fleet::VerifyMode;
use git2::{ErrorCode, Oid, Repository};
use jiff::Timestamp;
use k8s_openapi::ByteString;

use super::SourceError;

/// Most commits since the last applied one that are verified in one look.
const MAX_COMMITS: usize = 10_000;
/// Longest signature that is read, in bytes.
const MAX_SIGNATURE: usize = 64 << 10;
const SSH: &[u8] = b"-----BEGIN SSH SIGNATURE-----";
const PGP: &[u8] = b"-----BEGIN PGP SIGNATURE-----";

/// The keys that are trusted, from the Secret of `spec.source.verify`.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys {
    ssh: ssh::Keys,
    openpgp: openpgp::Keys,
}

/// What of a history must be signed, and by whom.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which commits.
    pub mode: VerifyMode,
    /// By whose keys.
    pub keys: TrustedKeys,
    /// The revision applied last, if there was one.
    pub applied: Option<String>,
}

/// An annotated tag, and the name under which it was found.
pub(super) struct NamedTag {
    pub(super) name: Vec<u8>,
    pub(super) object: Oid,
}

impl TrustedKeys {
    /// Of a Secret's data: `*.pub` holds lines of `authorized_keys`, `*.asc` OpenPGP public keys.
    ///
    /// # Errors
    /// The first key that cannot be read or is not to be trusted as it stands, or that there is none.
    pub fn of(secret: &BTreeMap<String, ByteString>) -> Result<Self, String> {
        let mut keys = Self::default();
        for (name, value) in secret {
            let text = std::str::from_utf8(&value.0);
            let added = match (name.ends_with(".pub"), name.ends_with(".asc")) {
                (true, _) => text
                    .map_err(|e| e.to_string())
                    .and_then(|t| keys.ssh.add(t)),
                (_, true) => text
                    .map_err(|e| e.to_string())
                    .and_then(|t| keys.openpgp.add(t)),
                _ => Ok(()),
            };
            added.map_err(|why| format!("key {name}: {why}"))?;
        }
        match keys.ssh.is_empty() && keys.openpgp.is_empty() {
            true => Err(
                "it has no keys: put SSH public keys into *.pub, OpenPGP public keys into *.asc"
                    .into(),
            ),
            false => Ok(keys),
        }
    }

    /// Whether one of the keys made `signature` of `content`, and is to be believed at `now`.
    ///
    /// # Errors
    /// Who did, as far as that can be told, and why that is not enough.
    pub fn check(&self, signature: &[u8], content: &[u8], now: Timestamp) -> Result<(), String> {
        if signature.len() > MAX_SIGNATURE {
            return Err("its signature is too long".into());
        }
        if signature.starts_with(SSH) {
            self.ssh.check(signature, content)
        } else if signature.starts_with(PGP) {
            self.openpgp.check(signature, content, now)
        } else {
            Err("its signature is neither an SSH nor an OpenPGP one".into())
        }
    }
}

impl Policy {
    /// Whether `head` may be applied: the signature of a tag that names it counts for it.
    pub(super) fn check(
        &self,
        repository: &Repository,
        head: Oid,
        tag: Option<&NamedTag>,
        now: Timestamp,
    ) -> Result<(), SourceError> {
        for commit in self.commits(repository, head)? {
            let Err(mut why) = self.commit(repository, commit, now)? else {
                continue;
            };
            if let Some(tag) = tag.filter(|_| commit == head) {
                let Err(also) = self.tag(repository, tag, now)? else {
                    continue;
                };
                why = format!("{why}; of its tag: {also}");
            }
            let what = match commit == head {
                true => format!("commit {commit}"),
                false => format!("commit {commit}, which commit {head} brings,"),
            };
            return Err(SourceError::Signature(format!(
                "{what} is not trusted: {why}"
            )));
        }
        Ok(())
    }

    /// The commits that must be signed, the head first.
    fn commits(&self, repository: &Repository, head: Oid) -> Result<Vec<Oid>, SourceError> {
        let applied = match (self.mode, &self.applied) {
            (VerifyMode::History, Some(applied)) => Oid::from_str(applied).ok(),
            _ => None,
        };
        let Some(applied) = applied.filter(|applied| *applied != head) else {
            return Ok(vec![head]);
        };
        if repository.find_commit(applied).is_err() {
            return Err(SourceError::Signature(format!(
                "commit {applied}, which was applied last, is no longer in the repository, so nobody can tell what came since: look what became of it, and set spec.source.verify.mode to head until {head} is applied"
            )));
        }
        let doing = super::git::cache("walking the history");
        let walk = || {
            let mut walk = repository.revwalk()?;
            walk.push(head)?;
            walk.hide(applied)?;
            let since = walk.filter(|found| !matches!(found, Ok(oid) if *oid == head));
            let since: Result<Vec<Oid>, git2::Error> = since.take(MAX_COMMITS + 1).collect();
            since
        };
        let since = walk().map_err(doing)?;
        if since.len() > MAX_COMMITS {
            return Err(SourceError::Signature(format!(
                "more than {MAX_COMMITS} commits came since {applied}, which was applied last: set spec.source.verify.mode to head until {head} is applied"
            )));
        }
        Ok([vec![head], since].concat())
    }

    fn commit(
        &self,
        repository: &Repository,
        commit: Oid,
        now: Timestamp,
    ) -> Result<Result<(), String>, SourceError> {
        match repository.extract_signature(&commit, None) {
            Ok((signature, content)) => Ok(self.keys.check(&signature, &content, now)),
            Err(e) if e.code() == ErrorCode::NotFound => Ok(Err("nobody signed it".into())),
            Err(e) => Err(super::git::cache("reading a commit")(e)),
        }
    }

    fn tag(
        &self,
        repository: &Repository,
        tag: &NamedTag,
        now: Timestamp,
    ) -> Result<Result<(), String>, SourceError> {
        let cache = || super::git::cache("reading a tag");
        let objects = repository.odb().map_err(cache())?;
        let object = objects.read(tag.object).map_err(cache())?;
        let signed = repository.find_tag(tag.object).map_err(cache())?;
        // An old release under a new name is another release.
        if signed.name_bytes() != tag.name {
            return Ok(Err("it was made under another name".into()));
        }
        // Git writes the signature of a tag behind its message.
        let data = object.data();
        let begins = |part: &[u8]| part == SSH || part == PGP;
        let Some(at) = data.windows(SSH.len()).rposition(begins) else {
            return Ok(Err("nobody signed it".into()));
        };
        let (content, signature) = data.split_at(at);
        Ok(self.keys.check(signature, content, now))
    }
}

#[cfg(test)]
mod tests;
