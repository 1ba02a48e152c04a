//! `fleetwright rollout history`: the revisions that a pool's sets keep.

use fleetwright_api::{
    MachineDeployment,
    time::{Clock as _, SystemClock},
};
use fleetwright_core::{
    rollout::{self, Revision},
    why::{short, span},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    error::Failure,
    object::{Kind, Object},
    output::{Output, columns},
    repository::catalogue,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    object: Object,
    /// Show one revision whole: what its machines are made of.
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.object.client().await?;
    let pool = pool(&args.object, &client).await?;
    let sets = args.object.sets(&client, &pool).await?;
    let catalogue = catalogue();
    let all = rollout::history(&sets, &catalogue);
    let now = SystemClock.now();
    let Some(wanted) = args.revision else {
        let document: Vec<Value> = all.iter().map(document).collect();
        return args.output.print(&document, || table(&all, now));
    };
    let Some(found) = all.iter().find(|r| r.revision == wanted) else {
        let kept: Vec<String> = all.iter().map(|r| r.revision.to_string()).collect();
        let what = format!("{} keeps no revision {wanted}", args.object.object);
        return Err(Failure::input(what).hint(format!("there are: {}", kept.join(", "))));
    };
    args.output.print(&document(found), || whole(found, now))
}

/// The pool that is named.
///
/// # Errors
/// It is none, is not there, or cannot be read.
pub(super) async fn pool(
    object: &Object,
    client: &kube::Client,
) -> Result<MachineDeployment, Failure> {
    if object.object.kind != Kind::Pool {
        let what = format!("{} has no revisions", object.object);
        return Err(Failure::usage(what).hint("pools have: name one as md/NAME"));
    }
    object.get(client).await
}

fn document(revision: &Revision) -> Value {
    json!({
        "revision": revision.revision, "set": revision.set, "current": revision.current,
        "wanted": revision.wanted, "replicas": revision.replicas, "available": revision.available,
        "created": revision.created, "changes": revision.changes,
        "because": revision.record, "template": revision.template,
    })
}

fn age(revision: &Revision, now: Timestamp) -> String {
    revision
        .created
        .map_or_else(String::new, |created| span(created, now))
}

fn cause(revision: &Revision) -> String {
    let record = revision.record.as_ref();
    let commit = record.and_then(|r| r.commit.as_deref()).map(short);
    commit
        .or_else(|| record.and_then(|r| r.note.clone()))
        .unwrap_or_default()
}

fn changes(revision: &Revision) -> String {
    let words: Vec<String> = revision.changes.iter().map(ToString::to_string).collect();
    words.join("; ")
}

fn table(all: &[Revision], now: Timestamp) -> String {
    let head = [
        "REVISION",
        "SET",
        "MACHINES",
        "AGE",
        "CAUSE",
        "DIFFERENCE TO THE ONE BEFORE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|r| {
        let mark = if r.current { "*" } else { "" };
        vec![
            format!("{}{mark}", r.revision),
            r.set.clone(),
            format!("{}/{}", r.available, r.wanted),
            age(r, now),
            cause(r),
            changes(r),
        ]
    }));
    columns(&rows)
}

fn whole(revision: &Revision, now: Timestamp) -> String {
    let current = if revision.current {
        ", the current one"
    } else {
        ""
    };
    let template = serde_saphyr::to_string(&revision.template).unwrap_or_default();
    let mut lines = vec![format!("revision {}{current}", revision.revision)];
    let (available, wanted) = (revision.available, revision.wanted);
    lines.push(format!(
        "set {}, made {} ago: {available} of {wanted} machines are available",
        revision.set,
        age(revision, now)
    ));
    if let Some(record) = &revision.record {
        lines.push(format!("because {}", record.clause()));
    }
    if !revision.changes.is_empty() {
        lines.push(format!(
            "differs from the one before: {}",
            changes(revision)
        ));
    }
    lines.push(format!("template:\n{}", template.trim_end()));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use fleetwright_core::{compare::FieldChange, why::Record};

    use super::*;

    #[test]
    fn revisions_are_rows_with_cause_and_difference() {
        let at = |s: i64| Timestamp::from_second(1_000_000 + s).unwrap();
        let change = FieldChange {
            path: "spec.providerConfig.image".into(),
            from: Some("a".into()),
            to: Some("b".into()),
        };
        let revision = |n: u64, changes: Vec<FieldChange>, record| Revision {
            revision: n,
            set: format!("web-{n}"),
            current: n == 2,
            wanted: 3,
            replicas: 3,
            available: 2,
            created: Some(at(-600)),
            changes,
            record: Some(record),
            template: Default::default(),
        };
        let commit = Some("3fa2c1d8e5b7a9f0c1d2e3f4a5b6c7d8e9f0a1b2".to_owned());
        let first = Record {
            note: Some("it is the first of its pool".into()),
            ..Record::default()
        };
        let second = Record {
            commit,
            changes: vec![change.clone()],
            note: None,
        };
        let all = [
            revision(1, vec![], first),
            revision(2, vec![change], second),
        ];
        let want = "\
REVISION  SET    MACHINES  AGE   CAUSE                        DIFFERENCE TO THE ONE BEFORE
1         web-1  2/3       10 m  it is the first of its pool
2*        web-2  2/3       10 m  3fa2c1d                      spec.providerConfig.image: a -> b
";
        assert_eq!(table(&all, at(0)), want);
        let text = whole(&all[1], at(0));
        assert!(text.starts_with("revision 2, the current one\nset web-2, made 10 m ago: 2 of 3 machines are available\nbecause providerConfig.image changed from a to b in 3fa2c1d\n"), "{text}");
        assert_eq!(document(&all[1])["because"]["changes"][0]["to"], "b");
    }
}
