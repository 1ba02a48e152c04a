//! Waves: a change reaches an object once all that is in earlier waves is as the same commit says, has converged, and has soaked.

use fleetwright_api::meta;
use jiff::SignedDuration;
use serde_json::Value;

use super::{Checker, model::Meta};

/// Times in the API are whole seconds.
const WHOLE: SignedDuration = SignedDuration::from_secs(1);

impl Checker {
    /// An object was written for a commit, where `before` is as it was; called before it is known as it is now.
    pub(super) fn reached(&mut self, kind: &str, before: Option<&Meta>, now: &Meta) {
        if self.around.waves.is_empty() || !now.labels.contains_key(meta::LABEL_FLEET) {
            return;
        }
        let revision = |m: &Meta| m.annotations.get(meta::ANNOTATION_REVISION).cloned();
        let Some(sha) = revision(now).filter(|_| before.and_then(revision) != revision(now)) else {
            return;
        };
        let what = format!("{kind} {}", now.name);
        let Some(declared) = self.declared(&sha, &now.name) else {
            return;
        };
        let place = declared
            .iter()
            .find(|o| o.kind == kind && o.name == now.name);
        let Some(place) = place.map(|o| o.place) else {
            return;
        };
        for earlier in declared.iter().filter(|o| o.place < place) {
            if let Some(why) = self.not_passed(earlier, &sha) {
                let what = format!(
                    "{what} (wave {place}) is written for commit {sha}, and {} {} (wave {}) {why}",
                    earlier.kind, earlier.name, earlier.place
                );
                return self.broke("I9", what);
            }
        }
    }

    /// The clusters and pools of a commit with their waves, where `written` is what is written now.
    fn declared(&self, sha: &str, written: &str) -> Option<Vec<Declared>> {
        let files = self.around.repository.with(|commits| {
            let commit = commits.iter().find(|c| c.sha == sha)?;
            Some(commit.files.clone())
        })?;
        let text = |d: &Value, at: &str| d.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let waves = &self.around.waves;
        let one = |(path, document): (String, Value)| {
            let name = text(&document, "/metadata/name")?;
            let kind = text(&document, "/kind")?;
            let place = match kind.as_str() {
                "Cluster" => waves.of_cluster(&name),
                "MachineDeployment" => {
                    let cluster = text(&document, "/spec/clusterName")?;
                    let own = waves.of_pool(&name, &cluster);
                    // A pool does not come before its cluster does, and stays with what came with it until it is changed.
                    let pool = self.pools.get(&name).map(|p| &p.metadata.annotations);
                    let carries = pool.and_then(|a| a.get(meta::ANNOTATION_REVISION));
                    match self.born.get(&cluster) {
                        Some(born) if born != sha && (name == written || carries != Some(born)) => {
                            own
                        }
                        _ => own.max(waves.of_cluster(&cluster)),
                    }
                }
                _ => return None,
            };
            Some(Declared {
                kind,
                name,
                path,
                document,
                place,
            })
        };
        Some(files.into_iter().filter_map(one).collect())
    }

    /// Why a wave has not passed, by one of its objects.
    fn not_passed(&self, object: &Declared, sha: &str) -> Option<String> {
        let metadata = match object.kind.as_str() {
            "Cluster" => self.clusters.get(&object.name).map(|c| &c.metadata),
            _ => self.pools.get(&object.name).map(|p| &p.metadata),
        };
        let Some(carried) = metadata.and_then(|m| m.annotations.get(meta::ANNOTATION_REVISION))
        else {
            return Some("is not there".into());
        };
        let mut before = self.around.repository.with(|commits| {
            let of = commits.iter().find(|c| c.sha == *carried);
            of.and_then(|c| c.files.get(&object.path)).cloned()
        });
        let mut wanted = object.document.clone();
        // What somebody has set to the same is not written again, nor given up where somebody has taken it.
        let live = self.pools.get(&object.name).map(|p| p.spec.replicas);
        let declared = wanted["spec"]["replicas"].as_i64();
        let others = declared.is_none() && self.scaled.contains_key(&object.name);
        if live.is_some() && (declared == live || others) {
            for document in before.iter_mut().chain([&mut wanted]) {
                document["spec"]["replicas"] = Value::Null;
            }
        }
        let same = before.as_ref() == Some(&wanted);
        if !same {
            return Some(format!("is still as {carried} says"));
        }
        let since = match object.kind.as_str() {
            "Cluster" => {
                let at = self.converged_at.get(&object.name);
                at.filter(|(of, _)| of == carried).map(|(_, at)| *at)
            }
            _ => self.pool_converged_at(&object.name),
        };
        let Some(since) = since else {
            return Some(format!("has not converged since {carried}"));
        };
        let soak = SignedDuration::from_secs(self.around.waves.soak(object.place));
        // Only what this commit changed need soak for it; what was well before has.
        let soaked = self.now().duration_since(since) > soak - WHOLE;
        (carried == sha && !soaked)
            .then(|| format!("has converged at {since} and soaks for {soak}"))
    }
}

/// A cluster or a pool as a commit has it.
struct Declared {
    kind: String,
    name: String,
    path: String,
    document: Value,
    place: usize,
}
