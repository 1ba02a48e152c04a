//! YAML and JSON as trees whose every value knows its line and column. The one place that parses YAML.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

/// Most documents in one file.
pub const MAX_DOCUMENTS: usize = 2_000;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 100;
/// Most nodes of one file, aliases expanded.
pub const MAX_NODES: usize = 500_000;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In which of the documents that a merged one is made of; 0 is the document itself.
    pub layer: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Place {
    /// The begin of a file.
    pub const START: Self = Self {
        layer: 0,
        line: 1,
        column: 1,
    };
}

/// A value and where it stands; null by default.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Where the value begins.
    pub place: Place,
    /// The value.
    pub content: Content,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// null, a boolean, a number or a string.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A map: keys with their places, in the order of the file.
    Map(Vec<(String, Place, Node)>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Scalar(Value::Null)
    }
}

/// A syntax error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}:{}: {message}", place.line, place.column)]
pub struct YamlError {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

impl Node {
    /// The value of key `name`, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// As [`Self::get`], to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        match &mut self.content {
            Content::Map(entries) => entries
                .iter_mut()
                .find(|(key, _, _)| key == name)
                .map(|(_, _, node)| node),
            _ => None,
        }
    }

    /// The place of key `name` and its value, if this is a map that has it.
    pub fn entry(&self, name: &str) -> Option<(Place, &Node)> {
        match &self.content {
            Content::Map(entries) => entries
                .iter()
                .find(|(key, _, _)| key == name)
                .map(|(_, place, node)| (*place, node)),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(value) => value.as_str(),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar(Value::Null))
    }

    /// The node without places.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, _, node)| (key.clone(), node.to_value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// How many values it is made of, itself included.
    pub fn count(&self) -> usize {
        1 + match &self.content {
            Content::Scalar(_) => 0,
            Content::List(items) => items.iter().map(Node::count).sum(),
            Content::Map(entries) => entries.iter().map(|(_, _, node)| node.count()).sum(),
        }
    }

    /// Says of all of it that it stands in this layer of a merged document.
    pub fn set_layer(&mut self, layer: u32) {
        self.place.layer = layer;
        match &mut self.content {
            Content::Scalar(_) => {}
            Content::List(items) => items.iter_mut().for_each(|item| item.set_layer(layer)),
            Content::Map(entries) => {
                for (_, place, node) in entries {
                    place.layer = layer;
                    node.set_layer(layer);
                }
            }
        }
    }

    /// Takes keys away, if this is a map that has them.
    pub fn remove(&mut self, names: &[&str]) {
        if let Content::Map(entries) = &mut self.content {
            entries.retain(|(key, _, _)| !names.contains(&key.as_str()));
        }
    }

    /// The place of the deepest existing part of a field path such as `spec.pools[0].name`.
    pub fn place_of(&self, field: &str) -> Place {
        let mut at = self;
        let mut place = self.place;
        let parts = field
            .split(['.', '['])
            .map(|part| part.trim_end_matches(']'));
        for part in parts.filter(|part| !part.is_empty()) {
            match &at.content {
                Content::Map(_) => match at.entry(part) {
                    Some((_, node)) => (place, at) = (node.place, node),
                    None => return place,
                },
                Content::List(items) => match part.parse::<usize>().ok().and_then(|i| items.get(i))
                {
                    Some(node) => (place, at) = (node.place, node),
                    None => return place,
                },
                Content::Scalar(_) => return place,
            }
        }
        place
    }
}

/// Stack of a thread that reads: what is nested as deep as is allowed needs more than threads have.
const STACK: usize = 16 << 20;

/// Runs `work`, which reads documents, where there is room for them.
///
/// # Errors
/// Why it came to no end.
pub fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        match thread.spawn_scoped(scope, work) {
            Ok(reading) => reading
                .join()
                .map_err(|_| "a bug of ours, please report it".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// All documents of a file; documents without content are left out.
///
/// # Errors
/// The first syntax error, duplicate key or broken bound, with its place.
pub fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut budget = serde_saphyr::budget::Budget::default();
    budget.max_documents = MAX_DOCUMENTS;
    budget.max_depth = MAX_DEPTH;
    budget.max_nodes = MAX_NODES;
    budget.max_events = 2 * MAX_NODES;
    let options = serde_saphyr::options! {
        budget: Some(budget),
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let documents: Vec<Spanned<Raw>> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| {
            let place = error.location().map_or(Place::START, place);
            // In words for who wrote the file; the library's own speak of its options, and repeat the place.
            let message = UserMessageFormatter.format_message(error.without_snippet());
            YamlError {
                place,
                message: message.lines().next().unwrap_or_default().to_owned(),
            }
        })?;
    Ok(documents
        .into_iter()
        .map(node)
        .filter(|node| !node.is_null())
        .collect())
}

fn place(location: serde_saphyr::Location) -> Place {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        layer: 0,
        line: number(location.line()),
        column: number(location.column()),
    }
}

fn node(spanned: Spanned<Raw>) -> Node {
    Node {
        place: place(spanned.referenced),
        content: spanned.value.0,
    }
}

struct Raw(Content);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw(Content::Scalar(Value::Bool(v))))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw(Content::Scalar(Value::from(v))))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
        Ok(Raw(Content::Scalar(Value::from(v))))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Raw, E> {
        match Number::from_f64(v) {
            Some(number) => Ok(Raw(Content::Scalar(Value::Number(number)))),
            None => Err(E::custom("a number must be finite")),
        }
    }

    fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw(Content::Scalar(Value::String(v.to_owned()))))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw(Content::Scalar(Value::Null)))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Raw, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Raw>>()? {
            items.push(node(item));
        }
        Ok(Raw(Content::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries: Vec<(String, Place, Node)> = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Spanned<Raw>>()? {
            if entries.len() >= MAX_NODES {
                return Err(A::Error::custom("too many keys"));
            }
            entries.push((key.value, place(key.referenced), node(value)));
        }
        Ok(Raw(Content::Map(entries)))
    }
}
