//! Where the values of an object were written, for documents that are built on others.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FieldDiff;

/// A place in a file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Path, relative to the followed path.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Where each leaf of a value was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Nothing is kept: all of it stands in one document, which is built on no other.
    #[default]
    One,
    /// A leaf: a scalar, or a list or map without anything in it.
    Leaf(Origin),
    /// What is below the keys of a map, or the places in a list (`0`, `1`), in their order.
    Below(Vec<(String, Origins)>),
}

impl Origins {
    /// Whether none is kept.
    #[must_use]
    pub fn is_one(&self) -> bool {
        *self == Self::One
    }

    /// Where the leaf at `path` was written.
    #[must_use]
    pub fn of(&self, path: &[String]) -> Option<&Origin> {
        match path.iter().try_fold(self, |at, part| at.get(part))? {
            Self::Leaf(origin) => Some(origin),
            _ => None,
        }
    }

    /// Where a field was written, by its path as the API names it (`spec.taints[0].key`). Of a field that is not there, where the
    /// first leaf of the deepest part of it was written that is.
    #[must_use]
    pub fn of_field(&self, field: &str) -> Option<&Origin> {
        let parts = field
            .split(['.', '['])
            .map(|part| part.trim_end_matches(']'));
        let mut at = self;
        for part in parts.filter(|part| !part.is_empty()) {
            match at.get(part) {
                Some(below) => at = below,
                None => break,
            }
        }
        at.first()
    }

    fn get(&self, part: &str) -> Option<&Self> {
        match self {
            Self::Below(all) => all.iter().find(|(name, _)| name == part).map(|(_, o)| o),
            _ => None,
        }
    }

    fn first(&self) -> Option<&Origin> {
        match self {
            Self::One => None,
            Self::Leaf(origin) => Some(origin),
            Self::Below(all) => all.iter().find_map(|(_, below)| below.first()),
        }
    }

    /// The leaves of `document` that stand in these fields of the object to come, at the same paths there.
    pub(super) fn of_fields(
        &self,
        fields: &[FieldDiff],
        document: &Value,
        after: &Value,
    ) -> Vec<Written> {
        let mut out = Vec::new();
        for field in fields {
            let below = field.path.iter().try_fold(self, |at, part| at.get(part));
            if let Some(below) = below {
                below.put(&mut field.path.clone(), &mut out);
            }
        }
        out.retain(|written| is_same(document, after, &written.path));
        out
    }

    fn put(&self, path: &mut Vec<String>, out: &mut Vec<Written>) {
        match self {
            Self::One => {}
            Self::Leaf(origin) => out.push(Written {
                path: path.clone(),
                file: origin.file.to_string(),
                line: origin.line,
                column: origin.column,
            }),
            Self::Below(all) => {
                for (part, below) in all {
                    path.push(part.clone());
                    below.put(path, out);
                    path.pop();
                }
            }
        }
    }
}

/// Where a value of a plan was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// Path of the value, by its parts.
    pub path: Vec<String>,
    /// Path of the file, relative to the followed path.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Whether both have the same value at `path`. Lists of other lengths on the way hold items of others, at other places.
fn is_same(document: &Value, after: &Value, path: &[String]) -> bool {
    let mut both = (document, after);
    for part in path {
        let next = match both {
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                let at = part.parse::<usize>().ok();
                at.and_then(|at| a.get(at).zip(b.get(at)))
            }
            (Value::Object(a), Value::Object(b)) => a.get(part).zip(b.get(part)),
            _ => None,
        };
        match next {
            Some(next) => both = next,
            None => return false,
        }
    }
    both.0 == both.1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn origins(value: &Value, line: &mut u32) -> Origins {
        let below = |(part, value): (String, &Value), line: &mut u32| (part, origins(value, line));
        match value {
            Value::Object(map) => {
                let all = map.iter().map(|(k, v)| below((k.clone(), v), line));
                Origins::Below(all.collect())
            }
            Value::Array(items) => {
                let all = items.iter().enumerate();
                let all = all.map(|(at, v)| below((at.to_string(), v), line));
                Origins::Below(all.collect())
            }
            _ => {
                *line += 1;
                Origins::Leaf(Origin {
                    file: "a.yaml".into(),
                    line: *line,
                    column: 2,
                })
            }
        }
    }

    #[test]
    fn fields_are_found_by_their_paths_and_missing_ones_by_what_would_hold_them() {
        let value = json!({"spec": {"a": 1, "list": [{"key": "x"}, {"key": "y"}], "z": 1}});
        let all = origins(&value, &mut 0);
        for (field, wanted) in [
            ("spec.list[1].key", "a.yaml:3"),
            ("spec.list[1]", "a.yaml:3"),
            ("spec.z", "a.yaml:4"),
            ("spec.list[0].effect", "a.yaml:2"),
            ("spec.nothing", "a.yaml:1"),
            ("", "a.yaml:1"),
        ] {
            assert_eq!(all.of_field(field).unwrap().to_string(), wanted, "{field}");
        }
        assert_eq!(Origins::One.of_field("spec"), None);
    }

    #[test]
    fn a_plan_names_origins_of_values_that_are_its_own() {
        let document = json!({"spec": {"a": 1, "list": [{"key": "x"}], "other": 1}});
        let all = origins(&document, &mut 0);
        let path = |text: &str| text.split('.').map(ToOwned::to_owned).collect::<Vec<_>>();
        let field = |at: &str| FieldDiff {
            path: path(at),
            from: None,
            to: None,
            held_by: Vec::new(),
        };
        let fields = [field("spec.a"), field("spec.list"), field("spec.default")];
        let paths = |after| -> Vec<Vec<String>> {
            let written = all.of_fields(&fields, &document, &after);
            written.into_iter().map(|w| w.path).collect()
        };
        assert_eq!(
            paths(document.clone()),
            [path("spec.a"), path("spec.list.0.key")]
        );
        // Somebody else's item stands first.
        let with = json!({"spec": {"a": 1, "list": [{"key": "y"}, {"key": "x"}]}});
        assert_eq!(paths(with), [path("spec.a")]);
    }
}
