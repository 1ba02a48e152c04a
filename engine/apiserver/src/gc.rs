//! What follows from a deletion: dependents, namespaces, orphans. It runs inside requests, one at a time; a task
//! leaves the queue only when it is done, and `resume` finds unfinished ones again after a restart.

use fleetwright_store::{Error as StoreError, Op};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::object::{deleting, encode, finalizers, key, meta, owners, set_finalizers, text};

/// Work that a change has left.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// A namespace that every server has.
    MakeNamespace(&'static str),
    /// The object with this uid is gone: its dependents lose an owner.
    OwnerGone(String),
    /// This object waits for its dependents, or for their release.
    Waiting(String),
    /// This namespace is to be emptied and removed.
    Namespace(String),
    /// The owners of this object may never have existed, or be gone.
    Check(String),
}

fn push(server: &ApiServer, task: Task) {
    server.0.pending.lock().push_back(task);
}

/// Notes what an object that is stored still waits for.
pub(crate) fn resume(server: &ApiServer, key: &str, object: &Value) {
    if !deleting(object) {
        if !owners(object).is_empty() {
            push(server, Task::Check(key.to_owned()));
        }
        return;
    }
    if key.starts_with("/core/namespaces/") {
        push(server, Task::Namespace(text(object, "name").to_owned()));
    } else {
        push(server, Task::Waiting(key.to_owned()));
    }
}

/// Called for every new object.
pub(crate) fn created(server: &ApiServer, key: &str, object: &Value) {
    if !owners(object).is_empty() {
        push(server, Task::Check(key.to_owned()));
    }
}

/// Called for every object that is gone.
pub(crate) fn removed(server: &ApiServer, key: &str, object: &Value) {
    server.unindex(key, object);
    push(server, Task::OwnerGone(text(object, "uid").to_owned()));
    let owners_of = owners(object);
    {
        let index = server.0.index.lock();
        for owner in &owners_of {
            if let Some(owner) = index.keys.get(owner) {
                push(server, Task::Waiting(owner.to_string()));
            }
        }
    }
    let namespace = text(object, "namespace");
    if !namespace.is_empty()
        && let Some((object, _)) = server.read(&crate::object::key("", "namespaces", "", namespace))
        && deleting(&object)
    {
        push(server, Task::Namespace(namespace.to_owned()));
    }
    let mut parts = key.split('/').skip(1);
    if let (Some(group), Some(plural)) = (parts.next(), parts.next()) {
        let name = format!("{plural}.{group}");
        let group = "apiextensions.k8s.io";
        let definition = crate::object::key(group, "customresourcedefinitions", "", &name);
        if server
            .read(&definition)
            .is_some_and(|(crd, _)| deleting(&crd))
        {
            push(server, Task::Waiting(definition));
        }
    }
    if key.starts_with("/apiextensions.k8s.io/") {
        crate::crd::reload(server).ok();
    }
}

impl ApiServer {
    /// Does all work that is queued.
    pub(crate) async fn collect_garbage(&self) {
        if self.0.pending.lock().is_empty() {
            return;
        }
        let _one = self.0.collecting.lock().await;
        loop {
            let Some(task) = self.0.pending.lock().front().cloned() else {
                return;
            };
            if let Err(error) = self.collect(&task).await {
                tracing::warn!(%error, ?task, "garbage collection waits for the store");
                return;
            }
            self.0.pending.lock().pop_front();
        }
    }

    async fn collect(&self, task: &Task) -> Result<(), StoreError> {
        match task {
            Task::MakeNamespace(name) => {
                let body = json!({"apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": name, "uid": self.0.options.random.uuid(), "creationTimestamp": self.now(),
                        "labels": {"kubernetes.io/metadata.name": name}},
                    "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
                let op = Op::Put {
                    key: key("", "namespaces", "", name),
                    value: encode(&body),
                    expect: Some(0),
                };
                match self.0.store.commit(vec![op]).await {
                    Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Task::OwnerGone(uid) => {
                for key in self.dependents(uid) {
                    self.release(&key, Some(uid)).await?;
                }
                Ok(())
            }
            Task::Check(key) => self.release(key, None).await,
            Task::Waiting(key) => self.wait(key).await,
            Task::Namespace(name) => self.empty(name).await,
        }
    }

    fn dependents(&self, uid: &str) -> Vec<String> {
        let index = self.0.index.lock();
        index
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn exists(&self, uid: &str) -> bool {
        self.0.index.lock().keys.contains_key(uid)
    }

    /// Deletes an object whose owners are all gone; takes away the references to those that are.
    async fn release(&self, key: &str, gone: Option<&str>) -> Result<(), StoreError> {
        let Some((object, _)) = self.read(key) else {
            return Ok(());
        };
        let list = owners(&object);
        if list.is_empty() || gone.is_some_and(|uid| !list.iter().any(|o| o == uid)) {
            return Ok(());
        }
        if list.iter().any(|uid| self.exists(uid)) {
            if list.iter().all(|uid| self.exists(uid)) {
                return Ok(());
            }
            return self
                .rewrite(key, |object| {
                    let kept: Vec<Value> = object["metadata"]["ownerReferences"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter(|r| r["uid"].as_str().is_some_and(|uid| self.exists(uid)))
                        .cloned()
                        .collect();
                    meta(object).set("ownerReferences", kept);
                })
                .await;
        }
        self.erase(key, "Background").await
    }

    async fn erase(&self, key: &str, policy: &str) -> Result<(), StoreError> {
        let Some(kind) = self.kinds().of_key(key) else {
            return Ok(());
        };
        match crate::handlers::remove(self, &kind, key, policy).await {
            Ok(()) => Ok(()),
            Err(error) if error.code() < 500 => Ok(()),
            Err(error) => Err(StoreError::Io {
                doing: "remove",
                path: key.into(),
                cause: error.status()["message"].to_string(),
            }),
        }
    }

    async fn rewrite(&self, key: &str, change: impl Fn(&mut Value)) -> Result<(), StoreError> {
        loop {
            let Some((live, revision)) = self.read(key) else {
                return Ok(());
            };
            let mut object = live.clone();
            change(&mut object);
            if object == live {
                return Ok(());
            }
            let ends = deleting(&object) && finalizers(&object).is_empty();
            let op = if ends {
                Op::Delete {
                    key: key.to_owned(),
                    expect: Some(revision),
                    last: Some(encode(&live)),
                }
            } else {
                Op::Put {
                    key: key.to_owned(),
                    value: encode(&object),
                    expect: Some(revision),
                }
            };
            match self.0.store.commit(vec![op]).await {
                Ok(_) if ends => removed(self, key, &live),
                Ok(_) => {
                    self.unindex(key, &live);
                    self.index(key, &object);
                }
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }

    /// Foreground deletion and orphaning.
    async fn wait(&self, key: &str) -> Result<(), StoreError> {
        let Some((object, _)) = self.read(key) else {
            return Ok(());
        };
        let list = finalizers(&object);
        let uid = text(&object, "uid").to_owned();
        let drop_finalizer = |name: &'static str| {
            move |object: &mut Value| {
                let kept = finalizers(object)
                    .into_iter()
                    .filter(|f| f != name)
                    .collect();
                set_finalizers(object, kept);
            }
        };
        if !deleting(&object) {
            return Ok(());
        }
        if list.iter().any(|f| f == crate::crd::CLEANUP) {
            if self.clear(key, &object).await? {
                self.rewrite(key, drop_finalizer(crate::crd::CLEANUP))
                    .await?;
            }
            return Ok(());
        }
        if list.iter().any(|f| f == "orphan") {
            for dependent in self.dependents(&uid) {
                self.rewrite(&dependent, |object| {
                    let kept: Vec<Value> = object["metadata"]["ownerReferences"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter(|r| r["uid"] != uid.as_str())
                        .cloned()
                        .collect();
                    if kept.is_empty() {
                        meta(object).remove("ownerReferences");
                    } else {
                        meta(object).set("ownerReferences", kept);
                    }
                })
                .await?;
            }
            return self.rewrite(key, drop_finalizer("orphan")).await;
        }
        if list.iter().any(|f| f == "foregroundDeletion") {
            let mut blocked = false;
            for dependent in self.dependents(&uid) {
                let Some((object, _)) = self.read(&dependent) else {
                    continue;
                };
                if !deleting(&object) {
                    self.erase(&dependent, "Foreground").await?;
                }
                let blocks = object["metadata"]["ownerReferences"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|r| r["uid"] == uid.as_str() && r["blockOwnerDeletion"] == true);
                blocked |= blocks && self.0.store.get(&dependent).is_some();
            }
            if !blocked {
                return self
                    .rewrite(key, drop_finalizer("foregroundDeletion"))
                    .await;
            }
        }
        Ok(())
    }

    /// Deletes the objects of a definition that is being deleted; whether none is left.
    async fn clear(&self, key: &str, crd: &Value) -> Result<bool, StoreError> {
        let spec = &crd["spec"];
        let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let prefix = crate::object::prefix(&part(&spec["group"]), &part(&spec["names"]["plural"]));
        for entry in self.0.store.range(&prefix, None, 0).0 {
            self.erase(&entry.key, "Background").await?;
        }
        let left = self.0.store.count(&prefix, None);
        if left > 0 {
            let now = self.now();
            self.rewrite(key, |crd| crate::crd::terminate(crd, true, &now))
                .await?;
        }
        Ok(left == 0)
    }

    /// Deletes what is in a namespace that is being deleted, and the namespace once it is empty.
    async fn empty(&self, name: &str) -> Result<(), StoreError> {
        let at = key("", "namespaces", "", name);
        if !self.read(&at).is_some_and(|(object, _)| deleting(&object)) {
            return Ok(());
        }
        let kinds = self.kinds();
        let mut left = 0;
        for kind in kinds.all().filter(|k| k.namespaced) {
            let prefix = format!("{}{name}/", kind.prefix());
            for entry in self.0.store.range(&prefix, None, 0).0 {
                self.erase(&entry.key, "Background").await?;
            }
            left += self.0.store.count(&prefix, None);
        }
        if left == 0
            && let Some((live, revision)) = self.read(&at)
            && finalizers(&live).is_empty()
        {
            let op = Op::Delete {
                key: at.clone(),
                expect: Some(revision),
                last: Some(encode(&live)),
            };
            match self.0.store.commit(vec![op]).await {
                Ok(_) => removed(self, &at, &live),
                Err(StoreError::Conflict { .. }) => push(self, Task::Namespace(name.to_owned())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
