//! Credentials of an account, as a type that does not print.

use std::collections::BTreeMap;

use fleetwright_api::secret::SecretText;
use serde::{Serialize, Serializer};

/// The entries of the Secret that a ProviderAccount names. Serialised, they are the Secret's version alone: a call that was refused
/// is worth another try once it has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    version: String,
    entries: BTreeMap<String, SecretText>,
}

impl Credentials {
    /// The entries of a Secret with this resource version.
    pub fn new(
        version: impl Into<String>,
        entries: impl IntoIterator<Item = (String, SecretText)>,
    ) -> Self {
        Self {
            version: version.into(),
            entries: entries.into_iter().collect(),
        }
    }

    /// The entry of this name, if it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&SecretText> {
        self.entries.get(name).filter(|text| !text.is_empty())
    }

    /// What tells one state of the Secret from another.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl Serialize for Credentials {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.version.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_them_is_printed_or_serialised() {
        let entries = [("key".to_owned(), SecretText::new("hush"))];
        let credentials = Credentials::new("7", entries);
        assert!(!format!("{credentials:?}").contains("hush"));
        assert_eq!(serde_json::to_string(&credentials).unwrap(), "\"7\"");
        assert_eq!(credentials.get("key").unwrap().expose(), "hush");
        assert_eq!(credentials.get("other"), None);
    }
}
