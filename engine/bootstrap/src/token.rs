//! Bootstrap tokens: what a node shows to a cluster that it joins, and the Secret by which the cluster knows it.

use std::collections::BTreeMap;

use fleetwright_api::{random::Random, secret::SecretText, time::rfc3339_seconds};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// How long a token is good for, from its making or its last extension.
pub const LIFE: SignedDuration = SignedDuration::from_mins(15);
/// Type of a token's Secret.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Namespace of a token's Secret, in the workload cluster.
pub const NAMESPACE: &str = "kube-system";
/// Group that kubeadm lets join as nodes.
pub const NODE_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// When a token is to end instead, while the machine that it was made for has not joined: extended once half of its life is left, so that
/// neither a slow boot nor a late look leaves the machine outside. Nothing is due otherwise.
pub fn extended(expires: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (expires.duration_since(now) < LIFE / 2)
        .then(|| now.saturating_add(LIFE).unwrap_or(Timestamp::MAX))
}

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A bootstrap token: `[a-z0-9]{6}.[a-z0-9]{16}`, whose first half is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: SecretText,
}

/// A text that is no bootstrap token. It is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a bootstrap token: it is six and sixteen characters a-z and 0-9 with a dot between them"
)]
pub struct NoToken;

impl BootstrapToken {
    /// Makes a token of `random`'s bytes.
    pub fn generate(random: &dyn Random) -> Self {
        Self {
            id: characters(random, 6),
            secret: SecretText::new(characters(random, 16)),
        }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`NoToken`].
    pub fn parse(text: &SecretText) -> Result<Self, NoToken> {
        let (id, secret) = text.expose().split_once('.').ok_or(NoToken)?;
        let good = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| ALPHABET.contains(&byte))
        };
        if !good(id, 6) || !good(secret, 16) {
            return Err(NoToken);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: SecretText::new(secret),
        })
    }

    /// The half that may be shown.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole token.
    pub fn token(&self) -> SecretText {
        SecretText::new(format!("{}.{}", self.id, self.secret.expose()))
    }

    /// Name of the token's Secret.
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }

    /// The Secret by which the workload cluster knows the token until `expires`, when its token cleaner removes it.
    pub fn secret(&self, description: &str, expires: Timestamp) -> Secret {
        let data = [
            ("auth-extra-groups", NODE_GROUP),
            ("description", description),
            ("expiration", &rfc3339_seconds(expires)),
            ("token-id", &self.id),
            ("token-secret", self.secret.expose()),
            ("usage-bootstrap-authentication", "true"),
            ("usage-bootstrap-signing", "true"),
        ];
        Secret {
            metadata: ObjectMeta {
                namespace: Some(NAMESPACE.to_owned()),
                name: Some(self.secret_name()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(BTreeMap::from(data.map(|(key, value)| {
                (key.to_owned(), ByteString(value.as_bytes().to_vec()))
            }))),
            ..Secret::default()
        }
    }
}

/// `length` characters, each as likely as any other.
fn characters(random: &dyn Random, length: usize) -> String {
    let mut text = String::with_capacity(length);
    // The largest multiple of 36 that fits a byte: what lies above would favour some characters.
    let fair = 252;
    while text.len() < length {
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        let good = bytes.iter().filter(|byte| **byte < fair);
        let drawn = good.filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
        text.extend(
            drawn
                .take(length - text.len())
                .map(|byte| char::from(*byte)),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use fleetwright_api::random::SeededRandom;

    use super::*;

    #[test]
    fn tokens_have_kubeadms_form_and_do_not_print() {
        let random = SeededRandom::new(7);
        let mut seen = std::collections::BTreeSet::new();
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let token = BootstrapToken::generate(&random);
            let text = token.token();
            assert_eq!(BootstrapToken::parse(&text).as_ref(), Ok(&token));
            assert!(!format!("{token:?}").contains(token.secret.expose()));
            used.extend(text.expose().bytes());
            assert!(seen.insert(text.expose().to_owned()));
        }
        assert_eq!(used.len(), 37, "every character comes up, and the dot");
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in [
            "",
            ".",
            "abcdef",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdefg",
            "Abcdef.0123456789abcdef",
            "abcde.0123456789abcdef0",
            "abcdef.0123456789abcde\u{e9}",
            "abcdef.01234567.9abcdef",
        ] {
            assert_eq!(
                BootstrapToken::parse(&SecretText::new(text)),
                Err(NoToken),
                "{text}"
            );
        }
    }

    #[test]
    fn a_token_is_extended_while_it_is_needed() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let expires = at("2026-01-01T00:15:00Z");
        for (now, want) in [
            ("2026-01-01T00:00:00Z", None),
            ("2026-01-01T00:07:30Z", None),
            ("2026-01-01T00:07:31Z", Some("2026-01-01T00:22:31Z")),
            ("2026-01-01T01:00:00Z", Some("2026-01-01T01:15:00Z")),
        ] {
            assert_eq!(extended(expires, at(now)), want.map(at), "{now}");
        }
    }

    #[test]
    fn the_secret_is_what_kubernetes_reads() {
        let token = BootstrapToken::parse(&SecretText::new("abcdef.0123456789abcdef")).unwrap();
        let expires: Timestamp = "2026-03-04T05:06:07.89Z".parse().unwrap();
        let secret = token.secret("joins web-1", expires);
        assert_eq!(
            secret.metadata.name.as_deref(),
            Some("bootstrap-token-abcdef")
        );
        assert_eq!(secret.metadata.namespace.as_deref(), Some("kube-system"));
        assert_eq!(
            secret.type_.as_deref(),
            Some("bootstrap.kubernetes.io/token")
        );
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        assert_eq!(text("token-id"), "abcdef");
        assert_eq!(text("token-secret"), "0123456789abcdef");
        assert_eq!(text("expiration"), "2026-03-04T05:06:07Z");
        assert_eq!(text("usage-bootstrap-authentication"), "true");
        assert_eq!(text("usage-bootstrap-signing"), "true");
        assert_eq!(text("auth-extra-groups"), NODE_GROUP);
        assert_eq!(text("description"), "joins web-1");
    }
}
