//! The outbox: posts what CommitStatus objects want, until the forge has it.
//!
//! The object is durable and holds only the newest wish, so nothing is lost through a crash and an older
//! wish never overtakes a newer one. A post may be repeated, never forgotten.

mod decide;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use fleetwright_api::{
    CommitStatus, Fleet,
    commit_status::{CommitStatusSpec, StatusContent},
    condition::{self, Status},
    random::Random,
    time::{Clock, k8s_time},
};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub use decide::{Decision, POSTED, decide};

use crate::{
    forge::{Defaults, Destination, Forge, PostError, Remote},
    metrics::Metrics,
};

/// Posts under way at the same time, and notes; GitHub allows 100 over all endpoints.
const IN_FLIGHT: usize = 8;
const FIELD_MANAGER: &str = "fleetwright-outbox";

/// What takes states as notes in Git.
#[async_trait]
pub trait Notes: Send + Sync + 'static {
    /// Writes one state into the repository that a Fleet follows. Several that wait may be written at once.
    ///
    /// # Errors
    /// See [`PostError`]; the note may have been written all the same.
    async fn write(
        &self,
        fleet: &Fleet,
        status: &CommitStatusSpec,
        now: Timestamp,
    ) -> Result<(), PostError>;
}

/// The outbox of one engine.
pub struct Outbox {
    client: Client,
    forge: Arc<dyn Forge>,
    notes: Option<Arc<dyn Notes>>,
    defaults: Defaults,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Metrics,
}

type Key = (String, String);

/// What is known of one object beside the object itself.
#[derive(Default)]
struct Entry {
    object: Option<CommitStatus>,
    in_flight: bool,
    not_before: Option<Timestamp>,
    /// Observation that the forge took last and its content, also while our record of it is on its way back.
    posted: Option<(i64, StatusContent)>,
    /// Not yet in the list that is being read.
    unlisted: bool,
}

struct Posted {
    key: Key,
    observation: i64,
    content: StatusContent,
    result: Result<(), PostError>,
    tries: i32,
}

impl Outbox {
    /// An outbox over `client` that posts to `forge`.
    pub fn new(
        client: Client,
        forge: Arc<dyn Forge>,
        defaults: Defaults,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            forge,
            notes: None,
            defaults,
            clock,
            random,
            metrics,
        }
    }

    /// Writes notes by `notes`.
    #[must_use]
    pub fn with_notes(mut self, notes: Arc<dyn Notes>) -> Self {
        self.notes = Some(notes);
        self
    }

    /// Runs until `token` is cancelled; a post under way is then cut off and repeated by the next run.
    pub async fn run(self, token: CancellationToken) {
        let this = Arc::new(self);
        let statuses = Api::<CommitStatus>::all(this.client.clone());
        let mut events = watcher::watcher(statuses, watcher::Config::default()).boxed();
        let mut entries: BTreeMap<Key, Entry> = BTreeMap::new();
        let mut posts: JoinSet<Posted> = JoinSet::new();
        loop {
            let next = this.start_due(&mut entries, &mut posts);
            let nap = next.map(|at| {
                let wait = at
                    .duration_since(this.clock.now())
                    .max(SignedDuration::from_millis(1));
                Duration::try_from(wait).unwrap_or(Duration::from_millis(1))
            });
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                Some(done) = posts.join_next() => match done {
                    Ok(posted) => this.finish(&mut entries, posted),
                    Err(error) => tracing::error!(%error, "a post ended badly"),
                },
                Some(event) = events.next() => match event {
                    Ok(event) => observe(&mut entries, event),
                    Err(error) => {
                        tracing::warn!(%error, "cannot watch commit statuses");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
                () = tokio::time::sleep(nap.unwrap_or(Duration::MAX)), if nap.is_some() => {}
            }
        }
    }

    /// Starts what is due; gives the time when the next thing is.
    fn start_due(
        self: &Arc<Self>,
        entries: &mut BTreeMap<Key, Entry>,
        posts: &mut JoinSet<Posted>,
    ) -> Option<Timestamp> {
        let now = self.clock.now();
        let mut next = None;
        // A remote that does not answer holds up no forge, and the other way round.
        let under_way = entries.values().filter(|e| e.in_flight);
        let under_way = under_way.filter_map(|e| e.object.as_ref());
        let (notes, posted): (Vec<bool>, Vec<bool>) =
            under_way.map(|o| o.spec.note).partition(|note| *note);
        let (mut notes, mut posted) = (notes.len(), posted.len());
        let mut waiting = notes + posted;
        for (key, entry) in entries.iter_mut().filter(|(_, e)| !e.in_flight) {
            let Some(object) = &entry.object else {
                continue;
            };
            let is_posted = entry.posted.as_ref().is_some_and(|(observation, content)| {
                *observation == object.spec.observation && *content == object.spec.wanted
            });
            if is_posted || decide(object, now) != Decision::Post {
                continue;
            }
            waiting += 1;
            if let Some(at) = entry.not_before.filter(|at| *at > now) {
                next = Some(next.map_or(at, |n: Timestamp| n.min(at)));
                continue;
            }
            let count = match object.spec.note {
                true => &mut notes,
                false => &mut posted,
            };
            if *count >= IN_FLIGHT {
                continue; // the end of one of them brings us back here
            }
            *count += 1;
            entry.in_flight = true;
            let (this, key, object) = (Arc::clone(self), key.clone(), object.clone());
            posts.spawn(async move {
                let tries = object.status.as_ref().map_or(0, |s| s.tries);
                let (observation, content) = (object.spec.observation, object.spec.wanted.clone());
                let begun = Instant::now();
                let result = this.post(&object).await;
                let tries = match &result {
                    // Nothing was tried.
                    Err(PostError::Held { .. }) => tries,
                    _ => {
                        let word = result.as_ref().err().map_or("Ok", decide::reason);
                        let took = begun.elapsed();
                        this.metrics.posted(object.spec.forge, word, took);
                        this.record(&object, &result, tries).await
                    }
                };
                Posted {
                    key,
                    observation,
                    content,
                    result,
                    tries,
                }
            });
        }
        self.metrics.wait(waiting);
        next
    }

    fn finish(&self, entries: &mut BTreeMap<Key, Entry>, posted: Posted) {
        let Some(entry) = entries.get_mut(&posted.key) else {
            return;
        };
        entry.in_flight = false;
        match posted.result {
            Ok(()) => {
                entry.posted = Some((posted.observation, posted.content));
                entry.not_before = None;
            }
            Err(error) => {
                // A wish that came while this one was tried does not wait for its back-off.
                let wanted = entry.object.as_ref().map(|o| &o.spec.wanted);
                if wanted.is_none_or(|wanted| *wanted == posted.content) {
                    let wait = decide::back_off(&error, posted.tries, self.random.next_u64());
                    let wait =
                        SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_secs(60));
                    entry.not_before = self.clock.now().checked_add(wait).ok();
                }
                entry.posted = None;
                #[cfg(feature = "seeded-bugs")]
                if fleetwright_api::bugs::on("end-forge-not-asked-again") {
                    entry.posted = Some((posted.observation, posted.content));
                }
                match error {
                    PostError::Held { .. } => {
                        tracing::debug!(status = %posted.key.1, %error, "a commit status waits");
                    }
                    _ => {
                        tracing::warn!(status = %posted.key.1, %error, "cannot post a commit status");
                    }
                }
            }
        }
        if entry.object.is_none() {
            entries.remove(&posted.key);
        }
    }

    async fn post(&self, object: &CommitStatus) -> Result<(), PostError> {
        let namespace = object.namespace().unwrap_or_default();
        let spec = &object.spec;
        let fleet = Api::<Fleet>::namespaced(self.client.clone(), &namespace)
            .get_opt(&spec.fleet)
            .await
            .map_err(|e| PostError::Passing(format!("cannot read the Fleet: {e}")))?;
        if spec.note {
            return self.write_note(fleet.as_ref(), spec).await;
        }
        let repository = (spec.forge, spec.repository.as_str());
        let remote = Remote::of(&self.client, fleet.as_ref(), repository, &self.defaults).await?;
        let destination = Destination {
            remote: &remote,
            sha: &spec.sha,
            context: &spec.context,
            reference: spec.reference.as_deref(),
        };
        self.forge
            .post(&destination, &spec.wanted, self.clock.now())
            .await
    }

    async fn write_note(
        &self,
        fleet: Option<&Fleet>,
        spec: &CommitStatusSpec,
    ) -> Result<(), PostError> {
        let source = fleet.map(|fleet| (fleet, &fleet.spec.source));
        let same = source.filter(|(_, source)| source.url.as_ref() == Some(&spec.repository));
        let (Some((fleet, _)), Some(notes)) = (same.filter(|(_, s)| s.notes), &self.notes) else {
            let words = "the Fleet follows another repository by now, or wants no notes of it";
            return Err(PostError::Configuration(words.into()));
        };
        notes.write(fleet, spec, self.clock.now()).await
    }

    /// Writes what became of a try into the object's status; gives the failed tries so far.
    async fn record(
        &self,
        object: &CommitStatus,
        result: &Result<(), PostError>,
        tries: i32,
    ) -> i32 {
        let now = self.clock.now();
        let mut conditions = object
            .status
            .as_ref()
            .map(|s| s.conditions.clone())
            .unwrap_or_default();
        let generation = object.metadata.generation;
        let (tries, patch) = match result {
            Ok(()) => {
                condition::set(
                    &mut conditions,
                    POSTED,
                    Status::True,
                    POSTED,
                    "",
                    generation,
                    now,
                );
                (
                    0,
                    json!({
                        "posted": object.spec.wanted,
                        "postedObservation": object.spec.observation,
                        "postedAt": k8s_time(now),
                        "tries": 0,
                        "conditions": conditions,
                    }),
                )
            }
            Err(error) => {
                let reason = decide::reason(error);
                condition::set(
                    &mut conditions,
                    POSTED,
                    Status::False,
                    reason,
                    error.to_string(),
                    generation,
                    now,
                );
                let tries = tries.saturating_add(1);
                (tries, json!({"tries": tries, "conditions": conditions}))
            }
        };
        let api = Api::<CommitStatus>::namespaced(
            self.client.clone(),
            &object.namespace().unwrap_or_default(),
        );
        let patch = Patch::Merge(json!({"status": patch}));
        if let Err(error) = api
            .patch_status(
                &object.name_any(),
                &PatchParams::apply(FIELD_MANAGER),
                &patch,
            )
            .await
        {
            // The wish stays, so the post is repeated: said twice is better than never.
            tracing::warn!(status = %object.name_any(), %error, "cannot record a posted commit status");
        }
        tries
    }
}

fn observe(entries: &mut BTreeMap<Key, Entry>, event: watcher::Event<CommitStatus>) {
    let key = |o: &CommitStatus| (o.namespace().unwrap_or_default(), o.name_any());
    match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let entry = entries.entry(key(&object)).or_default();
            let wanted = |o: &CommitStatus| o.spec.wanted.clone();
            if entry.object.as_ref().map(wanted) != Some(wanted(&object)) {
                entry.not_before = None; // a new wish does not wait for an old one's back-off
            }
            let recorded = object.status.as_ref();
            let recorded = recorded.and_then(|s| Some((s.posted_observation?, s.posted.clone()?)));
            // A record that got lost says less than is known.
            let newer = |(observation, _): &(i64, StatusContent)| {
                let known = entry.posted.as_ref().map(|(known, _)| *known);
                known.is_none_or(|known| known <= *observation)
            };
            if let Some(recorded) = recorded.filter(newer)
                && !entry.in_flight
            {
                entry.posted = Some(recorded);
            }
            entry.object = Some(object);
            entry.unlisted = false;
        }
        watcher::Event::Delete(object) => {
            if let Some(entry) = entries.get_mut(&key(&object)) {
                entry.object = None;
                if !entry.in_flight {
                    entries.remove(&key(&object));
                }
            }
        }
        // Of a deletion between two watches only the list tells.
        watcher::Event::Init => entries.values_mut().for_each(|e| e.unlisted = true),
        watcher::Event::InitDone => {
            for entry in entries.values_mut().filter(|e| e.unlisted) {
                entry.object = None;
            }
            entries.retain(|_, e| e.object.is_some() || e.in_flight);
        }
    }
}
