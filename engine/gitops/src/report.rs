//! A plan as people read it: field diffs, then what becomes of the machines, step by step.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use fleetwright_api::meta::fleet_of;
use fleetwright_core::plan::{
    BootImage, Change, History, HistoryOf, Key, Mistake, Plan, PlanBlocker, PlanEffect,
    PlannedWave, Removal, Removed, Rollout, Step,
};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::annotate::paths;

pub mod document;
pub mod markdown;

/// Steps of one rollout that are written out; the rest is counted.
const STEPS: usize = 24;
/// Names of machines in one line.
const NAMES: usize = 8;
/// Lines around a difference.
const CONTEXT: usize = 2;

/// The plan as text. Lines begin with `+`, `-`, `~`, `=` or `!` where something is created, deleted, changed,
/// left to others, or refused.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let mut out = differences(plan);
    let parts = [rollouts(plan), blockers(plan)].concat();
    if !parts.is_empty() {
        let _ = write!(out, "\n{parts}\n");
    }
    put(&mut out, &summary(plan));
    out
}

/// The objects that a plan creates, changes, deletes, leaves and refuses, each with what differs.
fn differences(plan: &Plan) -> String {
    let mut out = String::new();
    for change in &plan.creates {
        line(&mut out, '+', change);
        for kept in &change.handover {
            let path = kept.path.join(".");
            put(&mut out, &format!("    {path}: starts at {}", kept.value));
        }
    }
    for change in &plan.changes {
        line(&mut out, '~', change);
        put(&mut out, diff(change).trim_end());
        notes(&mut out, change);
    }
    for change in &plan.deletes {
        line(&mut out, '-', change);
        if let PlanEffect::Removal { steps } = &change.effect {
            for (at, step) in steps.iter().enumerate() {
                put(&mut out, &format!("    {:>4}. {}", at + 1, removal(step)));
            }
        }
    }
    for drift in &plan.drift {
        put(&mut out, &format!("= {drift} and stays"));
    }
    for refusal in &plan.refused {
        put(&mut out, &format!("! {}: {}", refusal.key, refusal.reason));
    }
    out
}

/// In which order the changes are made, and what becomes of machines.
fn rollouts(plan: &Plan) -> String {
    let mut out = String::new();
    if !plan.waves.is_empty() {
        put(&mut out, "In this order:");
        for wave in &plan.waves {
            put(&mut out, &format!("  {}", planned(wave)));
        }
    }
    if !plan.rollouts.is_empty() {
        put(&mut out, "Machines, if nothing else happens:");
        for rollout in &plan.rollouts {
            write_rollout(&mut out, rollout);
        }
    }
    if let Some(seconds) = plan.expected_seconds {
        let text = format!(
            "All of it takes about {}, drains not counted.",
            duration(seconds)
        );
        put(&mut out, &text);
    }
    out
}

/// What stands in the way of a plan, a line each.
fn blockers(plan: &Plan) -> String {
    let mut out = String::new();
    if !plan.blockers.is_empty() {
        put(&mut out, "In the way:");
        for blocker in &plan.blockers {
            put(&mut out, &format!("  {}", obstacle(blocker)));
        }
    }
    out
}

fn obstacle(blocker: &PlanBlocker) -> String {
    let PlanBlocker {
        kind,
        object,
        reason,
        mistake,
        ..
    } = blocker;
    let place = mistake.as_ref().and_then(|mistake| mistake.place.as_ref());
    let place = place.map_or_else(String::new, |place| format!(" ({place})"));
    match object {
        Some(key) => format!("{kind}: {}{place}: {reason}", owner(key)),
        None => format!("{kind}{place}: {reason}"),
    }
}

/// What of the repository cannot be had, a line each: such a plan comes to its end only when the files change, or there is what they ask for.
#[must_use]
pub fn mistakes(plan: &Plan) -> Vec<String> {
    let line = |blocker: &PlanBlocker| {
        let mistake = blocker.mistake.as_ref()?;
        let Mistake { object, field, .. } = mistake;
        let what = format!("{}: {field}: {}", owner(object), blocker.reason);
        Some(match &mistake.place {
            Some(place) => format!("{place}: {what}"),
            None => what,
        })
    };
    plan.blockers.iter().filter_map(line).collect()
}

fn removal(step: &Removal) -> String {
    let machines = match step.machines.len() {
        0 => String::new(),
        n => format!(", {}: {}", count(n), few(&step.machines)),
    };
    let nodes: i32 = step.nodes.values().sum();
    let machines = match nodes {
        0 => machines,
        nodes => format!("{machines}, and {nodes} nodes that the provider runs"),
    };
    match step.what {
        Removed::Workers => format!("delete workers{machines}"),
        Removed::ControlPlane => format!("delete the control plane, all at once{machines}"),
        Removed::Cluster => "delete the Cluster, and what is kept for it".to_owned(),
    }
}

/// Seconds as people say them.
fn duration(seconds: i64) -> String {
    let minutes = (seconds + 30) / 60;
    match (minutes / 60, minutes % 60) {
        _ if seconds < 120 => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// The plan in one line.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    if plan.is_empty() {
        return "No changes.".to_owned();
    }
    let (made, gone) = machines(plan);
    format!(
        "Plan: {} to create, {} to change, {} to delete, {} refused; {} made, {gone} deleted.",
        plan.creates.len(),
        plan.changes.len(),
        plan.deletes.len(),
        plan.refused.len(),
        count(made),
    )
}

/// How many machines are made, and how many are deleted.
fn machines(plan: &Plan) -> (usize, usize) {
    let counts = plan.rollouts.iter().map(Rollout::counts);
    let (made, gone) = counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    // A pool that goes with its Cluster has the same machines.
    let mut removed = BTreeSet::new();
    for delete in &plan.deletes {
        let machines = delete.effect.removed();
        removed.extend(machines.map(|name| (&delete.key.namespace, name)));
    }
    (made, gone + removed.len())
}

fn put(out: &mut String, text: &str) {
    if !text.is_empty() {
        out.push_str(text);
        out.push('\n');
    }
}

fn line(out: &mut String, sign: char, change: &Change) {
    let place = if change.source.is_empty() {
        String::new()
    } else {
        format!(" ({})", change.source)
    };
    let wave = change.wave.as_ref().map(|wave| format!(" [wave {wave}]"));
    let wave = wave.unwrap_or_default();
    put(out, &format!("{sign} {}{place}{wave}", change.key));
}

/// What is made together, how long it is watched then, and what it waits for now.
fn planned(wave: &PlannedWave) -> String {
    let objects = match wave.changes {
        1 => "1 object".to_owned(),
        n => format!("{n} objects"),
    };
    let mut text = match &wave.name {
        Some(name) => format!("wave {name}: {objects}"),
        None => format!("outside waves: {objects}"),
    };
    if wave.soak_seconds > 0 {
        let _ = write!(text, ", watched for {} s", wave.soak_seconds);
    }
    if wave.hold.is_some() {
        text.push_str(", waits");
    }
    text
}

/// The difference of the two objects as YAML, with the lines around it. Of an object that is built on bases each new line says where
/// it was written.
fn diff(change: &Change) -> String {
    let yaml = |object: &Option<Value>| {
        let text = object.as_ref().map(serde_saphyr::to_string);
        text.and_then(Result::ok).unwrap_or_default()
    };
    let (before, after) = (yaml(&change.before), yaml(&change.after));
    let places = match change.origins.is_empty() {
        true => BTreeMap::new(),
        false => paths(&after),
    };
    let mut out = String::new();
    let diff = TextDiff::from_lines(before.as_str(), after.as_str());
    for (at, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if at > 0 {
            out.push_str("      ...\n");
        }
        for line in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let new = line.new_index().filter(|_| line.tag() == ChangeTag::Insert);
            let path = new.and_then(|at| places.get(&(at + 1)));
            let written = path.and_then(|path| change.origins.iter().find(|w| w.path == *path));
            let from = written.map(|w| format!("  # from {}:{}", w.file, w.line));
            let text = line.value().trim_end_matches('\n');
            let from = from.unwrap_or_default();
            let _ = writeln!(out, "  {} {text}{from}", line.tag());
        }
    }
    out
}

fn notes(out: &mut String, change: &Change) {
    if !change.adopted_from.is_empty() {
        let names = change.adopted_from.iter().filter_map(|m| fleet_of(m));
        let names: Vec<String> = names.map(|(ns, name)| format!("{ns}/{name}")).collect();
        let text = format!(
            "    taken over from Fleet {}, which it does not belong to any more",
            names.join(", ")
        );
        put(out, &text);
    } else if change.fields.is_empty() && change.handover.is_empty() {
        put(
            out,
            "    nothing differs; the Fleet takes over fields that it declares",
        );
    }
    for kept in &change.handover {
        let (path, value) = (kept.path.join("."), &kept.value);
        put(
            out,
            &format!("    {path}: no longer declared; {value} stays"),
        );
    }
    for field in change.fields.iter().filter(|f| !f.held_by.is_empty()) {
        let (path, who) = (field.path.join("."), field.held_by.join(", "));
        put(out, &format!("    {path} is taken from {who}"));
    }
    match &change.effect {
        PlanEffect::InPlace { reason } => {
            put(out, &format!("    changes machines in place: {reason}"));
        }
        PlanEffect::RollingReplacement { reason } => {
            put(out, &format!("    replaces machines: {reason}"));
        }
        PlanEffect::ByProvider { reason, nodes } => {
            put(out, &format!("    {}: {reason}", by_provider(*nodes)));
        }
        PlanEffect::None | PlanEffect::Removal { .. } => {}
    }
}

/// What a provider does to what it runs.
fn by_provider(nodes: Option<i32>) -> String {
    match nodes {
        Some(nodes) => format!("the provider rolls these {nodes} nodes, by its own bounds"),
        None => "the provider changes what it runs".to_owned(),
    }
}

fn write_rollout(out: &mut String, rollout: &Rollout) {
    let (made, gone) = rollout.counts();
    let what = match (made, gone) {
        (0, 0) if rollout.steps.iter().any(|s| s.provider.is_some()) => {
            " changes at the provider".to_owned()
        }
        (0, 0) if rollout.in_place.is_empty() => " waits".to_owned(),
        (0, 0) => String::new(),
        (made, 0) => format!(" makes {}", count(made)),
        (0, gone) => format!(" deletes {}", count(gone)),
        (made, gone) if made == gone => format!(" replaces {}", count(made)),
        (made, gone) => format!(" makes {} and deletes {gone}", count(made)),
    };
    let why = match rollout.because.join("; ") {
        text if text.is_empty() => text,
        text => format!(" because {text}"),
    };
    put(out, &format!("  {}{what}{why}", owner(&rollout.owner)));
    if let Some(path) = &rollout.path {
        put(out, &format!("    path: {path}"));
    }
    put(out, &images(&rollout.images));
    if !rollout.in_place.is_empty() {
        let text = format!("    in place: {}", few(&rollout.in_place));
        put(out, &text);
    }
    for step in rollout.steps.iter().take(STEPS) {
        put(out, &one(step));
    }
    if rollout.steps.len() > STEPS {
        let rest = &rollout.steps[STEPS..];
        let made: usize = rest.iter().map(|s| s.create.len()).sum();
        let gone: usize = rest.iter().map(|s| s.delete.len()).sum();
        let text = format!(
            "         ... {} more steps: {made} made, {gone} deleted",
            rest.len()
        );
        put(out, &text);
    }
    if let (Some(seconds), Some(from)) = (rollout.expected_seconds, &rollout.expected_from) {
        let text = format!(
            "    takes about {}, drains not counted: {}",
            duration(seconds),
            history(from)
        );
        put(out, &text);
    }
    if let Some(note) = &rollout.note {
        put(out, &format!("    at the end: {note}"));
    }
}

/// What new machines boot from; of several versions each with its own.
fn images(all: &[BootImage]) -> String {
    let name = |of: &BootImage| of.image.clone().unwrap_or_else(|| "unknown".to_owned());
    let names: BTreeSet<String> = all.iter().map(name).collect();
    match (names.len(), names.first()) {
        (0, _) | (_, None) => String::new(),
        (1, Some(name)) => format!("    image: {name}"),
        _ => {
            let each = all
                .iter()
                .map(|of| format!("{} ({})", name(of), of.version));
            format!("    images: {}", few(&each.collect::<Vec<_>>()))
        }
    }
}

/// Where an expected time comes from.
fn history(from: &History) -> String {
    let of = match from.of {
        HistoryOf::Own => "of its own",
        HistoryOf::Cluster => "of its cluster",
        HistoryOf::All => "of others",
    };
    format!(
        "{} {of} took {} (median) to be ready",
        count(from.machines),
        duration(from.seconds)
    )
}

fn owner(key: &Key) -> String {
    let name = format!("{}/{}", key.namespace, key.name);
    match key.kind.as_str() {
        "Cluster" => format!("control plane of {name}"),
        "ProviderAccount" => format!("ProviderAccount {}", key.name),
        _ => format!("pool {name}"),
    }
}

fn one(step: &Step) -> String {
    let mut parts = Vec::new();
    if !step.create.is_empty() {
        let version = step.version.as_ref().map(|v| format!(" ({v})"));
        let names = few(&step.create);
        parts.push(format!("create {names}{}", version.unwrap_or_default()));
    }
    if !step.delete.is_empty() {
        parts.push(format!("drain and delete {}", few(&step.delete)));
    }
    if let Some(provider) = &step.provider {
        let version = step.version.as_ref().map(|v| format!(" ({v})"));
        parts.push(format!("{provider}{}", version.unwrap_or_default()));
    }
    let wave = step.wave.as_ref().map(|wave| format!("[wave {wave}] "));
    let wave = wave.unwrap_or_default();
    format!("    {:>4}. {wave}{}", step.step, parts.join("; "))
}

fn count(machines: usize) -> String {
    match machines {
        1 => "1 machine".to_owned(),
        n => format!("{n} machines"),
    }
}

fn few(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMES)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
