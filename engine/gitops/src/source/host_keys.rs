//! By which keys an ssh server is known: the text of an OpenSSH `known_hosts` file, held strictly.

use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use ssh_key::{
    HashAlg, PublicKey,
    known_hosts::{Entry, HostPatterns, Marker},
};

/// The lines of a `known_hosts` file. Lines of certificate authorities count for nothing: servers show libssh2 plain keys alone.
#[derive(Clone, Debug)]
pub struct KnownHosts(Vec<Entry>);

impl KnownHosts {
    /// Reads the file's text.
    ///
    /// # Errors
    /// The first line that cannot be read, since it might revoke a key; or that there is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.first().is_none_or(|first| first.starts_with('#')) {
                continue;
            }
            let entry = fields.join(" ").parse();
            entries.push(entry.map_err(|e| format!("known_hosts, line {}: {e}", n + 1))?);
        }
        if entries.is_empty() {
            return Err("known_hosts has no lines".into());
        }
        Ok(Self(entries))
    }

    /// Whether a server may show `key` (in the form of the wire) under `name`, which is `host` or `[host]:port`.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check(&self, name: &str, key: &[u8]) -> Result<(), String> {
        let shown = PublicKey::from_bytes(key)
            .map_err(|e| format!("{name} shows a key that cannot be read: {e}"))?;
        let print = shown.fingerprint(HashAlg::Sha256);
        let kind = shown.algorithm();
        let same = |entry: &&Entry| entry.public_key().key_data() == shown.key_data();
        let revoked = |entry: &&Entry| entry.marker() == Some(&Marker::Revoked);
        if self.0.iter().filter(same).any(|entry| revoked(&entry)) {
            return Err(format!(
                "{name} shows the {kind} key {print}, which known_hosts revokes: do not connect until its administrator has a new one"
            ));
        }
        let of_host: Vec<&Entry> = self
            .0
            .iter()
            .filter(|e| e.marker().is_none() && is_of(e.host_patterns(), name))
            .collect();
        if of_host.iter().any(same) {
            return Ok(());
        }
        Err(match of_host.is_empty() {
            true => format!(
                "known_hosts has no line for {name}, which shows the {kind} key {print}: compare it with what the administrator of the server publishes, and add its line"
            ),
            false => format!(
                "known_hosts has other keys for {name} than the {kind} key {print} that it shows: somebody may be in between; if the server has a new key, or one of this kind that is missing, add its line"
            ),
        })
    }
}

fn is_of(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mut mac| {
                mac.update(name.as_bytes());
                mac.verify_slice(hash).is_ok()
            })
        }
        HostPatterns::Patterns(all) => {
            let (not, is): (Vec<_>, Vec<_>) = all.iter().partition(|p| p.starts_with('!'));
            let fits = |p: &&String| {
                let pattern = p.trim_start_matches('!').to_lowercase();
                matches(pattern.as_bytes(), name.as_bytes())
            };
            is.iter().any(fits) && !not.iter().any(fits)
        }
    }
}

/// Whether `text` fits a pattern in which `*` stands for anything and `?` for one character.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    // What is left of both behind the last star.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (p, t) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => (star, p) = (Some((rest, t)), rest),
            ([a, behind @ ..], [b, left @ ..]) if a == b || *a == b'?' => (p, t) = (behind, left),
            _ => match star {
                Some((behind, [_, left @ ..])) => {
                    (star, p, t) = (Some((behind, left)), behind, left);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE/ZDj6GPX9AzKjqtCQn1Yf8BVQDUZFLf9o4FMnFYXjd";

    #[test]
    fn names_and_keys() {
        let bytes = |key: &str| PublicKey::from_openssh(key).unwrap().to_bytes().unwrap();
        // Of git.example.org, as `ssh-keygen -H` writes it.
        let mut mac = Hmac::<Sha1>::new_from_slice(b"saltsaltsaltsaltsalt").unwrap();
        mac.update(b"[git.example.org]:2222");
        let hash: [u8; 20] = mac.finalize().into_bytes().into();
        let salt = b"saltsaltsaltsaltsalt".to_vec();
        let hashed = HostPatterns::HashedName { salt, hash }.to_string();
        let plain = "git.example.org";
        let ok = None;
        let (unknown, other, revoked) = (Some("no line for"), Some("other keys"), Some("revokes"));
        let rows = [
            ("a plain name", format!("{plain} {ONE}"), plain, ok),
            (
                "a comment, a tab and several spaces",
                format!("# x\n\n{plain} \t {ONE}  me"),
                plain,
                ok,
            ),
            ("several names", format!("a,{plain} {ONE}"), plain, ok),
            (
                "several keys",
                format!("{plain} {TWO}\n{plain} {ONE}"),
                plain,
                ok,
            ),
            (
                "names are without case",
                format!("GIT.example.org {ONE}"),
                plain,
                ok,
            ),
            ("a pattern", format!("*.example.org {ONE}"), plain, ok),
            (
                "question marks",
                format!("git.example.??? {ONE}"),
                plain,
                ok,
            ),
            (
                "a pattern that leaves it out",
                format!("*.example.org,!git.* {ONE}"),
                plain,
                unknown,
            ),
            (
                "a longer name",
                format!("{plain} {ONE}"),
                "git.example.org.evil.net",
                unknown,
            ),
            (
                "a dot is a dot",
                format!("git.example.org {ONE}"),
                "gitxexample.org",
                unknown,
            ),
            (
                "another port",
                format!("{plain} {ONE}"),
                "[git.example.org]:2222",
                unknown,
            ),
            (
                "its port",
                format!("[{plain}]:2222 {ONE}"),
                "[git.example.org]:2222",
                ok,
            ),
            (
                "a hashed name",
                format!("{hashed} {ONE}"),
                "[git.example.org]:2222",
                ok,
            ),
            (
                "another hashed name",
                format!("{hashed} {ONE}"),
                plain,
                unknown,
            ),
            ("another key", format!("{plain} {TWO}"), plain, other),
            (
                "revoked",
                format!("{plain} {ONE}\n@revoked * {ONE}"),
                plain,
                revoked,
            ),
            (
                "revoked elsewhere",
                format!("{plain} {ONE}\n@revoked x {ONE}"),
                plain,
                revoked,
            ),
            (
                "another is revoked",
                format!("{plain} {ONE}\n@revoked * {TWO}"),
                plain,
                ok,
            ),
            (
                "an authority",
                format!("@cert-authority * {ONE}"),
                plain,
                unknown,
            ),
        ];
        for (what, text, name, wanted) in rows {
            let known = KnownHosts::parse(&text).unwrap();
            match (known.check(name, &bytes(ONE)), wanted) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) if why.contains(part) => {}
                (got, _) => panic!("{what}: {got:?}"),
            }
        }
        let known = KnownHosts::parse(&format!("* {ONE}")).unwrap();
        assert!(known.check(plain, b"no key").is_err());
        for bad in [
            "",
            "# nothing",
            "host",
            "host ssh-ed25519 AAAA",
            "@other * ssh-rsa A",
        ] {
            assert!(KnownHosts::parse(bad).is_err(), "{bad}");
        }
    }
}
