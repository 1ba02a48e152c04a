//! Plans on pull requests: for each open one, what merging it would do, as a commit status and a comment.
//!
//! A pull request is planned on the merge of its head into its base, when either of them, the Fleet or (every ten minutes) what is
//! live may have moved. Nothing that it holds is trusted: the Fleet's policy is the API's own, its objects stay in a store of their
//! own, and the plan of a fork asks no provider.

mod apply;
mod approval;
mod comments;
mod due;
mod outcome;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fleetwright_api::{
    Fleet,
    commit_status::CommitState,
    fleet::{DEFAULT_PULL_REQUESTS_INTERVAL_SECONDS, ForgeType},
    random::Random,
    time::Clock,
};
use fleetwright_core::catalogue::Catalogue;
use fleetwright_gitops::{
    fleets::{self, Watched, asks},
    foretell::Foretold,
    gather::{GatherError, live_clusters},
    held::{may_hold, on_approval},
    load::dangling,
    read::{Declared, ReadError, Reader, Tree},
    report::markdown,
    source::{AppTokens, Caches, Ends, PullRef},
    wishes::{About, Wishes},
};
use fleetwright_providers::Registry;
use fleetwright_webhook::{
    forge::{Defaults, PostError, Remote},
    pull_requests::{PullRequest, PullRequests},
};
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    apply::{Approvals, Asked},
    approval::Planned,
    comments::{Place, Said},
    due::{At, is_due},
    outcome::{Outcome, mistaken, planned, unmerged},
};
use crate::{
    error::chain,
    images::boot_images,
    metrics,
    repository::{all, missing_images},
};

/// Pull requests of one Fleet that are planned.
const MOST: usize = 200;
/// Longest pause after failures.
const LONGEST: Duration = Duration::from_secs(600);

/// What planning pull requests needs.
pub(crate) struct Pulls {
    pub(crate) client: Client,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) caches: Caches,
    pub(crate) tokens: Option<Arc<dyn AppTokens>>,
    pub(crate) providers: Registry,
    pub(crate) forge: Arc<dyn PullRequests>,
    pub(crate) defaults: Defaults,
    pub(crate) installation: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: metrics::Pulls,
}

/// Why pull requests could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullsError {
    #[error("the forge cannot be asked: {0}")]
    Forge(#[from] PostError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error("the API cannot be read or written: {0}")]
    Api(Box<kube::Error>),
}

impl From<kube::Error> for PullsError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl PullsError {
    /// How long the forge wants to be left alone.
    fn patience(&self) -> Option<Duration> {
        match self {
            Self::Forge(PostError::RateLimited { after } | PostError::Held { after }) => {
                Some(*after)
            }
            _ => None,
        }
    }
}

/// What is known of a Fleet's pull requests between looks.
pub(crate) struct State {
    /// Reads what the Fleet follows.
    followed: Reader,
    /// Reads pull requests.
    reader: Reader,
    planned: BTreeMap<Proposed, At>,
    said: Said,
    approvals: Approvals,
}

/// What is planned: a pull request, by its number, or an entry of the merge queue, by its ref.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Proposed {
    Pull(u64),
    Queued(String),
}

/// What of a proposal the forge says.
struct Proposal {
    what: Proposed,
    reference: PullRef,
    from_fork: bool,
}

impl Pulls {
    /// Plans the pull requests of all Fleets that ask for it, until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let client = self.client.clone();
        let this = Arc::new(self);
        fleets::each(client, stop, |watched| Arc::clone(&this).follow(watched)).await;
    }

    /// Nothing is known yet.
    fn state(&self) -> State {
        let reader = || {
            let catalogue = Arc::clone(&self.catalogue);
            Reader::new(self.client.clone(), catalogue, self.caches.clone())
                .with_tokens(self.tokens.clone())
        };
        State {
            followed: reader(),
            reader: reader(),
            planned: BTreeMap::new(),
            said: Said::default(),
            approvals: Approvals::default(),
        }
    }

    async fn follow(self: Arc<Self>, watched: Watched) {
        let Watched {
            fleet: mut fleets,
            stop,
            ..
        } = watched;
        let mut state = self.state();
        let mut look_at = Instant::now();
        let mut failures = 0u32;
        let mut seen = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = fleets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if seen != Some(asks(&fleets.borrow_and_update())) {
                        look_at = Instant::now();
                    }
                }
                () = tokio::time::sleep_until(look_at) => {
                    let fleet = fleets.borrow_and_update().clone();
                    seen = Some(asks(&fleet));
                    let mut patience = None;
                    failures = match self.look(&fleet, &mut state).await {
                        Ok(()) => 0,
                        Err(error) => {
                            let message = chain(&error);
                            tracing::warn!(fleet = %fleet.name_any(), %message, "cannot plan pull requests");
                            patience = error.patience();
                            failures.saturating_add(1)
                        }
                    };
                    look_at = Instant::now() + self.pause(&fleet, failures, patience);
                }
            }
        }
    }

    /// What the forge asks for and up to a fifth more; else the interval, give or take a tenth, or a growing pause after failures.
    fn pause(&self, fleet: &Fleet, failures: u32, patience: Option<Duration>) -> Duration {
        let wished = fleet.spec.pull_requests.as_ref();
        let seconds = wished.and_then(|p| p.interval_seconds);
        let seconds = seconds.unwrap_or(DEFAULT_PULL_REQUESTS_INTERVAL_SECONDS);
        let interval = Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1));
        let base = interval.saturating_mul(1 << failures.min(8));
        let mut byte = [0u8; 1];
        self.random.fill(&mut byte);
        let chance = 0.2 * f64::from(byte[0]) / 255.0;
        match patience {
            Some(patience) => patience.mul_f64(1.0 + chance),
            None => base.min(LONGEST.max(interval)).mul_f64(0.9 + chance),
        }
    }

    /// Looks at the pull requests of a Fleet once.
    async fn look(&self, fleet: &Fleet, state: &mut State) -> Result<(), PullsError> {
        if !may_hold(fleet) {
            let known = (&mut state.followed, &mut state.approvals);
            self.release(None, fleet, known).await?;
        }
        let wishes = Wishes::of(&self.client, fleet, &self.installation);
        let (Some(forge), Some(wishes)) = (&fleet.spec.forge, wishes) else {
            return Ok(());
        };
        let wished = fleet.spec.pull_requests.as_ref().is_some_and(|p| p.plan);
        let wished = wished && fleet.spec.source.url.is_some();
        let reference = fleet.spec.source.reference.as_ref();
        let branch = reference.and_then(|r| r.branch.as_deref());
        let Some(branch) = branch.filter(|_| wished) else {
            return self.end(fleet, &wishes, state).await;
        };
        state.said.ended = false;
        let now = self.clock.now();
        let at = (forge.kind, forge.repository.as_str());
        let remote = Remote::of(&self.client, Some(fleet), at, &self.defaults).await?;
        let open = self.forge.list_open(&remote, now).await?;
        let there = open.pull_requests.into_iter().filter(|pull| pull.open);
        let (all, others): (Vec<PullRequest>, Vec<_>) =
            there.partition(|pull| pull.base_ref == branch);
        let all: Vec<PullRequest> = all.into_iter().take(MOST).collect();
        let of = |pull: &PullRequest| Proposal {
            what: Proposed::Pull(pull.number),
            reference: PullRef::of(forge.kind, pull.number, branch),
            from_fork: pull.from_fork,
        };
        let mut proposals: Vec<Proposal> = all.iter().map(of).collect();
        if forge.kind == ForgeType::Github {
            let queue = state.reader.queue(fleet, branch.to_owned(), now).await?;
            // Who may merge has let them in.
            proposals.extend(queue.into_iter().map(|reference| Proposal {
                what: Proposed::Queued(reference.head.clone()),
                reference,
                from_fork: false,
            }));
        }
        let there: BTreeSet<&Proposed> = proposals.iter().map(|p| &p.what).collect();
        if open.complete {
            state.planned.retain(|what, _| there.contains(what));
            let numbers = all.iter().chain(&others).map(|pull| pull.number);
            state.said.retain(&numbers.collect());
        }
        let place = Place {
            wishes: &wishes,
            remote: &remote,
        };
        let (mut commands, mut failed) = (BTreeMap::new(), None);
        if on_approval(fleet) {
            let at = Some((place, branch, all.as_slice()));
            let known = (&mut state.followed, &mut state.approvals);
            self.release(at, fleet, known).await?;
            let approvals = &mut state.approvals;
            (commands, failed) = self.commands(place, fleet, &all, approvals).await?;
        }
        let mut plans: BTreeMap<u64, (Ends, Planned)> = BTreeMap::new();
        let refs = proposals.iter().map(|p| p.reference.clone()).collect();
        let ends = state.reader.pulls(fleet, refs, now).await?;
        let mut heads: BTreeSet<String> = all.iter().map(|pull| pull.head_sha.clone()).collect();
        let mut followed = None;
        for (proposal, ends) in proposals.iter().zip(ends) {
            let what = &proposal.what;
            let ends = match ends {
                Ok(ends) => ends,
                Err(error) => {
                    tracing::info!(fleet = %fleet.name_any(), ?what, %error, "not there yet");
                    continue;
                }
            };
            let sha = ends.head.clone();
            let mut at = At {
                ends,
                generation: fleet.metadata.generation,
                held: fleet.status.as_ref().and_then(|s| s.held.clone()),
                when: now,
            };
            heads.insert(sha.clone());
            let before = state.planned.get(what);
            let asked = matches!(what, Proposed::Pull(number) if commands.contains_key(number));
            if !asked && !is_due(before, &at) {
                continue;
            }
            if before.is_none_or(|before| before.ends.head != sha) {
                wishes
                    .want(About::Plan, &sha, CommitState::Pending, "planning")
                    .await?;
            }
            if followed.is_none() {
                followed = Some(self.followed(fleet, state).await);
            }
            let known = followed.as_ref().and_then(Option::as_deref);
            let begun = Instant::now();
            let outcome = self.plan(fleet, (proposal, &at.ends), known, state).await;
            let result = outcome.as_ref().map_or("error", |o| o.state.as_str());
            self.metrics.planned(result, begun.elapsed());
            let outcome = outcome?;
            wishes
                .want(About::Plan, &sha, outcome.state, &outcome.words)
                .await?;
            if let Proposed::Pull(number) = *what {
                plans.insert(number, (at.ends.clone(), outcome.planned.clone()));
                if let Err(error) = self.say(place, number, outcome, &mut state.said).await {
                    // A conversation that is locked must not hold up the others; this one is due again with the next look.
                    at.when = Timestamp::UNIX_EPOCH;
                    failed.get_or_insert(error);
                }
            }
            state.planned.insert(what.clone(), at);
        }
        let approvals = &mut state.approvals;
        for (number, commands) in commands {
            let asked = Asked {
                number,
                commands,
                planned: plans.get(&number),
            };
            if let Err(error) = self.judge(place, fleet, asked, approvals).await {
                failed.get_or_insert(error);
            }
        }
        if let Err(error) = self.answer(place, &all, approvals).await {
            failed.get_or_insert(error);
        }
        if open.complete {
            wishes.supersede_plans(&heads).await?;
        }
        let left = self.leave(place, fleet, &others, &mut state.said).await;
        failed.map_or(left, Err)
    }

    /// What the Fleet follows now: what differs from it is what a pull request changes.
    async fn followed(&self, fleet: &Fleet, state: &mut State) -> Option<Arc<Declared>> {
        let allow = fleet.spec.allow.clone().unwrap_or_default();
        let found = state.followed.find(fleet, self.clock.now()).await.ok()?;
        let declared = state
            .followed
            .declared(found.tree.ok()?, &allow)
            .await
            .ok()?;
        declared.errors.is_empty().then_some(declared)
    }

    async fn plan(
        &self,
        fleet: &Fleet,
        (proposal, ends): (&Proposal, &Ends),
        followed: Option<&Declared>,
        state: &mut State,
    ) -> Result<Outcome, PullsError> {
        let reference = proposal.reference.clone();
        let now = self.clock.now();
        let merged = state.reader.merged(fleet, reference, ends.clone(), now);
        let merged = merged.await?;
        let namespace = fleet.namespace().unwrap_or_default();
        let name = format!("{namespace}/{}", fleet.name_any());
        let Ends { base, head } = ends;
        let of = markdown::Planned {
            fleet: &name,
            branch: &proposal.reference.base,
            base,
            head,
        };
        tracing::info!(fleet = name, what = ?proposal.what, head, base, "planning");
        let snapshot = match merged.files {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(unmerged(of, &error)),
        };
        let tree = snapshot.tree.clone();
        let allow = fleet.spec.allow.clone().unwrap_or_default();
        let files = Tree::Merged(Arc::new(snapshot), merged.filter);
        let declared = state.reader.declared(files.clone(), &allow).await?;
        let mut errors = declared.errors.clone();
        if !declared.outside.is_empty() {
            let live = live_clusters(&self.client).await?;
            errors.extend(dangling(&declared.outside, &live));
        }
        if !errors.is_empty() {
            return Ok(mistaken(of, &errors));
        }
        let now = self.clock.now();
        let catalogue = &self.catalogue;
        let foretold = Foretold::of(&self.client, fleet, &declared, followed, catalogue, now);
        let mut foretold = foretold.await?;
        // What a fork says is not sent anywhere.
        if !proposal.from_fork {
            let (client, providers) = (&self.client, &self.providers);
            let missing = missing_images(client, providers, &all(&foretold.images)).await?;
            let from = (&mut state.reader, files, &*declared);
            foretold.lacks(missing, from, catalogue, now).await?;
            let told = boot_images(client, providers, &all(&foretold.images)).await;
            foretold.boots_from(&told);
        }
        let digest = foretold.plan.digest(&tree, &foretold.policy);
        let ask =
            may_hold(fleet) && !proposal.from_fork && matches!(proposal.what, Proposed::Pull(_));
        Ok(planned(of, &foretold.plan, (&digest, &tree), ask))
    }
}
