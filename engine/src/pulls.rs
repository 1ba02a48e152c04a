//! Plans on pull requests: for each open one, what merging it would do, as a commit status and a comment.
//!
//! A pull request is planned on the merge of its head into its base, when either of them, the Fleet or (every ten minutes) what is
//! live may have moved. Nothing that it holds is trusted: the Fleet's policy is the API's own, its objects stay in a store of their
//! own, and the plan of a fork asks no provider.

mod due;

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
use fleetwright_core::{catalogue::Catalogue, plan::Plan};
use fleetwright_gitops::{
    fleets::{self, Watched, asks},
    foretell::Foretold,
    gather::{GatherError, live_clusters},
    load::{LoadError, dangling},
    read::{Declared, ReadError, Reader, Tree},
    report::{self, markdown},
    source::{AppTokens, Caches, Ends, PullRef, SourceError},
    wishes::{About, Wishes},
};
use fleetwright_providers::Provider;
use fleetwright_webhook::{
    forge::{Defaults, PostError, Remote},
    pull_requests::{Comment, PullRequest, PullRequests, StoredComment},
};
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::due::{At, is_due};
use crate::{error::chain, metrics, repository::missing_images};

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
    pub(crate) provider: Arc<dyn Provider>,
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

/// What is known of a Fleet's pull requests between looks.
pub(crate) struct State {
    /// Reads what the Fleet follows.
    followed: Reader,
    /// Reads pull requests.
    reader: Reader,
    planned: BTreeMap<Proposed, At>,
    comments: BTreeMap<u64, StoredComment>,
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

/// What a pull request's plan came to.
struct Outcome {
    state: CommitState,
    words: String,
    /// What is to be said of it; nothing where there is nothing to say.
    comment: Option<String>,
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
            comments: BTreeMap::new(),
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
                    failures = match self.look(&fleet, &mut state).await {
                        Ok(()) => 0,
                        Err(error) => {
                            let message = chain(&error);
                            tracing::warn!(fleet = %fleet.name_any(), %message, "cannot plan pull requests");
                            failures.saturating_add(1)
                        }
                    };
                    look_at = Instant::now() + self.pause(&fleet, failures);
                }
            }
        }
    }

    /// The interval, give or take a tenth, or a growing pause after failures.
    fn pause(&self, fleet: &Fleet, failures: u32) -> Duration {
        let wished = fleet.spec.pull_requests.as_ref();
        let seconds = wished.and_then(|p| p.interval_seconds);
        let seconds = seconds.unwrap_or(DEFAULT_PULL_REQUESTS_INTERVAL_SECONDS);
        let interval = Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1));
        let base = interval.saturating_mul(1 << failures.min(8));
        let mut byte = [0u8; 1];
        self.random.fill(&mut byte);
        base.min(LONGEST.max(interval))
            .mul_f64(0.9 + 0.2 * f64::from(byte[0]) / 255.0)
    }

    /// Looks at the pull requests of a Fleet once.
    async fn look(&self, fleet: &Fleet, state: &mut State) -> Result<(), PullsError> {
        let wished = fleet.spec.pull_requests.as_ref().is_some_and(|p| p.plan);
        let reference = fleet.spec.source.reference.as_ref();
        let (Some(forge), Some(branch), Some(wishes), true) = (
            &fleet.spec.forge,
            reference.and_then(|r| r.branch.as_deref()),
            Wishes::of(&self.client, fleet, &self.installation),
            wished && fleet.spec.source.url.is_some(),
        ) else {
            return Ok(());
        };
        let now = self.clock.now();
        let at = (forge.kind, forge.repository.as_str());
        let remote = Remote::of(&self.client, Some(fleet), at, &self.defaults).await?;
        let open = self.forge.list_open(&remote, now).await?;
        let into = |pull: &PullRequest| pull.open && pull.base_ref == branch;
        let all = open.pull_requests.into_iter().filter(into);
        let all: Vec<PullRequest> = all.take(MOST).collect();
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
            let numbers: BTreeSet<u64> = all.iter().map(|pull| pull.number).collect();
            state.comments.retain(|number, _| numbers.contains(number));
        }
        let refs = proposals.iter().map(|p| p.reference.clone()).collect();
        let ends = state.reader.pulls(fleet, refs, now).await?;
        let mut heads: BTreeSet<String> = all.iter().map(|pull| pull.head_sha.clone()).collect();
        let (mut followed, mut failed) = (None, None);
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
                when: now,
            };
            heads.insert(sha.clone());
            let before = state.planned.get(what);
            if !is_due(before, &at) {
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
            let outcome = self.plan(fleet, proposal, known, state).await;
            let result = outcome.as_ref().map_or("error", |o| o.state.as_str());
            self.metrics.planned(result, begun.elapsed());
            let outcome = outcome?;
            wishes
                .want(About::Plan, &sha, outcome.state, &outcome.words)
                .await?;
            if let Proposed::Pull(number) = what
                && let Err(error) = self
                    .comment(&wishes, &remote, *number, outcome, state)
                    .await
            {
                // A conversation that is locked must not hold up the others; this one is due again with the next look.
                at.when = Timestamp::UNIX_EPOCH;
                failed.get_or_insert(error);
            }
            state.planned.insert(what.clone(), at);
        }
        if open.complete {
            wishes.supersede_plans(&heads).await?;
        }
        failed.map_or(Ok(()), Err)
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
        proposal: &Proposal,
        followed: Option<&Declared>,
        state: &mut State,
    ) -> Result<Outcome, PullsError> {
        let reference = proposal.reference.clone();
        let now = self.clock.now();
        let merged = state.reader.merged(fleet, reference, now).await?;
        let namespace = fleet.namespace().unwrap_or_default();
        let name = format!("{namespace}/{}", fleet.name_any());
        let Ends { base, head } = &merged.ends;
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
        let declared = state
            .reader
            .declared(Tree::Directory(snapshot), &allow)
            .await?;
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
            let provider = self.provider.as_ref();
            let missing = missing_images(&self.client, provider, &foretold.images).await?;
            foretold.lacks(missing, catalogue, now);
        }
        let digest = foretold.plan.digest(&tree, &foretold.policy);
        Ok(planned(of, &foretold.plan, &digest))
    }

    async fn comment(
        &self,
        wishes: &Wishes,
        remote: &Remote,
        number: u64,
        outcome: Outcome,
        state: &mut State,
    ) -> Result<(), PullsError> {
        let known = state.comments.get(&number);
        // One that said something says so no longer.
        let body = outcome
            .comment
            .or_else(|| known.map(|_| outcome.words.clone()));
        let Some(body) = body else {
            return Ok(());
        };
        let context = wishes.context(About::Plan);
        let comment = Comment {
            context: &context,
            body: &body,
            known,
        };
        let now = self.clock.now();
        let stored = self
            .forge
            .upsert_comment(remote, number, &comment, now)
            .await?;
        state.comments.insert(number, stored);
        Ok(())
    }
}

fn unmerged(of: markdown::Planned<'_>, error: &SourceError) -> Outcome {
    let words = chain(error);
    Outcome {
        state: CommitState::Failure,
        comment: Some(markdown::failure(of, "It cannot be planned", &words)),
        words,
    }
}

fn mistaken(of: markdown::Planned<'_>, errors: &[LoadError]) -> Outcome {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let (title, first) = match lines.as_slice() {
        [one] => ("1 mistake".to_owned(), one.clone()),
        many => {
            let title = format!("{} mistakes", many.len());
            let first = many.first().map(String::as_str).unwrap_or_default();
            let words = format!("{title}, the first: {first}");
            (title, words)
        }
    };
    Outcome {
        state: CommitState::Failure,
        comment: Some(markdown::failure(of, &title, &lines.join("\n"))),
        words: first,
    }
}

fn planned(of: markdown::Planned<'_>, plan: &Plan, digest: &str) -> Outcome {
    let refused = !plan.refused.is_empty();
    Outcome {
        state: match refused {
            true => CommitState::Failure,
            false => CommitState::Success,
        },
        words: report::summary(plan),
        comment: (!plan.is_empty()).then(|| markdown::plan(of, plan, digest)),
    }
}
