//! What the providers say of their own settings, as data.

use std::collections::BTreeMap;

use fleetwright_api::ProviderConfig;
use serde_json::{Map, Value};

/// Schema extension by which a provider says what a change of a field means: `replace`, `in-place` or `none`.
pub const CHANGE_EXTENSION: &str = "x-fleetwright-change";

/// Schema extension by which a provider says what a kind of `providerConfig` is for.
pub const FOR_EXTENSION: &str = "x-fleetwright-for";

/// What a kind of `providerConfig` is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Machines of ours, or a cluster as a whole.
    #[default]
    Own,
    /// A control plane that the provider runs.
    ControlPlane,
    /// A group of nodes that the provider runs.
    Pool,
}

impl Purpose {
    /// What a schema says of itself.
    pub fn of(schema: &Value) -> Self {
        match schema.get(FOR_EXTENSION).and_then(Value::as_str) {
            Some("ControlPlane") => Self::ControlPlane,
            Some("Pool") => Self::Pool,
            _ => Self::Own,
        }
    }
}

/// Schema extension by which a provider says of machines what a Cluster has to say where they are its control plane.
pub const CLUSTER_EXTENSION: &str = "x-fleetwright-cluster";

/// What the `providerConfig` of a Cluster is where machines of a kind are its control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNeeds<'s> {
    /// Its kind, of the same `apiVersion`.
    pub kind: &'s str,
    /// Fields of which one is set; none where its own schema says all.
    pub one_of: Vec<&'s str>,
}

impl<'s> ClusterNeeds<'s> {
    /// What the schema of a kind of machines says; `None` where they need nothing of a Cluster.
    pub fn of(schema: &'s Value) -> Option<Self> {
        let said = schema.get(CLUSTER_EXTENSION)?;
        let one_of = said.get("oneOf").and_then(Value::as_array);
        Some(Self {
            kind: said.get("kind")?.as_str()?,
            one_of: one_of
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
        })
    }
}

/// What a change of a field does to running machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing.
    None,
    /// The machine is changed while it runs.
    InPlace,
    /// The machine is replaced.
    Replace,
}

/// The JSON Schemas of all `providerConfig` kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    schemas: BTreeMap<(String, String), Value>,
}

impl Catalogue {
    /// Adds the schema of a `providerConfig` kind; a schema of the same kind is replaced.
    pub fn insert(&mut self, api_version: &str, kind: &str, schema: Value) {
        self.schemas
            .insert((api_version.to_owned(), kind.to_owned()), schema);
    }

    /// The schema of a kind.
    pub fn schema(&self, api_version: &str, kind: &str) -> Option<&Value> {
        // A lookup by borrowed parts of a tuple key needs owned strings; configs are few.
        self.schemas.get(&(api_version.to_owned(), kind.to_owned()))
    }

    /// Whether a pool with these settings is a group of nodes that its provider runs.
    pub fn is_group(&self, config: &ProviderConfig) -> bool {
        self.schema(config.api_version(), config.kind())
            .is_some_and(|schema| Purpose::of(schema) == Purpose::Pool)
    }

    /// All kinds: `apiVersion`, `kind` and schema.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.schemas
            .iter()
            .map(|((version, kind), schema)| (version.as_str(), kind.as_str(), schema))
    }

    /// What a change at `path` inside a config of this kind does. The extension of the deepest schema node
    /// on the way that has one holds; without any, and for unknown kinds and fields, machines are replaced.
    pub fn change_of(&self, api_version: &str, kind: &str, path: &[&str]) -> Effect {
        let mut node = self.schema(api_version, kind);
        let mut effect = node.and_then(own_effect).unwrap_or(Effect::Replace);
        for part in path {
            node = node.and_then(|n| child(n, part));
            match node {
                Some(n) => effect = own_effect(n).unwrap_or(effect),
                None => break,
            }
        }
        effect
    }

    /// The config with the provider's defaults filled in; of an unknown kind, as it is.
    pub fn effective(&self, written: &ProviderConfig) -> ProviderConfig {
        let mut map = written.settings().clone();
        if let Some(schema) = self.schema(written.api_version(), written.kind()) {
            fill_defaults(&mut map, schema);
        }
        map.into()
    }
}

fn own_effect(node: &Value) -> Option<Effect> {
    match node.get(CHANGE_EXTENSION)?.as_str()? {
        "none" => Some(Effect::None),
        "in-place" => Some(Effect::InPlace),
        "replace" => Some(Effect::Replace),
        _ => None,
    }
}

fn child<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    node.get("properties")
        .and_then(|p| p.get(name))
        .or_else(|| node.get("additionalProperties").filter(|v| v.is_object()))
}

fn fill_defaults(map: &mut Map<String, Value>, schema: &Value) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (name, property) in properties {
        if !map.contains_key(name)
            && let Some(default) = property.get("default")
        {
            map.insert(name.clone(), default.clone());
        }
        if let Some(Value::Object(inner)) = map.get_mut(name) {
            fill_defaults(inner, property);
        }
    }
}
