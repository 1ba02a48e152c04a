//! Failures that have something in common across clusters: an image, a commit or a failure domain that breaks a few machines in each
//! cluster trips no cluster's own breaker.
//!
//! [`Tally`] counts the machines of all clusters by what they may have in common as they change, so that an answer costs nothing of all
//! of them. Breakdowns are counted by the second: a window has some hundreds of these, however many machines break within it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use fleetwright_api::{Machine, condition::reason};
use jiff::{SignedDuration, Timestamp};

use super::{Seconds, broken};
use crate::why::short;

/// Machines that break within the window with something in common and stop remediation, in at least two clusters: what breaks in one
/// alone is for its checks, whose limits may be others.
pub(super) const LEAST: usize = 5;
/// Least share of all machines that have it in common, in percent: in a large fleet a few break at any time.
pub(super) const SHARE: usize = 25;
/// The window in seconds.
pub(super) const WINDOW_SECONDS: i64 = 600;

/// A namespace and a name.
type Name = (String, String);

/// What of a machine counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Namespace and name of its Cluster.
    pub cluster: Name,
    /// What it may have in common with machines of other clusters.
    pub traits: Vec<String>,
    /// When it broke, if it is broken.
    pub broke: Option<Timestamp>,
}

impl Sight {
    /// Of a machine, and the commit that it was made for. One that works, though it drifted or somebody asked for its replacement, has
    /// not broken.
    pub fn of(machine: &Machine, commit: Option<&str>) -> Self {
        let status = machine.status.as_ref();
        let mut traits = Vec::new();
        let mut add = |text: String| traits.push(text);
        if let Some(commit) = commit.filter(|c| !c.is_empty()) {
            add(format!("commit {}", short(commit)));
        }
        let shown = status.and_then(|s| s.instance.as_ref());
        if let Some(shown) = shown.filter(|i| !i.image.is_empty()) {
            add(format!("image {}", shown.image));
        }
        let domain = status.and_then(|s| s.failure_domain.as_deref());
        if let Some(domain) = domain.filter(|d| !d.is_empty()) {
            let account = machine.spec.content.provider_config.account();
            add(format!("failure domain {domain} of account {account}"));
        }
        let works = [reason::HAS_REMEDIATE_ANNOTATION, reason::DRIFTED];
        let marked = broken(machine).filter(|c| !works.contains(&c.reason.as_str()));
        Self {
            cluster: (
                machine.metadata.namespace.clone().unwrap_or_default(),
                machine.spec.cluster_name.clone(),
            ),
            traits,
            broke: marked.map(|c| second(c.last_transition_time.0)),
        }
    }
}

fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Machines of several clusters that broke together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WideStorm {
    /// What all of them have in common, such as `image ubuntu-24.04`.
    pub shared: String,
    /// How many.
    pub machines: usize,
    /// Of how many that have it in common.
    pub of: usize,
    /// When too few of them are left in the window, if no other machine breaks.
    pub until: Timestamp,
}

impl fmt::Display for WideStorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of all {} machines of {} broke within {}, in several clusters: replacing them would not help",
            self.machines,
            self.of,
            self.shared,
            Seconds(WINDOW_SECONDS)
        )
    }
}

/// Machines that broke in one second.
#[derive(Debug, Default)]
struct Second {
    machines: usize,
    clusters: BTreeMap<Name, usize>,
}

/// The machines that have something in common.
#[derive(Debug, Default)]
struct Common {
    machines: usize,
    /// Breakdowns within the window; what is before it goes when something changes.
    broke: BTreeMap<Timestamp, Second>,
}

impl Common {
    fn count(&mut self, known: &Known, add: bool) {
        if add {
            self.machines += 1;
        } else {
            self.machines = self.machines.saturating_sub(1);
        }
        let Some((at, cluster)) = &known.broke else {
            return;
        };
        if add {
            let second = self.broke.entry(*at).or_default();
            second.machines += 1;
            *second.clusters.entry(cluster.clone()).or_default() += 1;
        } else if let Some(second) = self.broke.get_mut(at) {
            second.machines -= 1;
            if let Some(n) = second.clusters.get_mut(cluster) {
                *n -= 1;
                if *n == 0 {
                    second.clusters.remove(cluster);
                }
            }
            if second.machines == 0 {
                self.broke.remove(at);
            }
        }
    }

    /// How many broke within the window, and when too few will have.
    fn storm(&self, now: Timestamp) -> Option<(usize, Timestamp)> {
        let need = LEAST.max((self.machines * SHARE).div_ceil(100));
        let (mut machines, mut until, mut several) = (0, None, false);
        let mut first: Option<&Name> = None;
        for (at, second) in self
            .broke
            .iter()
            .rev()
            .take_while(|(at, _)| past(**at) > now)
        {
            machines += second.machines;
            let any = second.clusters.keys().next();
            several |= second.clusters.len() > 1 || first.is_some_and(|f| any != Some(f));
            first = first.or(any);
            if machines >= need && several && until.is_none() {
                until = Some(past(*at));
            }
        }
        until.map(|until| (machines, until))
    }
}

/// When a breakdown is past the window.
fn past(at: Timestamp) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(WINDOW_SECONDS))
        .unwrap_or(Timestamp::MAX)
}

#[derive(Debug)]
struct Known {
    /// Kept once for all machines that have it in common.
    traits: Vec<Arc<str>>,
    /// When it broke, and its Cluster.
    broke: Option<(Timestamp, Name)>,
}

impl Known {
    fn broke(&self) -> Option<Timestamp> {
        self.broke.as_ref().map(|(at, _)| *at)
    }
}

/// The machines of all clusters by what they have in common.
#[derive(Debug, Default)]
pub struct Tally {
    machines: BTreeMap<Name, Known>,
    common: BTreeMap<Arc<str>, Common>,
    /// Broken machines that are gone, with when they are forgotten: a storm that comes slowly is one too.
    gone: BTreeSet<(Timestamp, Name)>,
}

impl Tally {
    /// Takes in what the machine of this name is now; `None` when it is gone. Gives the names of broken machines that are held by a
    /// storm from now on or no longer.
    pub fn put(&mut self, name: &Name, sight: Option<Sight>, now: Timestamp) -> BTreeSet<Name> {
        self.expire(now);
        let old = self.machines.get(name);
        let same = old.zip(sight.as_ref()).is_some_and(|(old, new)| {
            let traits = old.traits.iter().map(AsRef::as_ref);
            let gone = |at| self.gone.contains(&(past(at), name.clone()));
            old.broke() == new.broke
                && !old.broke().is_some_and(gone)
                && traits.eq(new.traits.iter().map(String::as_str))
        });
        if same || (old.is_none() && sight.is_none()) {
            return BTreeSet::new();
        }
        let broke = old.and_then(Known::broke);
        if sight.is_none()
            && let Some(at) = broke.filter(|at| past(*at) > now)
        {
            self.gone.insert((past(at), name.clone()));
            return BTreeSet::new();
        }
        if let Some(at) = broke {
            self.gone.remove(&(past(at), name.clone()));
        }
        let new = sight.map(|sight| self.known(sight));
        let traits = |known: Option<&Known>| known.map_or_else(Vec::new, |k| k.traits.clone());
        let mut touched = traits(self.machines.get(name));
        touched.extend(traits(new.as_ref()));
        let storms = |tally: &Self| -> BTreeSet<Arc<str>> {
            let on = |t: &&Arc<str>| tally.common.get(*t).is_some_and(|c| c.storm(now).is_some());
            touched.iter().filter(on).cloned().collect()
        };
        let before = storms(self);
        self.remove(name);
        if let Some(new) = new {
            for common in &new.traits {
                let common = self.common.entry(Arc::clone(common)).or_default();
                common.count(&new, true);
            }
            self.machines.insert(name.clone(), new);
        }
        let after = storms(self);
        self.forget(&touched, now);
        let turned: Vec<&Arc<str>> = before.symmetric_difference(&after).collect();
        if turned.is_empty() {
            return BTreeSet::new();
        }
        let held = |known: &Known| {
            known.broke.is_some() && turned.iter().any(|t| known.traits.contains(t))
        };
        let held = self.machines.iter().filter(|(_, known)| held(known));
        held.map(|(name, _)| name.clone()).collect()
    }

    /// The storm that the machine of this name is in: the one that most of those took that have the same in common.
    pub fn storm(&self, name: &Name, now: Timestamp) -> Option<WideStorm> {
        let known = self.machines.get(name)?;
        let storms = known.traits.iter().filter_map(|shared| {
            let common = self.common.get(shared)?;
            let (machines, until) = common.storm(now)?;
            Some(WideStorm {
                shared: shared.to_string(),
                machines,
                of: common.machines,
                until,
            })
        });
        storms.reduce(|a, b| {
            if b.machines * a.of > a.machines * b.of {
                b
            } else {
                a
            }
        })
    }

    fn known(&self, sight: Sight) -> Known {
        let shared = |text: String| {
            let known = self.common.get_key_value(text.as_str());
            known.map_or_else(|| Arc::from(text.as_str()), |(known, _)| Arc::clone(known))
        };
        Known {
            traits: sight.traits.into_iter().map(shared).collect(),
            broke: sight.broke.map(|at| (at, sight.cluster)),
        }
    }

    fn remove(&mut self, name: &Name) -> Vec<Arc<str>> {
        let Some(old) = self.machines.remove(name) else {
            return Vec::new();
        };
        for common in &old.traits {
            if let Some(common) = self.common.get_mut(common) {
                common.count(&old, false);
            }
        }
        old.traits
    }

    /// Drops what no machine has, and breakdowns before the window.
    fn forget(&mut self, traits: &[Arc<str>], now: Timestamp) {
        for shared in traits {
            let Some(common) = self.common.get_mut(shared) else {
                continue;
            };
            while let Some(first) = common.broke.first_entry()
                && past(*first.key()) <= now
            {
                first.remove();
            }
            if common.machines == 0 {
                self.common.remove(shared);
            }
        }
    }

    /// Forgets machines that are gone for as long as a storm lasts.
    fn expire(&mut self, now: Timestamp) {
        while let Some((at, name)) = self.gone.first().cloned().filter(|(at, _)| *at <= now) {
            self.gone.remove(&(at, name.clone()));
            let traits = self.remove(&name);
            self.forget(&traits, now);
        }
    }
}
