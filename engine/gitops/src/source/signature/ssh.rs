//! Signatures by SSH keys, as `git commit -S` makes them with `gpg.format=ssh`.

use ssh_key::{HashAlg, PublicKey, SshSig, authorized_keys::ConfigOpts};

/// What a signature must have been made for.
const NAMESPACE: &str = "git";

#[derive(Clone, Debug, Default)]
pub(super) struct Keys(Vec<PublicKey>);

impl Keys {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds lines of an `authorized_keys` file.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = read(line).map_err(|why| format!("line {}: {why}", n + 1))?;
            self.0.push(key);
        }
        Ok(())
    }

    pub(super) fn check(&self, signature: &[u8], content: &[u8]) -> Result<(), String> {
        let signature = SshSig::from_pem(signature)
            .map_err(|e| format!("its SSH signature cannot be read: {e}"))?;
        let signer = signature.public_key();
        let print = signer.fingerprint(HashAlg::Sha256);
        if signature.version() != SshSig::VERSION {
            return Err(format!(
                "the SSH signature of {print} is of an unknown version"
            ));
        }
        let Some(key) = self.0.iter().find(|key| key.key_data() == signer) else {
            return Err(format!(
                "the SSH key {print} signed it, which is none of those that are trusted"
            ));
        };
        key.verify(NAMESPACE, content, &signature).map_err(|_| {
            format!("it carries a signature of the SSH key {print} that is not of this content")
        })
    }
}

fn read(line: &str) -> Result<PublicKey, String> {
    let first = match PublicKey::from_openssh(line) {
        Ok(key) => return Ok(key),
        Err(error) => error,
    };
    let Some((options, key)) = line.split_once(' ') else {
        return Err(first.to_string());
    };
    let key = PublicKey::from_openssh(key.trim_start()).map_err(|_| first.to_string())?;
    let options = ConfigOpts::new(options).map_err(|e| e.to_string())?;
    for option in options.iter() {
        let namespaces = option
            .strip_prefix("namespaces=")
            .map(|n| n.trim_matches('"'));
        match namespaces {
            Some(names) if names.split(',').any(|name| name == NAMESPACE) => {}
            Some(names) => return Err(format!("the key is for {names:?}, not for {NAMESPACE}")),
            // It may be meant to narrow what the key is trusted with.
            None => {
                return Err(format!(
                    "option {option:?} is not understood: only namespaces is"
                ));
            }
        }
    }
    Ok(key)
}
