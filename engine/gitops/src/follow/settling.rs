//! How a follower tells how far its revision has come.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{
    commit_status::CommitState,
    condition::{self, Status, kind},
    fleet::{DEFAULT_CLUSTER_STATUSES, DEFAULT_PROGRESS_DEADLINE_SECONDS, RevisionRef},
    time::k8s_time,
};
use fleetwright_core::{plan::Key, waves::Waves};
use kube::ResourceExt;
use serde_json::Value;
use tokio::time::Instant;

use super::{FollowError, Follower, count};
use crate::{
    health,
    metrics::Stage,
    progress::{ClusterName, Told},
    settle::{Outcome, Pending, Seen},
    tell::{Ready, told},
    wishes::{About, Wishes},
};

impl Follower {
    /// Tells how far the last applied revision has come, and how the clusters are since the last one that settled.
    ///
    /// # Errors
    /// When the API cannot be written.
    pub async fn settle(&mut self, seen: &Seen) -> Result<(), FollowError> {
        let begun = Instant::now();
        let now = self.context.clock.now();
        self.telling.accounts(&self.fleet, seen, now);
        let told = match self.tell_progress(seen).await {
            Ok(()) => self.tell_health(seen).await,
            Err(error) => Err(error),
        };
        self.metrics.took(Stage::Settle, begun, told.is_ok());
        told
    }

    async fn tell_health(&mut self, seen: &Seen) -> Result<(), FollowError> {
        let forge = self.fleet.spec.forge.as_ref();
        let settled = self.telling.status.settled.as_ref();
        let (Some(_), Some(settled)) = (forge.filter(|f| f.health), settled) else {
            return Ok(());
        };
        let (sha, now) = (settled.revision.clone(), self.context.clock.now());
        let (Some(wishes), Some(told)) = (self.wishes(), health::judge(&self.fleet, seen)) else {
            return Ok(());
        };
        if self.health.may_say(&sha, &told, now) {
            let (state, words) = &told;
            wishes.want(About::Health, &sha, *state, words).await?;
            self.health.said(&sha, told, now);
        }
        Ok(())
    }

    async fn tell_progress(&mut self, seen: &Seen) -> Result<(), FollowError> {
        let now = self.context.clock.now();
        let Some(applied) = self.carried.clone() else {
            // What it did before it failed goes on.
            let observed = self.telling.status.observed.as_ref();
            if let (Some(wishes), Some(observed)) = (self.wishes(), observed.cloned()) {
                let mut pending = self.pending.clone();
                // What may have been written is not known to have converged.
                let doubtful = self
                    .doubtful
                    .iter()
                    .map(|key| (key.clone(), Some(i64::MAX)));
                pending.add(doubtful, now);
                pending.look(seen, now, self.deadline());
                let mut clusters = pending.by_cluster(seen, self.documents());
                // Of others this revision has not been told to change anything.
                clusters.retain(|name, _| self.spoken.told_of(&observed.revision, name));
                self.tell_clusters(&wishes, &observed.revision, clusters)
                    .await?;
            }
            return self.write().await;
        };
        let mut outcome = self.pending.look(seen, now, self.deadline());
        let waves = Waves::new(&self.fleet.spec.waves, &self.fleet.spec.windows);
        let states = &mut self.telling.status.waves;
        let passed = self
            .staging
            .advance(waves, states, (seen, &self.pending), now);
        if let Some(hold) = self.staging.hold() {
            self.again |= passed || hold.until.is_some_and(|until| until <= now);
            outcome = match outcome {
                Outcome::Success(_) => Outcome::Waiting(hold.to_string()),
                Outcome::Failure(why) => Outcome::Failure(format!("{why}; {hold}")),
                other => other,
            };
        }
        let (state, ready) = told(&outcome);
        let status = &mut self.telling.status;
        if let Some(counts) = &mut status.counts {
            counts.converging = match &outcome {
                Outcome::Pending(n, _) => count(*n),
                _ => 0,
            };
        }
        let settled = status.settled.as_ref();
        let was = settled.is_some_and(|s| s.revision == applied.revision);
        // A commit that has ended well says so for ever; later drift is not its fault. One that another took the place of has
        // ended too, also where the other cannot be carried out.
        let ended_well = was && matches!(outcome, Outcome::Success(0));
        let observed = status.observed.as_ref();
        let newest = observed.is_none_or(|o| o.revision == applied.revision);
        if let Some(wishes) = self.wishes().filter(|_| newest && !ended_well) {
            let sha = &applied.revision;
            let mut clusters = self.pending.by_cluster(seen, self.documents());
            self.staging.hold_back(&mut clusters);
            self.tell_clusters(&wishes, sha, clusters.clone()).await?;
            let description = match outcome {
                Outcome::Pending(..) => self.spoken.words(sha, &self.pending.progress(seen)),
                _ => ready.message.clone(),
            };
            if state != CommitState::Pending && !was {
                wishes.finish(sha, &clusters).await?;
            }
            wishes.want(About::Fleet, sha, state, &description).await?;
        }
        // After it was told: what is settled is not told again.
        if state != CommitState::Pending && !was {
            self.telling.status.settled = Some(RevisionRef {
                time: Some(k8s_time(now)),
                ..applied.clone()
            });
        }
        if let Outcome::Success(1..) = outcome {
            tracing::info!(fleet = %self.fleet.name_any(), revision = applied.revision, outcome = ready.message, "settled");
            self.pending = Pending::default();
        }
        if ended_well && condition::is_true(&self.telling.status.conditions, kind::READY) {
            return self.write().await;
        }
        self.tell(ready.status, ready.reason, ready.message).await
    }

    /// Whether what waited may be made now, which wants another look. Asked twice, it is told once.
    pub fn wants_look(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// When the progress deadline is reached, a wave goes on or what was held back is told, if nothing happens until then.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let waves = Waves::new(&self.fleet.spec.waves, &self.fleet.spec.windows);
        let progress = self.carried.as_ref().map(|_| {
            let staged = self.staging.due(waves, &self.telling.status.waves);
            let due = self.pending.due(self.deadline()).into_iter();
            due.chain(staged)
        });
        let due = progress.into_iter().flatten();
        let due = due.chain(self.health.due()).min()?;
        let left = due.duration_since(self.context.clock.now());
        Duration::try_from(left).ok()
    }

    pub(super) fn deadline(&self) -> i64 {
        let seconds = self.fleet.spec.progress_deadline_seconds;
        i64::from(seconds.unwrap_or(DEFAULT_PROGRESS_DEADLINE_SECONDS))
    }

    /// The revision is at fault, or the API: says so, and changes nothing.
    pub(super) async fn refuse(
        &mut self,
        at: &RevisionRef,
        reason: &'static str,
        message: String,
        errors: usize,
    ) -> Result<(), FollowError> {
        self.carried = None;
        if self.failed.as_ref() != Some(&message) {
            tracing::warn!(fleet = %self.fleet.name_any(), revision = %at.revision, reason, "{message}");
            self.failed = Some(message.clone());
        }
        let ours = reason == "ApplyFailed";
        if let Some(wishes) = self.wishes() {
            let state = match ours {
                true => CommitState::Error,
                false => CommitState::Failure,
            };
            wishes
                .want(About::Fleet, &at.revision, state, &message)
                .await?;
        }
        let status = &mut self.telling.status;
        if !ours {
            status.settled = Some(at.clone());
        }
        status.counts.get_or_insert_default().errors = count(errors);
        self.tell(Status::False, reason, message).await
    }

    /// The documents of the revision that was begun last.
    fn documents(&self) -> &BTreeMap<Key, Value> {
        static NONE: BTreeMap<Key, Value> = BTreeMap::new();
        self.begun.as_ref().map_or(&NONE, |begun| &begun.documents)
    }

    /// Tells of single clusters what is news.
    async fn tell_clusters(
        &mut self,
        wishes: &Wishes,
        sha: &str,
        clusters: BTreeMap<ClusterName, Told>,
    ) -> Result<(), FollowError> {
        let forge = self.fleet.spec.forge.as_ref();
        let most = forge.and_then(|forge| forge.cluster_statuses);
        let most = usize::try_from(most.unwrap_or(DEFAULT_CLUSTER_STATUSES)).unwrap_or(0);
        for (cluster, (state, words)) in self.spoken.news(sha, clusters, most) {
            let about = About::Cluster(&cluster);
            wishes.want(about, sha, state, &words).await?;
            self.spoken.said(sha, cluster, (state, words));
        }
        Ok(())
    }

    pub(super) fn wishes(&self) -> Option<Wishes> {
        // A directory has no commits to put a status on.
        self.fleet.spec.source.url.as_ref()?;
        Wishes::of(
            &self.context.client,
            &self.fleet,
            &self.context.installation,
        )
    }

    pub(super) async fn tell(
        &mut self,
        status: Status,
        reason: &'static str,
        message: String,
    ) -> Result<(), FollowError> {
        let ready = Ready {
            status,
            reason,
            message,
        };
        let now = self.context.clock.now();
        self.telling.ready(&self.fleet, ready, now);
        self.write().await
    }

    pub(super) async fn write(&mut self) -> Result<(), FollowError> {
        let client = &self.context.client;
        Ok(self.telling.write(client, &mut self.fleet).await?)
    }
}
