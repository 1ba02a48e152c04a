//! A provider's settings, inline and opaque: only the provider knows what is inside.

use std::{borrow::Cow, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// `apiVersion`, `kind`, `account`, then what that provider defines. Unknown fields are preserved and
/// no default of a provider is ever stored in it. Clones share the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct ProviderConfig(Arc<Map<String, Value>>);

impl ProviderConfig {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Group and version of the provider's kind, such as `sim.fleetwright.dev/v1alpha1`.
    pub fn api_version(&self) -> &str {
        self.text("apiVersion")
    }

    /// The provider's kind, such as `SimMachineConfig`.
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// Name of the ProviderAccount.
    pub fn account(&self) -> &str {
        self.text("account")
    }

    /// All settings, the three of ours among them.
    pub fn settings(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The whole of it as one value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.settings().clone())
    }
}

impl From<Map<String, Value>> for ProviderConfig {
    fn from(settings: Map<String, Value>) -> Self {
        Self(Arc::new(settings))
    }
}

impl Serialize for ProviderConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for ProviderConfig {
    fn schema_name() -> Cow<'static, str> {
        "ProviderConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Settings of the provider: apiVersion, kind, account, then what that provider defines.",
            "required": ["apiVersion", "kind", "account"],
            "properties": {
                "apiVersion": {"type": "string", "minLength": 1},
                "kind": {"type": "string", "minLength": 1},
                "account": {"type": "string", "minLength": 1, "description": "Name of the ProviderAccount."},
            },
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}
