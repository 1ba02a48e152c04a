//! Writes to the API: small, and seen by the next reconcile at once.

use std::fmt::Debug;

use fleetwright_api::{Machine, MachineSet};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    cache::{Cached, name_of},
    queue::Key,
    reconcile::{Error, Shared},
};

/// A kind that can be written.
pub(crate) trait Written:
    Cached + kube::Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Debug
{
}
impl<
    K: Cached + kube::Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Debug,
> Written for K
{
}

/// The merge patch (RFC 7396) that makes `to` of `from`; `None` when they are equal.
pub(crate) fn merge_diff(from: &Value, to: &Value) -> Option<Value> {
    match (from, to) {
        _ if from == to => None,
        (Value::Object(a), Value::Object(b)) => {
            let mut patch = Map::new();
            for key in a.keys().filter(|k| !b.contains_key(*k)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in b {
                let change = a
                    .get(key)
                    .map_or_else(|| Some(value.clone()), |old| merge_diff(old, value));
                if let Some(change) = change {
                    patch.insert(key.clone(), change);
                }
            }
            Some(Value::Object(patch))
        }
        _ => Some(to.clone()),
    }
}

impl Shared {
    fn api<K: Written>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// Reads an object from the API itself and takes it into the cache; `None` when it is not there.
    pub(crate) async fn read<K: Written>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>, Error> {
        let read = self.api::<K>(namespace).get_opt(name).await?;
        if let Some(object) = &read {
            self.learn(object.clone());
        }
        Ok(read)
    }

    /// Writes the status where it differs; `true` when it did.
    pub(crate) async fn write_status<K, S>(
        &self,
        object: &K,
        old: Option<&S>,
        new: &S,
        by: &str,
    ) -> Result<bool, Error>
    where
        K: Written,
        S: Serialize + PartialEq,
    {
        if old == Some(new) {
            return Ok(false);
        }
        let from = old
            .map_or(Ok(json!({})), serde_json::to_value)
            .map_err(Error::Encode)?;
        let to = serde_json::to_value(new).map_err(Error::Encode)?;
        let Some(patch) = merge_diff(&from, &to) else {
            return Ok(false);
        };
        let (namespace, name) = name_of(object);
        let params = PatchParams {
            field_manager: Some(by.to_owned()),
            ..PatchParams::default()
        };
        let mut body = json!({"status": patch});
        if K::CONDITIONS_ARE_SHARED {
            body["metadata"]["resourceVersion"] = json!(object.resource_version());
        }
        let body = Patch::Merge(body);
        let written = self
            .api::<K>(&namespace)
            .patch_status(&name, &params, &body)
            .await?;
        self.learn(written);
        Ok(true)
    }

    /// Merges `patch` into the object as it was read: fails with a conflict when it has changed since.
    pub(crate) async fn patch<K: Written>(
        &self,
        object: &K,
        mut patch: Value,
        by: &str,
    ) -> Result<K, Error> {
        patch["metadata"]["resourceVersion"] = json!(object.resource_version());
        patch["metadata"]["uid"] = json!(object.uid());
        let (namespace, name) = name_of(object);
        let params = PatchParams {
            field_manager: Some(by.to_owned()),
            ..PatchParams::default()
        };
        let written = self
            .api::<K>(&namespace)
            .patch(&name, &params, &Patch::Merge(patch))
            .await?;
        self.learn(written.clone());
        Ok(written)
    }

    /// Creates a machine.
    pub(crate) async fn create_machine(&self, machine: &Machine, by: &str) -> Result<(), Error> {
        let (namespace, name) = name_of(machine);
        let made = self.create(machine, by).await;
        self.doubt(Key::Machine(namespace, name), made)
    }

    /// Passes on what came of a write that others count on, and notes it where no answer tells whether it was done: whoever counts
    /// looks at the object again first ([`Shared::know_again`]).
    pub(crate) fn doubt<T>(&self, key: Key, came: Result<T, Error>) -> Result<T, Error> {
        let refused = |e: &kube::Error| matches!(e, kube::Error::Api(s) if s.code < 500);
        if let Err(Error::Api(error)) = &came
            && !refused(error)
        {
            self.doubtful.lock().insert(key);
        }
        came
    }

    /// Reads the machines and sets that may have been written though no answer came: the watch may not have told of them yet. To be
    /// called before a decision on how many machines there are to be, by whoever decides on them alone from then on.
    pub(crate) async fn know_again(&self) -> Result<(), Error> {
        loop {
            let Some(key) = self.doubtful.lock().first().cloned() else {
                return Ok(());
            };
            let (namespace, name) = key.namespaced();
            if let Key::Set(..) = key {
                self.read::<MachineSet>(namespace, name).await?;
            } else {
                self.read::<Machine>(namespace, name).await?;
            }
            self.doubtful.lock().remove(&key);
        }
    }

    /// Creates an object; one of that name that is there already is no error.
    pub(crate) async fn create<K: Written>(&self, object: &K, by: &str) -> Result<(), Error> {
        let params = PostParams {
            field_manager: Some(by.to_owned()),
            ..PostParams::default()
        };
        match self
            .api::<K>(&object.namespace().unwrap_or_default())
            .create(&params, object)
            .await
        {
            Ok(written) => {
                self.learn(written);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes exactly this object (by uid); one that is gone or going is no error.
    pub(crate) async fn delete<K: Written>(&self, object: &K) -> Result<(), Error> {
        self.delete_at(object, None).await
    }

    /// The same, if the object is still as it was at `version`: else it is a conflict.
    pub(crate) async fn delete_at<K: Written>(
        &self,
        object: &K,
        version: Option<String>,
    ) -> Result<(), Error> {
        if object.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let (namespace, name) = name_of(object);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: version,
            }),
            ..DeleteParams::background()
        };
        match self.api::<K>(&namespace).delete(&name, &params).await {
            Ok(either) => {
                if let Some(still) = either.left() {
                    self.learn(still);
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts our finalizer on the object where it is missing.
    pub(crate) async fn add_finalizer<K: Written>(
        &self,
        object: &K,
        finalizer: &str,
        by: &str,
    ) -> Result<(), Error> {
        let mut all = object.finalizers().to_vec();
        all.push(finalizer.to_owned());
        self.patch(object, json!({"metadata": {"finalizers": all}}), by)
            .await?;
        Ok(())
    }

    /// Takes our finalizer away.
    pub(crate) async fn remove_finalizer<K: Written>(
        &self,
        object: &K,
        finalizer: &str,
        by: &str,
    ) -> Result<(), Error> {
        let all: Vec<_> = object
            .finalizers()
            .iter()
            .filter(|f| *f != finalizer)
            .cloned()
            .collect();
        if all.len() == object.finalizers().len() {
            return Ok(());
        }
        match self
            .patch(object, json!({"metadata": {"finalizers": all}}), by)
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_diff_is_minimal() {
        let from = json!({"a": 1, "b": {"c": 1, "d": 2}, "list": [1]});
        assert_eq!(merge_diff(&from, &from), None);
        let to = json!({"b": {"c": 1, "d": 3}, "list": [1, 2], "new": {}});
        assert_eq!(
            merge_diff(&from, &to),
            Some(json!({"a": null, "b": {"d": 3}, "list": [1, 2], "new": {}}))
        );
    }
}
