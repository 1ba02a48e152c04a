//! The first difference of two answers.

use std::collections::BTreeSet;

use serde_json::Value;

/// The value without texts that are meant for people (`message`, `description`).
pub fn without_texts(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(k, _)| *k != "message" && *k != "description")
            .map(|(k, v)| (k.clone(), without_texts(v)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(without_texts).collect(),
        other => other.clone(),
    }
}

/// Where and how `got` first differs from `want`; `None` when they are equal.
pub fn first_difference(want: &Value, got: &Value) -> Option<String> {
    difference(want, got, "$")
}

fn difference(want: &Value, got: &Value, at: &str) -> Option<String> {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter()
                .find_map(|key| match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => difference(x, y, &format!("{at}.{key}")),
                    (Some(x), None) => Some(format!("{at}.{key}: missing, want {}", short(x))),
                    (None, Some(y)) => Some(format!("{at}.{key}: not wanted, got {}", short(y))),
                    (None, None) => None,
                })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (x, y))| difference(x, y, &format!("{at}[{i}]"))),
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ if want == got => None,
        _ => Some(format!("{at}: want {} got {}", short(want), short(got))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 200 {
        text
    } else {
        text.chars().take(200).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_place() {
        let want = json!({"a": [{"b": 1}], "c": 1});
        assert_eq!(first_difference(&want, &want), None);
        assert_eq!(
            first_difference(&want, &json!({"a": [{"b": 2}], "c": 1})).unwrap(),
            "$.a[0].b: want 1 got 2"
        );
        assert_eq!(
            first_difference(&want, &json!({"a": [{"b": 1}]})).unwrap(),
            "$.c: missing, want 1"
        );
        assert!(
            first_difference(&want, &json!({"a": [], "c": 1}))
                .unwrap()
                .starts_with("$.a: want")
        );
    }
}
