//! The kinds that are served.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use fleetwright_schema::Schema;
use serde_json::Value;

/// One version of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    /// The version in which objects are kept, where it is another.
    pub(crate) storage: Option<String>,
    /// The schema of that version.
    pub(crate) kept: Option<Schema>,
    /// Whether its definition is being deleted, so that no object is made any more.
    pub(crate) terminating: bool,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) scale: Option<Value>,
    /// Whether `metadata.generation` is kept.
    pub(crate) generation: bool,
    /// Whether its objects are answered and never kept.
    pub(crate) review: bool,
    /// Whether it comes from a CustomResourceDefinition.
    pub(crate) custom: bool,
    /// What every answer warns of, when the version is deprecated.
    pub(crate) deprecated: Option<String>,
    pub(crate) selectable: Vec<String>,
    pub(crate) columns: Vec<Value>,
    /// The OpenAPI schema of a custom kind, as it is published.
    pub(crate) schema: Option<Value>,
    /// See [`Kind::compiled`].
    pub(crate) compiled: OnceLock<Schema>,
}

impl Kind {
    /// The schema compiled; one that keeps everything when there is none. Those of core kinds are large, and most servers see objects
    /// of few of them: each is compiled when it is needed first.
    pub(crate) fn compiled(&self) -> &Schema {
        self.compiled
            .get_or_init(|| crate::core_kinds::compile(self).unwrap_or_default())
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource as messages name it: `plural.group`.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Whether an update must say which version it replaces.
    pub(crate) fn conditional(&self) -> bool {
        self.custom
            || matches!(
                self.plural.as_str(),
                "customresourcedefinitions" | "leases" | "poddisruptionbudgets"
            )
    }

    /// Whether an update makes an object that is not there.
    pub(crate) fn made_by_update(&self) -> bool {
        !self.custom && matches!(self.plural.as_str(), "leases" | "events")
    }

    /// Whether the answer to a deletion is what was deleted.
    pub(crate) fn shows_deleted(&self) -> bool {
        !self.custom
            && matches!(
                self.plural.as_str(),
                "customresourcedefinitions"
                    | "pods"
                    | "serviceaccounts"
                    | "services"
                    | "persistentvolumes"
                    | "persistentvolumeclaims"
                    | "volumeattachments"
            )
    }

    pub(crate) fn prefix(&self) -> String {
        let group = match &self.storage {
            Some(kept) if !kept.contains('/') => "",
            _ => &self.group,
        };
        crate::object::prefix(group, &self.plural)
    }
}

type Kinds = BTreeMap<(String, String, String), Arc<Kind>>;

/// All kinds: the core ones, shared by every server of the process, and those of the server's own CRDs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub(crate) custom: Kinds,
    /// The OpenAPI documents of the custom kinds, once somebody has asked.
    pub(crate) documents: Arc<OnceLock<crate::openapi::Documents>>,
}

pub(crate) fn core() -> &'static Kinds {
    static CORE: OnceLock<Kinds> = OnceLock::new();
    CORE.get_or_init(|| {
        crate::core_kinds::all()
            .into_iter()
            .map(|kind| (slot(&kind), Arc::new(kind)))
            .collect()
    })
}

/// Where a kind is in the map: group, plural, version.
pub(crate) fn slot(kind: &Kind) -> (String, String, String) {
    (
        kind.group.clone(),
        kind.plural.clone(),
        kind.version.clone(),
    )
}

impl Registry {
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let slot = (group.to_owned(), plural.to_owned(), version.to_owned());
        core()
            .get(&slot)
            .or_else(|| self.custom.get(&slot))
            .cloned()
    }

    /// The kind whose objects a key is of.
    pub(crate) fn of_key(&self, key: &str) -> Option<Arc<Kind>> {
        let mut parts = key.split('/').skip(1);
        let (group, plural) = (parts.next()?, parts.next()?);
        let group = if group == "core" { "" } else { group };
        self.all()
            .find(|k| k.group == group && k.plural == plural)
            .cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        core().values().chain(self.custom.values())
    }
}
