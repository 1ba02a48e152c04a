//! Which Fleet an object belongs to: the living one that its label names. What managers of other Fleets hold of it is taken over.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::meta::{ANNOTATION_REVISION, LABEL_FLEET, fleet_of};
use fleetwright_schema::managed;
use serde_json::Value;

use super::label;

/// The Fleets that there are: namespace and name by hash.
pub type Fleets = BTreeMap<String, String>;

/// The other Fleet that an object belongs to, in words. Where the Fleets are not known, every label names one that is there.
#[must_use]
pub fn other(object: &Value, hash: &str, fleets: Option<&Fleets>) -> Option<String> {
    let owner = label(object, LABEL_FLEET).filter(|owner| *owner != hash)?;
    let Some(fleets) = fleets else {
        return Some("another Fleet".to_owned());
    };
    fleets.get(owner).map(|name| format!("Fleet {name}"))
}

/// Why an object that is there cannot be applied to.
#[must_use]
pub fn barred(object: &Value, hash: &str, fleets: Option<&Fleets>) -> Option<String> {
    if let Some(owner) = other(object, hash, fleets) {
        let revision = object.pointer("/metadata/annotations");
        let revision = revision.and_then(|all| all.get(ANNOTATION_REVISION)?.as_str());
        let declared = revision.map_or(String::new(), |at| {
            format!(", which declares it as of {at}")
        });
        return Some(format!(
            "it belongs to {owner}{declared}: remove it from one of the two repositories"
        ));
    }
    object
        .pointer("/metadata/deletionTimestamp")
        .map(|_| "it is being deleted: it is made again when it is gone".to_owned())
}

/// Managers of Fleets that an object does not belong to, and that hold fields of it all the same. `manager` is that of the Fleet that
/// it belongs to or will belong to.
#[must_use]
pub fn former(object: &Value, manager: &str) -> BTreeSet<String> {
    let mut managers = managed::appliers(object);
    managers.retain(|other| is_former(other, manager));
    managers
}

/// Whether `other` is the manager of another Fleet than `manager`.
pub(super) fn is_former(other: &str, manager: &str) -> bool {
    other != manager && fleet_of(other).is_some()
}
