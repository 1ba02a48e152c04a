use fleetwright_api::fleet::{ApplyWhen, FleetSpec, PullRequests, Verify};

use super::*;

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn author(name: &str) -> Author {
    Author {
        id: 5,
        name: name.into(),
    }
}

fn remark(id: u64, text: &str) -> Remark {
    Remark {
        id,
        author: Some(author("alice")),
        by_program: false,
        edited: false,
        text: text.into(),
    }
}

#[test]
fn what_is_a_command() {
    let rows: [(&str, Option<Option<&str>>); 12] = [
        ("fleetwright apply 0123456789ab", Some(Some("0123456789ab"))),
        (
            "\n  fleetwright  apply\t0123456789ab \r\n",
            Some(Some("0123456789ab")),
        ),
        ("fleetwright apply", Some(None)),
        ("fleetwright apply x", Some(Some("x"))),
        ("fleetwright apply 0123456789ab please", None),
        ("please fleetwright apply 0123456789ab", None),
        ("> fleetwright apply 0123456789ab", None),
        ("`fleetwright apply 0123456789ab`", None),
        ("Fleetwright apply 0123456789ab", None),
        ("fleetwright plan 0123456789ab", None),
        ("looks good to me\nfleetwright apply 0123456789ab", None),
        ("", None),
    ];
    for (text, want) in rows {
        assert_eq!(parse(text), want, "{text:?}");
    }
}

#[test]
fn the_newest_of_a_person_that_was_not_answered_counts() {
    let program = Remark {
        by_program: true,
        ..remark(9, "fleetwright apply 999999999999")
    };
    let nobody = Remark {
        author: None,
        ..remark(10, "fleetwright apply aaaaaaaaaaaa")
    };
    let all = [
        remark(7, "fleetwright apply 777777777777"),
        remark(3, "fleetwright apply 333333333333"),
        remark(8, "why?"),
        program,
        nobody,
    ];
    let digits = |answered| {
        let first = newest(&all, answered).into_iter().next();
        first.and_then(|command| command.digits)
    };
    assert_eq!(digits(0).as_deref(), Some("777777777777"));
    assert_eq!(digits(3).as_deref(), Some("777777777777"));
    assert_eq!(newest(&all, 0).len(), 1, "one of each person");
    // A replay: what was answered is not asked again, nor is what was said before it.
    assert!(newest(&all, 7).is_empty());
    // A comment that was deleted is in no list.
    assert!(newest(&all[1..2], 3).is_empty());
    assert_eq!(newest(&all[1..2], 0)[0].comment, 3);
}

#[test]
fn nobody_hides_the_words_of_another() {
    let mut all = vec![remark(1, "fleetwright apply 333333333333")];
    all.extend((2..12).map(|id| Remark {
        author: Some(Author {
            id: 6,
            name: "mallory".into(),
        }),
        ..remark(id, "fleetwright apply")
    }));
    let found = newest(&all, 0);
    let people: Vec<_> = found.iter().map(|c| (c.author.id, c.comment)).collect();
    assert_eq!(people, [(6, 11), (5, 1)]);
}

struct Case {
    fleet: Fleet,
    pull: PullRequest,
    planned: Planned,
    held: Option<(u64, &'static str)>,
    may: Result<(), &'static str>,
    remark: Remark,
}

fn case() -> Case {
    let pull_requests = PullRequests {
        plan: true,
        apply: Some(ApplyWhen::OnApproval),
        ..PullRequests::default()
    };
    let spec = FleetSpec {
        pull_requests: Some(pull_requests),
        ..FleetSpec::default()
    };
    Case {
        fleet: Fleet::new("repo", spec),
        pull: PullRequest {
            number: 7,
            title: String::new(),
            head_sha: "h".into(),
            head_ref: "topic".into(),
            base_ref: "main".into(),
            base_sha: None,
            from_fork: false,
            draft: false,
            open: true,
            merged_as: None,
            mergeable: Some(true),
            updated_at: None,
        },
        planned: Planned::Made {
            digest: DIGEST.into(),
            tree: "t".into(),
        },
        held: None,
        may: Ok(()),
        remark: remark(1, &format!("fleetwright apply {}", &DIGEST[..12])),
    }
}

fn verdict(change: impl Fn(&mut Case)) -> Verdict {
    let mut case = case();
    change(&mut case);
    let command = newest(std::slice::from_ref(&case.remark), 0).remove(0);
    let stand = Stand {
        fleet: &case.fleet,
        pull: &case.pull,
        planned: &case.planned,
        held: case.held,
        may: case.may,
    };
    judge(&command, stand)
}

#[test]
fn what_comes_of_it() {
    type Change = fn(&mut Case);
    let say =
        |case: &mut Case, digits: &str| case.remark.text = format!("fleetwright apply {digits}");
    assert_eq!(verdict(|_| {}), Verdict::Apply);
    assert_eq!(verdict(|c| say(c, DIGEST)), Verdict::Apply);
    assert_eq!(
        verdict(|c| say(c, &DIGEST[..14].to_uppercase())),
        Verdict::Apply
    );
    assert_eq!(verdict(|c| c.held = Some((7, "old"))), Verdict::Apply);
    assert_eq!(verdict(|c| c.pull.mergeable = None), Verdict::Later);
    let refused: [(Change, &str); 18] = [
        (|c| c.may = Err("you may not"), "you may not"),
        (|c| c.remark.edited = true, "changed after it was written"),
        (|c| c.pull.open = false, "not open"),
        (|c| c.pull.from_fork = true, "fork"),
        (|c| c.pull.draft = true, "draft"),
        (|c| c.fleet.spec.suspend = Some(true), "suspended"),
        (
            |c| {
                c.fleet.spec.source.verify = Some(Verify::default());
            },
            "signatures",
        ),
        (|c| c.held = Some((6, "h")), "pull request 6 is applied"),
        (|c| c.held = Some((7, "h")), "applied already"),
        (|c| c.planned = Planned::Empty, "changes nothing"),
        (
            |c| c.planned = Planned::Failed("a.yaml:1:2: `@all\n".into()),
            "fails: `a.yaml:1:2: '@all `",
        ),
        (
            |c| c.pull.mergeable = Some(false),
            "does not let it be merged",
        ),
        (
            |c| c.remark.text = "fleetwright apply".into(),
            "say which plan",
        ),
        (
            |c| c.remark.text = format!("fleetwright apply {}", &DIGEST[..11]),
            "newest plan",
        ),
        (
            |c| c.remark.text = "fleetwright apply 0123456789ac".into(),
            "newest plan",
        ),
        (
            |c| c.remark.text = format!("fleetwright apply {DIGEST}0"),
            "newest plan",
        ),
        (
            |c| c.remark.text = "fleetwright apply äöü".into(),
            "newest plan",
        ),
        (
            |c| {
                // Of several reasons the right to ask comes first.
                c.may = Err("you may not");
                c.pull.mergeable = None;
                c.remark.edited = true;
            },
            "you may not",
        ),
    ];
    for (change, part) in refused {
        match verdict(change) {
            Verdict::Refuse(why) => assert!(why.contains(part), "{part}: {why}"),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[test]
fn who_is_named() {
    let mut fleet = case().fleet;
    assert_eq!(is_named(&fleet, &author("alice")), None);
    let pulls = fleet.spec.pull_requests.as_mut().unwrap();
    pulls.approvers = vec!["Alice".into(), "bob".into()];
    for (name, want) in [("alice", true), ("BOB", true), ("al", false), ("", false)] {
        assert_eq!(is_named(&fleet, &author(name)), Some(want), "{name}");
    }
    fleet.spec.pull_requests = None;
    assert_eq!(is_named(&fleet, &author("alice")), None);
}
