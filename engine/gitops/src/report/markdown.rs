//! A plan as a comment on a pull request.
//!
//! What comes from the repository stands in code spans and fences that it cannot leave: a comment mentions nobody and links nowhere
//! because somebody wrote so into a file.

use std::fmt::Write as _;

use fleetwright_core::plan::{Change, Plan, PlanEffect};

use super::{by_provider, count, differences, obstacle, rollouts, summary};

/// Objects that are listed one by one; the rest is counted.
const OBJECTS: usize = 40;
/// Bytes of a section: with two of them a comment keeps within every forge's limit.
const SECTION: usize = 24_000;
/// Digits of a commit or digest that people compare.
const SHORT: usize = 12;

/// What was planned.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// Namespace and name of the Fleet.
    pub fleet: &'a str,
    /// Branch of the base.
    pub branch: &'a str,
    /// Commit of the base.
    pub base: &'a str,
    /// Commit of the head.
    pub head: &'a str,
}

/// A plan that was made.
#[must_use]
pub fn plan(of: Planned<'_>, plan: &Plan, digest: &str) -> String {
    report(of.fleet, plan, digest, &ends(of))
}

/// The same of a plan that is no merge: of what stands in a revision.
#[must_use]
pub fn plan_of_revision(fleet: &str, revision: &str, plan: &Plan, digest: &str) -> String {
    report(fleet, plan, digest, &code(short(revision)))
}

fn report(fleet: &str, plan: &Plan, digest: &str, of: &str) -> String {
    let mut out = heading(fleet, &summary(plan));
    let changes = [
        ('+', &plan.creates),
        ('~', &plan.changes),
        ('-', &plan.deletes),
    ];
    let mut lines = Vec::new();
    for (sign, list) in changes {
        lines.extend(list.iter().map(|change| object(sign, change)));
    }
    for refusal in &plan.refused {
        let key = code(&format!("! {}", refusal.key));
        lines.push(format!("- {key} refused: {}", code(&refusal.reason)));
    }
    for line in lines.iter().take(OBJECTS) {
        let _ = writeln!(out, "{line}");
    }
    if lines.len() > OBJECTS {
        let _ = writeln!(out, "- and {} more", lines.len() - OBJECTS);
    }
    if !plan.blockers.is_empty() {
        out.push_str("\nIn the way:\n\n");
        let lines: Vec<String> = plan.blockers.iter().map(obstacle).collect();
        for line in lines.iter().take(OBJECTS) {
            let _ = writeln!(out, "- {}", code(line));
        }
        if lines.len() > OBJECTS {
            let _ = writeln!(out, "- and {} more", lines.len() - OBJECTS);
        }
    }
    let differs: Vec<String> = differences(plan)
        .lines()
        // Signs in the first column are coloured.
        .map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned())
        .collect();
    section(&mut out, "What differs", "diff", &differs.join("\n"));
    section(&mut out, "Machines, step by step", "text", &rollouts(plan));
    let _ = write!(out, "\n<sub>{of}; plan {}.</sub>\n", code(short(digest)));
    out
}

/// What cannot be planned, and why: a line each.
#[must_use]
pub fn failure(of: Planned<'_>, title: &str, lines: &str) -> String {
    let mut out = heading(of.fleet, title);
    fenced(&mut out, "text", lines);
    let _ = write!(out, "\n<sub>{}.</sub>\n", ends(of));
    out
}

fn heading(fleet: &str, title: &str) -> String {
    format!("### Fleetwright: {}\n\n**{title}**\n\n", code(fleet))
}

fn ends(of: Planned<'_>) -> String {
    let (head, base) = (code(short(of.head)), code(short(of.base)));
    format!("{head} merged into {} at {base}", code(of.branch))
}

fn short(text: &str) -> &str {
    text.get(..SHORT).unwrap_or(text)
}

fn object(sign: char, change: &Change) -> String {
    let mut line = format!("- {}", code(&format!("{sign} {}", change.key)));
    if !change.source.is_empty() {
        let _ = write!(line, " ({})", code(&change.source));
    }
    if let Some(wave) = &change.wave {
        let _ = write!(line, ", wave {}", code(wave));
    }
    match &change.effect {
        PlanEffect::None => {}
        PlanEffect::InPlace { reason } => {
            let _ = write!(line, ": changes machines in place, {}", code(reason));
        }
        PlanEffect::RollingReplacement { reason } => {
            let _ = write!(line, ": replaces machines, {}", code(reason));
        }
        PlanEffect::ByProvider { reason, nodes } => {
            let _ = write!(line, ": {}, {}", by_provider(*nodes), code(reason));
        }
        PlanEffect::Removal { .. } => {
            let machines = change.effect.removed().count();
            let _ = write!(line, ": deletes {}", count(machines));
        }
    }
    line
}

fn section(out: &mut String, title: &str, language: &str, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    let (text, cut) = cut(text.trim_matches('\n'));
    let _ = write!(out, "\n<details><summary>{title}</summary>\n\n");
    fenced(out, language, text);
    if cut > 0 {
        let _ = write!(
            out,
            "\n{cut} more lines: `fleetwright plan` shows all of them.\n"
        );
    }
    out.push_str("\n</details>\n");
}

/// The lines that have room in a section, and how many more there are.
fn cut(text: &str) -> (&str, usize) {
    if text.len() <= SECTION {
        return (text, 0);
    }
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if end + line.len() > SECTION {
            break;
        }
        end += line.len();
    }
    let (shown, rest) = text.split_at(end);
    (shown.trim_end_matches('\n'), rest.lines().count())
}

fn fenced(out: &mut String, language: &str, text: &str) {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    let _ = write!(out, "{fence}{language}\n{text}\n{fence}\n");
}

/// Text that is shown as it is, in one line.
fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let ticks = "`".repeat(longest_run(&text) + 1);
    // A space beside a tick of the text's own belongs to the span, not to the text.
    let pad = match text.starts_with('`') || text.ends_with('`') || text.is_empty() {
        true => " ",
        false => "",
    };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

fn longest_run(text: &str) -> usize {
    let runs = text.split(|c| c != '`').map(str::len);
    runs.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use fleetwright_core::plan::{BlockerKind, FieldDiff, Key, PlanBlocker, Refusal};
    use serde_json::json;

    use super::*;

    const OF: Planned<'_> = Planned {
        fleet: "default/prod",
        branch: "main",
        base: "1111111111111111111111111111111111111111",
        head: "2222222222222222222222222222222222222222",
    };

    fn key(name: &str) -> Key {
        Key {
            api_version: "fleetwright.dev/v1alpha1".into(),
            kind: "MachineDeployment".into(),
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn change(name: &str, effect: PlanEffect) -> Change {
        Change {
            key: key(name),
            source: "web.yaml:1".into(),
            before: Some(json!({"spec": {"size": 1}})),
            after: Some(json!({"spec": {"size": 2}})),
            fields: vec![FieldDiff {
                path: vec!["spec".into(), "size".into()],
                from: Some(json!(1)),
                to: Some(json!(2)),
                held_by: Vec::new(),
            }],
            origins: Vec::new(),
            handover: Vec::new(),
            adopted_from: Vec::new(),
            effect,
            wave: Some("canary".into()),
        }
    }

    #[test]
    fn a_comment_says_what_a_merge_would_do() {
        let reason = "spec.size: 1 -> 2".to_owned();
        let plan_of = Plan {
            changes: vec![change("web", PlanEffect::RollingReplacement { reason })],
            refused: vec![Refusal {
                key: key("db"),
                reason: "db.yaml:1: `@everyone` may not".into(),
                wave: None,
            }],
            blockers: vec![PlanBlocker {
                kind: BlockerKind::Paused,
                object: Some(key("web")),
                wave: None,
                reason: "paused: `resume` it".into(),
                mistake: None,
                until: None,
            }],
            ..Plan::default()
        };
        let wanted = "\
### Fleetwright: `default/prod`

**Plan: 0 to create, 1 to change, 0 to delete, 1 refused; 0 machines made, 0 deleted.**

- `~ MachineDeployment default/web` (`web.yaml:1`), wave `canary`: replaces machines, `spec.size: 1 -> 2`
- `! MachineDeployment default/db` refused: ``db.yaml:1: `@everyone` may not``

In the way:

- ``Paused: pool default/web: paused: `resume` it``

<details><summary>What differs</summary>

````diff
~ MachineDeployment default/web (web.yaml:1) [wave canary]
  spec:
-   size: 1
+   size: 2
  replaces machines: spec.size: 1 -> 2
! MachineDeployment default/db: db.yaml:1: `@everyone` may not
````

</details>

<sub>`222222222222` merged into `main` at `111111111111`; plan `abcdef012345`.</sub>
";
        let text = plan(OF, &plan_of, "abcdef0123456789");
        assert_eq!(text.replace("````", "```"), wanted.replace("````", "```"));
    }

    #[test]
    fn nothing_of_the_repository_leaves_its_fence() {
        let hostile = "a.yaml:1:1: ```\n# @everyone <script>";
        let text = failure(OF, "1 mistake", hostile);
        assert!(
            text.contains("````text\na.yaml:1:1: ```\n# @everyone <script>\n````\n"),
            "{text}"
        );
        for (text, want) in [
            ("a", "`a`"),
            ("", "`  `"),
            ("a`b", "``a`b``"),
            ("`a``", "``` `a`` ```"),
            ("a\nb", "`a b`"),
        ] {
            assert_eq!(code(text), want);
        }
    }

    #[test]
    fn long_sections_end_with_a_line_and_say_what_is_missing() {
        let text = format!("{}\n", "x".repeat(99)).repeat(300);
        let (shown, more) = cut(&text);
        assert_eq!((shown.lines().count(), more), (240, 60));
        let mut out = String::new();
        section(&mut out, "t", "text", &text);
        assert!(
            out.ends_with("\n60 more lines: `fleetwright plan` shows all of them.\n\n</details>\n"),
            "{out}"
        );
        assert_eq!(cut("a\nb"), ("a\nb", 0));
        // One line that is longer than all of it.
        assert_eq!(cut(&"x".repeat(SECTION + 1)), ("", 1));
    }

    #[test]
    fn many_objects_are_counted() {
        let plan_of = Plan {
            creates: vec![change("web", PlanEffect::None); OBJECTS + 2],
            ..Plan::default()
        };
        let text = plan(OF, &plan_of, "");
        assert!(text.contains("- and 2 more\n"), "{text}");
    }
}
