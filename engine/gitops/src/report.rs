//! A plan as people read it: field diffs, then what becomes of the machines, step by step.

use std::{collections::BTreeMap, fmt::Write as _};

use fleetwright_api::meta::fleet_of;
use fleetwright_core::plan::{Change, Key, Plan, PlanEffect, PlannedWave, Rollout, Step};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::annotate::paths;

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
    let rollouts = rollouts(plan);
    if !rollouts.is_empty() {
        let _ = write!(out, "\n{rollouts}\n");
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
        if let PlanEffect::Removal { machines } = &change.effect {
            let text = format!("    deletes {}: {}", count(machines.len()), few(machines));
            put(&mut out, &text);
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
            machines(&mut out, rollout);
        }
    }
    out
}

/// The plan in one line.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    if plan.is_empty() {
        return "No changes.".to_owned();
    }
    let (made, gone) = plan
        .rollouts
        .iter()
        .map(Rollout::counts)
        .fold((0, 0), |(made, gone), (create, delete)| {
            (made + create, gone + delete)
        });
    let removed: usize = plan
        .deletes
        .iter()
        .map(|d| match &d.effect {
            PlanEffect::Removal { machines } => machines.len(),
            _ => 0,
        })
        .sum();
    format!(
        "Plan: {} to create, {} to change, {} to delete, {} refused; {} made, {} deleted.",
        plan.creates.len(),
        plan.changes.len(),
        plan.deletes.len(),
        plan.refused.len(),
        count(made),
        gone + removed
    )
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
    if let Some(hold) = &wave.hold {
        let _ = write!(text, "; waits: {}", hold.because);
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
        PlanEffect::None | PlanEffect::Removal { .. } => {}
    }
}

fn machines(out: &mut String, rollout: &Rollout) {
    let (made, gone) = rollout.counts();
    let what = match (made, gone) {
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
    if let Some(note) = &rollout.note {
        put(out, &format!("    at the end: {note}"));
    }
}

fn owner(key: &Key) -> String {
    let name = format!("{}/{}", key.namespace, key.name);
    match key.kind.as_str() {
        "Cluster" => format!("control plane of {name}"),
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
mod tests {
    use fleetwright_core::plan::{Drift, FieldDiff, Kept, Refusal, Written};
    use serde_json::json;

    use super::*;

    fn key(kind: &str, name: &str) -> Key {
        Key {
            api_version: "fleetwright.dev/v1alpha1".into(),
            kind: kind.into(),
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn change(kind: &str, name: &str, effect: PlanEffect) -> Change {
        Change {
            key: key(kind, name),
            source: "a.yaml:3".into(),
            before: None,
            after: None,
            fields: Vec::new(),
            origins: Vec::new(),
            handover: Vec::new(),
            adopted_from: Vec::new(),
            effect,
            wave: None,
        }
    }

    #[test]
    fn says_what_differs_why_and_in_which_steps() {
        let mut pool = change(
            "MachineDeployment",
            "web",
            PlanEffect::RollingReplacement {
                reason: "spec.providerConfig.size: 1 -> 2".into(),
            },
        );
        let spec = |size: u32| json!({"metadata": {"name": "web"}, "spec": {"a": 1, "b": 2, "c": 3, "size": size, "z": "yes"}});
        (pool.before, pool.after) = (Some(spec(1)), Some(spec(2)));
        pool.fields.push(FieldDiff {
            path: vec!["spec".into(), "size".into()],
            from: Some(json!(1)),
            to: Some(json!(2)),
            held_by: vec!["kubectl-edit".into()],
        });
        pool.origins.push(Written {
            path: vec!["spec".into(), "size".into()],
            file: "base/pool.yaml".into(),
            line: 12,
            column: 3,
        });
        pool.handover.push(Kept {
            path: vec!["spec".into(), "replicas".into()],
            value: json!(10),
        });
        let step = |step, create: &[&str], delete: &[&str]| Step {
            step,
            wave: None,
            create: create.iter().map(|n| (*n).into()).collect(),
            version: Some("v1.34.1".into()),
            delete: delete.iter().map(|n| (*n).into()).collect(),
        };
        let plan = Plan {
            creates: vec![change("Cluster", "new", PlanEffect::None)],
            changes: vec![pool],
            deletes: vec![Change {
                source: String::new(),
                ..change(
                    "MachineDeployment",
                    "old",
                    PlanEffect::Removal {
                        machines: vec!["old-0".into()],
                    },
                )
            }],
            refused: vec![Refusal {
                key: key("Cluster", "b"),
                reason: "b.yaml:1: it belongs to another Fleet".into(),
                wave: None,
            }],
            drift: vec![Drift {
                key: key("MachineDeployment", "web"),
                field: ".spec.replicas".into(),
                managers: vec!["kubectl".into()],
                wanted: None,
                found: None,
                since: None,
            }],
            rollouts: vec![Rollout {
                owner: key("MachineDeployment", "web"),
                because: vec!["spec.providerConfig.size: 1 -> 2".into()],
                in_place: Vec::new(),
                steps: vec![step(1, &["web-1"], &[]), step(2, &[], &["web-0"])],
                path: None,
                note: None,
            }],
            waves: Vec::new(),
        };
        let wanted = "\
+ Cluster default/new (a.yaml:3)
~ MachineDeployment default/web (a.yaml:3)
      b: 2
      c: 3
  -   size: 1
  +   size: 2  # from base/pool.yaml:12
      z: \"yes\"
    spec.replicas: no longer declared; 10 stays
    spec.size is taken from kubectl-edit
    replaces machines: spec.providerConfig.size: 1 -> 2
- MachineDeployment default/old
    deletes 1 machine: old-0
= MachineDeployment default/web: .spec.replicas is held by kubectl and stays
! Cluster default/b: b.yaml:1: it belongs to another Fleet

Machines, if nothing else happens:
  pool default/web replaces 1 machine because spec.providerConfig.size: 1 -> 2
       1. create web-1 (v1.34.1)
       2. drain and delete web-0

Plan: 1 to create, 1 to change, 1 to delete, 1 refused; 1 machine made, 2 deleted.
";
        assert_eq!(text(&plan), wanted);
        assert_eq!(text(&Plan::default()), "No changes.\n");
    }

    #[test]
    fn long_rollouts_are_cut_and_counted() {
        let names = |n: usize| (0..n).map(|i| format!("m-{i}")).collect::<Vec<_>>();
        let steps = (0..100).map(|at| Step {
            step: at + 1,
            wave: None,
            create: names(20),
            version: None,
            delete: Vec::new(),
        });
        let plan = Plan {
            rollouts: vec![Rollout {
                owner: key("Cluster", "a"),
                because: Vec::new(),
                in_place: names(9),
                steps: steps.collect(),
                path: None,
                note: Some("stays at v1.34.1".into()),
            }],
            ..Plan::default()
        };
        let text = text(&plan);
        assert!(text.lines().count() < STEPS + 10, "{text}");
        assert!(
            text.contains("m-7 and 12 more") && text.contains("m-7 and 1 more"),
            "{text}"
        );
        assert!(
            text.contains("... 76 more steps: 1520 made, 0 deleted"),
            "{text}"
        );
    }
}
