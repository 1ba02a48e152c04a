//! Commit statuses that are wanted: one durable object per repository, commit and context, posted by the outbox. Where a Fleet wants
//! notes in its repository, each has a second object for its note.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    CommitStatus, Fleet,
    commit_status::{CommitState, CommitStatusSpec, StatusContent},
    fleet::ForgeType,
    meta::LABEL_FLEET,
    names::{fleet_hash, short_hash},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::progress::Told;

pub use crate::progress::ClusterName;

const FIELD_MANAGER: &str = "fleetwright-sync";
/// Between the Fleet's context and the name of a cluster.
const CLUSTER: &str = "/cluster/";
/// After the Fleet's context: what a merge would do.
const PLAN: &str = "/plan";
/// After the Fleet's context: what comes of those who want a pull request applied.
const APPLY: &str = "/apply";
/// After the Fleet's context: how the clusters are since.
const HEALTH: &str = "/health";
/// Statuses that the forge has and that are kept to look at.
const KEPT: usize = 100;

/// What a status of a Fleet speaks of.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// The commit, in all clusters.
    Fleet,
    /// The commit in one cluster.
    Cluster(&'a ClusterName),
    /// What merging the commit would do.
    Plan,
    /// What comes of those who want a pull request applied.
    Apply,
    /// How the clusters are since the commit has settled.
    Health,
}

/// The commit statuses of one Fleet.
pub struct Wishes {
    api: Api<CommitStatus>,
    fleet: Fleet,
    context: String,
    /// Where they go.
    places: Vec<Place>,
}

/// A forge, or the notes of a repository.
#[derive(Clone)]
struct Place {
    forge: ForgeType,
    repository: String,
    note: bool,
}

impl Place {
    fn of(fleet: &Fleet) -> Vec<Self> {
        let forge = fleet.spec.forge.as_ref().map(|forge| Self {
            forge: forge.kind,
            repository: forge.repository.clone(),
            note: false,
        });
        let source = &fleet.spec.source;
        let url = source.url.as_ref().filter(|_| source.notes);
        let notes = url.map(|url| Self {
            forge: ForgeType::default(),
            repository: url.clone(),
            note: true,
        });
        forge.into_iter().chain(notes).collect()
    }
}

impl Wishes {
    /// Of a Fleet that names a forge or wants notes; `None` for one that does neither.
    #[must_use]
    pub fn of(client: &Client, fleet: &Fleet, installation: &str) -> Option<Self> {
        let places = Place::of(fleet);
        if places.is_empty() {
            return None;
        }
        let namespace = fleet.namespace().unwrap_or_default();
        let context = format!(
            "fleetwright/{installation}/{namespace}.{}",
            fleet.name_any()
        );
        Some(Self {
            api: Api::namespaced(client.clone(), &namespace),
            fleet: fleet.clone(),
            context,
            places,
        })
    }

    /// Wants `state` for the commit. A wish that is there already changes nothing.
    ///
    /// # Errors
    /// When the API cannot be read or written.
    pub async fn want(
        &self,
        about: About<'_>,
        sha: &str,
        state: CommitState,
        description: &str,
    ) -> Result<(), kube::Error> {
        self.put(self.context(about), sha, state, description).await
    }

    /// The context of a status.
    #[must_use]
    pub fn context(&self, about: About<'_>) -> String {
        match about {
            About::Fleet => self.context.clone(),
            About::Cluster((namespace, name)) => {
                format!("{}{CLUSTER}{namespace}.{name}", self.context)
            }
            About::Plan => format!("{}{PLAN}", self.context),
            About::Apply => format!("{}{APPLY}", self.context),
            About::Health => format!("{}{HEALTH}", self.context),
        }
    }

    /// What a context speaks of, if it is one of commits.
    fn about(&self, context: &str) -> Option<Option<ClusterName>> {
        let rest = context.strip_prefix(&self.context)?;
        if rest.is_empty() {
            return Some(None);
        }
        let (namespace, name) = rest.strip_prefix(CLUSTER)?.split_once('.')?;
        Some(Some((namespace.to_owned(), name.to_owned())))
    }

    async fn put(
        &self,
        context: String,
        sha: &str,
        state: CommitState,
        description: &str,
    ) -> Result<(), kube::Error> {
        let wanted = StatusContent {
            state,
            description: description.chars().take(1000).collect(),
            target_url: None,
        };
        for place in &self.places {
            self.put_at(place, &context, sha, &wanted).await?;
        }
        Ok(())
    }

    async fn put_at(
        &self,
        place: &Place,
        context: &str,
        sha: &str,
        wanted: &StatusContent,
    ) -> Result<(), kube::Error> {
        let name = self.name(&place.repository, sha, context);
        if let Some(found) = self.api.get_opt(&name).await? {
            if found.spec.wanted == *wanted {
                return Ok(());
            }
            let spec =
                json!({"spec": {"wanted": wanted, "observation": found.spec.observation + 1}});
            self.api
                .patch(
                    &name,
                    &PatchParams::apply(FIELD_MANAGER),
                    &Patch::Merge(&spec),
                )
                .await?;
            return Ok(());
        }
        let hash = fleet_hash(
            &self.fleet.namespace().unwrap_or_default(),
            &self.fleet.name_any(),
        );
        let status = CommitStatus {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some([(LABEL_FLEET.to_owned(), hash)].into()),
                owner_references: self.fleet.owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: CommitStatusSpec {
                fleet: self.fleet.name_any(),
                forge: place.forge,
                repository: place.repository.clone(),
                note: place.note,
                sha: sha.to_owned(),
                reference: self.reference(),
                context: context.to_owned(),
                wanted: wanted.clone(),
                observation: 1,
            },
            status: None,
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.api.create(&params, &status).await?;
        Ok(())
    }

    /// The branch or tag that the Fleet follows, where it names one.
    fn reference(&self) -> Option<String> {
        let reference = self.fleet.spec.source.reference.clone()?;
        reference.branch.or(reference.tag)
    }

    fn name(&self, repository: &str, sha: &str, context: &str) -> String {
        let hash = short_hash([repository, sha, context], 12);
        format!("{}-{hash}", self.fleet.name_any())
    }

    /// What is wanted for the commit; `None` where nothing is.
    ///
    /// # Errors
    /// When the API cannot be read.
    pub async fn state(&self, sha: &str) -> Result<Option<CommitState>, kube::Error> {
        let Some(place) = self.places.first() else {
            return Ok(None);
        };
        let name = self.name(&place.repository, sha, &self.context);
        let found = self.api.get_opt(&name).await?;
        Ok(found.map(|status| status.spec.wanted.state))
    }

    async fn all(&self) -> Result<Vec<CommitStatus>, kube::Error> {
        let hash = fleet_hash(
            &self.fleet.namespace().unwrap_or_default(),
            &self.fleet.name_any(),
        );
        let ours = ListParams::default().labels(&format!("{LABEL_FLEET}={hash}"));
        Ok(self.api.list(&ours).await?.items)
    }

    /// Ends what is pending of single clusters for a commit that has ended: with `outcomes`, and as converged where there is none.
    ///
    /// # Errors
    /// When the API cannot be read or written.
    pub(crate) async fn finish(
        &self,
        sha: &str,
        outcomes: &BTreeMap<ClusterName, Told>,
    ) -> Result<(), kube::Error> {
        for status in self.all().await?.into_iter().filter(|s| s.spec.sha == sha) {
            let pending = status.spec.wanted.state == CommitState::Pending;
            let Some(Some(cluster)) = self.about(&status.spec.context).filter(|_| pending) else {
                continue;
            };
            let converged = (CommitState::Success, "converged".to_owned());
            let (state, words) = outcomes.get(&cluster).unwrap_or(&converged);
            self.put(status.spec.context, sha, *state, words).await?;
        }
        Ok(())
    }

    /// The commits whose merge was planned, as far as their statuses are kept.
    ///
    /// # Errors
    /// When the API cannot be read.
    pub async fn planned(&self) -> Result<BTreeSet<String>, kube::Error> {
        let context = self.context(About::Plan);
        let plans = self.all().await?.into_iter().map(|status| status.spec);
        let plans = plans.filter(|plan| plan.context == context);
        Ok(plans.map(|plan| plan.sha).collect())
    }

    /// Ends the plans that are pending for other commits than `heads`: nobody will finish them.
    ///
    /// # Errors
    /// When the API cannot be read or written.
    pub async fn supersede_plans(&self, heads: &BTreeSet<String>) -> Result<(), kube::Error> {
        let context = self.context(About::Plan);
        for old in self.all().await? {
            let pending = old.spec.wanted.state == CommitState::Pending;
            if pending && old.spec.context == context && !heads.contains(&old.spec.sha) {
                let words = "no longer the head of an open pull request";
                self.put(context.clone(), &old.spec.sha, CommitState::Success, words)
                    .await?;
            }
        }
        Ok(())
    }

    /// Ends what is pending for other commits: a newer one took their place. Of the statuses that are done with, the
    /// newest [`KEPT`] stay.
    ///
    /// # Errors
    /// When the API cannot be read or written.
    pub async fn supersede(&self, sha: &str) -> Result<(), kube::Error> {
        let mut done = Vec::new();
        for old in self
            .all()
            .await?
            .into_iter()
            .filter(|old| old.spec.sha != sha)
        {
            let pending = old.spec.wanted.state == CommitState::Pending;
            if pending && self.about(&old.spec.context).is_some() {
                let words = format!("superseded by {sha}");
                let context = old.spec.context;
                self.put(context, &old.spec.sha, CommitState::Success, &words)
                    .await?;
            } else if old.status.as_ref().and_then(|s| s.posted.as_ref()) == Some(&old.spec.wanted)
            {
                let time = old.status.as_ref().and_then(|s| s.posted_at.clone());
                done.push((time, old.name_any()));
            }
        }
        done.sort();
        let many = done.len().saturating_sub(KEPT);
        for (_, name) in done.into_iter().take(many) {
            match self.api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => drop(result?),
            }
        }
        Ok(())
    }
}
