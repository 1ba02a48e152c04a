//! Which names a definition gets: those that no other of its group has.

use serde_json::{Value, json};

use crate::object::strings;

/// A name that is not to be had: the reason and the message of the condition.
pub(super) type Conflict = (&'static str, String);

/// The names that are accepted of those asked for, and the last that is in use already by one of `others`.
pub(super) fn accept(asked: &Value, others: &[Value]) -> (Value, Option<Conflict>) {
    let of = |fields: &[&str]| -> Vec<String> {
        let single = others.iter().flat_map(|names| {
            fields
                .iter()
                .filter_map(|field| names[*field].as_str().map(str::to_owned))
        });
        single.collect()
    };
    let mut resources = of(&["plural", "singular"]);
    resources.extend(
        others
            .iter()
            .flat_map(|names| strings(&names["shortNames"])),
    );
    let kinds = of(&["kind", "listKind"]);
    let mut accepted = json!({"plural": "", "kind": ""});
    if !asked["categories"].is_null() {
        accepted["categories"] = asked["categories"].clone();
    }
    let mut conflict = None;
    let fields = [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ];
    for (field, reason, taken) in fields {
        let wanted = match &asked[field] {
            Value::String(name) => vec![name.clone()],
            list => strings(list),
        };
        let used: Vec<String> = wanted
            .iter()
            .filter(|name| taken.contains(name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        match used.as_slice() {
            [] if !asked[field].is_null() => accepted[field] = asked[field].clone(),
            [] => {}
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    (accepted, conflict)
}

/// The conditions of a definition, which had `before`.
pub(super) fn conditions(before: &Value, conflict: Option<Conflict>, now: &str) -> Value {
    let mut list = before.clone();
    let established = is_true(before, "Established");
    match &conflict {
        None => {
            let said = ("NoConflicts", "no conflicts found");
            set(&mut list, "NamesAccepted", "True", said, now);
            let said = (
                "InitialNamesAccepted",
                "the initial names have been accepted",
            );
            set(&mut list, "Established", "True", said, now);
        }
        Some((reason, message)) => {
            set(&mut list, "NamesAccepted", "False", (reason, message), now);
            if !established {
                let said = ("NotAccepted", "not all names are accepted");
                set(&mut list, "Established", "False", said, now);
            }
        }
    }
    list
}

fn is_true(conditions: &Value, kind: &str) -> bool {
    let mut all = conditions.as_array().into_iter().flatten();
    all.any(|c| c["type"] == kind && c["status"] == "True")
}

/// Whether a definition with these conditions is served.
pub(super) fn are_served(conditions: &Value) -> bool {
    is_true(conditions, "Established")
}

/// Puts a condition into a list; its time changes with its status.
pub(super) fn set(list: &mut Value, kind: &str, status: &str, said: (&str, &str), now: &str) {
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let mut new = json!({"type": kind, "status": status, "lastTransitionTime": now,
        "reason": said.0, "message": said.1});
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(old) => {
            if old["status"] == status {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => list.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_to_who_came_first() {
        let lamp =
            json!({"plural": "lamps", "singular": "lamp", "kind": "Lamp", "listKind": "LampList"});
        let (accepted, conflict) = accept(&lamp, &[]);
        assert_eq!((accepted, conflict), (lamp.clone(), None));
        let bulb = json!({"plural": "bulbs", "singular": "bulb", "kind": "Bulb", "listKind": "BulbList", "shortNames": ["lamp"]});
        let (accepted, conflict) = accept(&bulb, std::slice::from_ref(&lamp));
        assert_eq!(accepted.get("shortNames"), None);
        let text = "\"lamp\" is already in use".to_owned();
        assert_eq!(conflict, Some(("ShortNamesConflict", text)));
        let conditions = conditions(&Value::Null, conflict, "t");
        assert!(!are_served(&conditions));
        assert_eq!(conditions[1]["reason"], "NotAccepted");
    }
}
