//! Changes of a few values in a YAML file that leave everything else of its text as it is: comments, order, quotes, layout.
//!
//! The places of the values come from the tree that loading uses. An edit is proved before it is given out: the new text is read
//! again, and must say exactly what was wanted and nothing else. Where that fails (an anchor, a layout that is not known here) there
//! is no edit but the place where it failed, never a wrong one.

mod declaration;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value, json};
use similar::TextDiff;

pub use self::declaration::{Declaration, find};
use crate::{
    load::bases::BASE,
    yaml::{self, Content, Node, Place},
};

/// Which object a document declares: kind, namespace and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declares<'a> {
    /// Kind.
    pub kind: &'a str,
    /// Namespace; a document without one is of `default`.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

impl Declares<'_> {
    fn is(&self, node: &Node) -> bool {
        let text = |at: Option<&Node>| at.and_then(Node::as_str).map(ToOwned::to_owned);
        let metadata = node.get("metadata");
        let namespace = text(metadata.and_then(|m| m.get("namespace")));
        let base = node.get(BASE).map(|n| &n.content);
        !matches!(base, Some(Content::Scalar(Value::Bool(true))))
            && text(node.get("kind")).as_deref() == Some(self.kind)
            && text(metadata.and_then(|m| m.get("name"))).as_deref() == Some(self.name)
            && namespace.as_deref().unwrap_or("default") == self.namespace
    }
}

/// Why a text cannot be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No document of it is the object's.
    NotDeclared,
    /// Something else would change with the value.
    Shared,
    /// How it is written is not known here.
    Form,
    /// What the document is built on says something that the document cannot take back.
    Bases,
}

/// A value that cannot be changed in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Where the value, or the deepest of what it is to be in, stands.
    pub place: Place,
    /// Why.
    pub why: Why,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Why::NotDeclared => "no document declares the object",
            Why::Shared => "another value is an alias of this one and would change with it",
            Why::Form => "this is written in a way that cannot be edited safely",
            Why::Bases => "what this is built on says more than can be taken back here",
        })
    }
}

/// The text of the file with the document of `object` as `wanted` says.
///
/// # Errors
/// The first value that the text cannot be edited at.
pub fn edit(text: &str, object: Declares<'_>, wanted: &Value) -> Result<String, Obstacle> {
    let not_declared = Obstacle {
        place: Place::default(),
        why: Why::NotDeclared,
    };
    let before = yaml::parse(text).map_err(|_| not_declared)?;
    let at = before.iter().position(|d| object.is(d));
    let (at, old) = at
        .and_then(|at| Some((at, before.get(at)?)))
        .ok_or(not_declared)?;
    let mut want: Vec<Value> = before.iter().map(Node::to_value).collect();
    let mut new = text.to_owned();
    for (path, value) in changes(&old.to_value(), wanted) {
        let obstacle = |why| Obstacle {
            place: place_of(old, &path),
            why,
        };
        if let Some(document) = want.get_mut(at) {
            set(document, &path, value.as_ref());
        }
        let edited = yaml::parse(&new)
            .ok()
            .and_then(|all| Text(&new).put(all.get(at)?, &path, value.as_ref()));
        new = edited.ok_or_else(|| obstacle(Why::Form))?;
        let read = yaml::parse(&new).map_err(|_| obstacle(Why::Form))?;
        let got: Vec<Value> = read.iter().map(Node::to_value).collect();
        if got != want {
            let there = |all: &[Value]| all.get(at).and_then(|d| get(d, &path)).cloned();
            let done = there(&got) == there(&want);
            return Err(obstacle(if done { Why::Shared } else { Why::Form }));
        }
    }
    Ok(new)
}

/// The values of `want` that `have` does not have, by their paths; `None` for those that it has too many. What goes comes last: a map
/// does not become empty in between.
pub fn changes(have: &Value, want: &Value) -> Vec<(Vec<String>, Option<Value>)> {
    let mut out = Vec::new();
    differences(Some(have), Some(want), &mut Vec::new(), &mut out);
    out.sort_by_key(|(_, value)| value.is_none());
    out
}

fn get<'v>(document: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(document, |at, key| at.get(key))
}

fn set(document: &mut Value, path: &[String], value: Option<&Value>) {
    let Some((last, above)) = path.split_last() else {
        *document = value.cloned().unwrap_or_default();
        return;
    };
    let mut at = document;
    for key in above {
        let Value::Object(map) = at else { return };
        at = map.entry(key).or_insert_with(|| json!({}));
    }
    if let Value::Object(map) = at {
        match value {
            Some(value) => map.insert(last.clone(), value.clone()),
            None => map.remove(last),
        };
    }
}

/// Where the deepest part of `path` stands that there is.
fn place_of(root: &Node, path: &[String]) -> Place {
    let (mut at, mut place) = (root, root.place);
    for key in path {
        let Some((key, value)) = at.entry(key) else {
            break;
        };
        (at, place) = (value, key);
    }
    place
}

/// The difference of two texts of a file as `git apply` and `patch -p1` take it; empty when there is none.
pub fn patch(path: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let diff = TextDiff::from_lines(before, after);
    let (from, to) = (format!("a/{path}"), format!("b/{path}"));
    let hunks = diff.unified_diff().header(&from, &to).to_string();
    format!("diff --git {from} {to}\n{hunks}")
}

type Change = (Vec<String>, Option<Value>);

/// The smallest values that differ.
fn differences(
    have: Option<&Value>,
    want: Option<&Value>,
    path: &mut Vec<String>,
    out: &mut Vec<Change>,
) {
    match (have, want) {
        _ if have == want => {}
        (Some(Value::Object(h)), Some(Value::Object(w))) => {
            let gone = h.keys().filter(|k| !w.contains_key(*k));
            let keys: Vec<&String> = gone.chain(w.keys()).collect();
            for key in keys {
                path.push(key.clone());
                differences(h.get(key), w.get(key), path, out);
                path.pop();
            }
        }
        _ => out.push((path.clone(), want.cloned())),
    }
}

struct Text<'a>(&'a str);

/// An entry of a map, by its place in it.
struct Entry<'n> {
    map: &'n [(String, Place, Node)],
    index: usize,
}

impl Text<'_> {
    /// The text with `value` at `path`, or without it.
    fn put(&self, root: &Node, path: &[String], value: Option<&Value>) -> Option<String> {
        let (mut map, mut rest) = (root, path);
        let mut parent = None;
        loop {
            let Content::Map(entries) = &map.content else {
                return None;
            };
            let (key, below) = rest.split_first()?;
            let found = entries.iter().position(|(name, _, _)| name == key);
            let Some(index) = found else {
                let nested = |value: Value, key: &String| json!({ key.as_str(): value });
                let value = below.iter().rev().fold(value?.clone(), nested);
                return self.add(map, entries, key, &value);
            };
            let child = &entries.get(index)?.2;
            if below.is_empty() {
                let entry = Entry {
                    map: entries,
                    index,
                };
                return match value {
                    Some(value) => self.replace(map, &entry, value),
                    None if entries.len() == 1 && !self.is_flow(map) => self.empty(parent?, &entry),
                    None => self.remove(map, &entry),
                };
            }
            parent = entries.get(index).map(|(_, key, _)| *key);
            (map, rest) = (child, below);
        }
    }

    fn offset(&self, place: Place) -> Option<usize> {
        let line = usize::try_from(place.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(place.column).ok()?.checked_sub(1)?;
        let start = self.line(line)?;
        let mut chars = self.0.get(start..)?.char_indices();
        Some(start + chars.nth(column).map(|(at, _)| at)?)
    }

    /// Where a line begins, counted from 0; the end of the text is the begin of the line after the last.
    fn line(&self, number: usize) -> Option<usize> {
        let breaks = self.0.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        let mut begins = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1));
        begins.nth(number).or_else(|| {
            let lines = self.0.lines().count();
            (number == lines).then_some(self.0.len())
        })
    }

    fn is_flow(&self, map: &Node) -> bool {
        let rest = self.offset(map.place).and_then(|at| self.0.get(at..));
        rest.is_some_and(|rest| rest.starts_with('{'))
    }

    /// The line after an entry of a block map: what is indented deeper than its key, or is a list at its height, belongs to it.
    fn end_line(&self, key: Place) -> Option<usize> {
        let first = usize::try_from(key.line).ok()?;
        let indent = usize::try_from(key.column).ok()?.checked_sub(1)?;
        let mut end = first;
        for (at, line) in self.0.lines().enumerate().skip(first) {
            let bare = line.trim_start();
            let depth = line.len() - bare.len();
            let inside = depth > indent || (depth == indent && bare.starts_with("- "));
            if bare.is_empty() {
                continue;
            }
            if !inside || bare.starts_with("---") && depth == 0 {
                break;
            }
            end = at + 1;
        }
        Some(end)
    }

    fn splice(&self, from: usize, to: usize, new: &str) -> Option<String> {
        let (before, after) = (self.0.get(..from)?, self.0.get(to..)?);
        Some(format!("{before}{new}{after}"))
    }

    fn remove(&self, map: &Node, entry: &Entry<'_>) -> Option<String> {
        let (_, key, value) = entry.map.get(entry.index)?;
        if self.is_flow(map) {
            let (from, to) = match entry.map.get(entry.index + 1) {
                Some((_, next, _)) => (self.offset(*key)?, self.offset(*next)?),
                None => {
                    let start = self.offset(*key)?;
                    let before = self.0.get(..start)?.trim_end_matches([' ', '\n', ',']);
                    let from = if entry.index == 0 {
                        start
                    } else {
                        before.len()
                    };
                    (from, self.flow_end(self.offset(value.place)?)?)
                }
            };
            return self.splice(from, to, "");
        }
        let from = self.line(usize::try_from(key.line).ok()?.checked_sub(1)?)?;
        self.splice(from, self.line(self.end_line(*key)?)?, "")
    }

    /// Without the only entry of a block map, which would leave null behind: `{}` is put after its parent's key.
    fn empty(&self, parent: Place, entry: &Entry<'_>) -> Option<String> {
        let start = self.offset(parent)?;
        let rest = self.0.get(start..)?;
        let name = match rest.chars().next()? {
            '"' | '\'' => quoted_end(rest)?,
            _ => 0,
        };
        let is_end = |at: usize| {
            let after = rest.get(at + 1..).unwrap_or_default();
            after.is_empty() || after.starts_with(char::is_whitespace)
        };
        let colons = rest.get(name..)?.match_indices(':');
        let colon = colons.map(|(at, _)| name + at).find(|at| is_end(*at))?;
        let (_, key, _) = entry.map.get(entry.index)?;
        let from = self.line(usize::try_from(key.line).ok()?.checked_sub(1)?)?;
        let to = self.line(self.end_line(*key)?)?;
        let at = start + colon + 1;
        let (head, between, after) = (self.0.get(..at)?, self.0.get(at..from)?, self.0.get(to..)?);
        Some(format!("{head} {{}}{between}{after}"))
    }

    fn replace(&self, map: &Node, entry: &Entry<'_>, new: &Value) -> Option<String> {
        let (name, key, value) = entry.map.get(entry.index)?;
        let start = self.offset(value.place);
        let flow = self.is_flow(map);
        let scalar = matches!(value.content, Content::Scalar(_));
        let begins = start.and_then(|at| self.0.get(at..)?.chars().next());
        let block_text = matches!(begins, Some('|' | '>'));
        if let Some(start) = start
            && scalar
            && !block_text
            && !(new.is_object() || new.is_array())
        {
            let end = self.scalar_end(start, flow)?;
            return self.splice(start, end, &scalar_text(new, begins));
        }
        if flow || matches!(begins, Some('{' | '[')) {
            let start = start?;
            return self.splice(start, self.flow_end(start)?, &flow_text(new));
        }
        let from = self.line(usize::try_from(key.line).ok()?.checked_sub(1)?)?;
        let to = self.line(self.end_line(*key)?)?;
        let indent = usize::try_from(key.column).ok()?.checked_sub(1)?;
        self.splice(from, to, &block_text_of(name, new, indent)?)
    }

    fn add(
        &self,
        map: &Node,
        entries: &[(String, Place, Node)],
        name: &str,
        value: &Value,
    ) -> Option<String> {
        if self.is_flow(map) {
            let end = self.flow_end(self.offset(map.place)?)?.checked_sub(1)?;
            let inside = self.0.get(..end)?.trim_end();
            let comma = if entries.is_empty() || inside.ends_with(',') {
                ""
            } else {
                ","
            };
            let space = if entries.is_empty() { "" } else { " " };
            let new = format!(
                "{comma}{space}{}: {}",
                scalar_text(&name.into(), None),
                flow_text(value)
            );
            return self.splice(inside.len(), inside.len(), &new);
        }
        let (_, first, _) = entries.first()?;
        let (_, last, _) = entries.last()?;
        let indent = usize::try_from(first.column).ok()?.checked_sub(1)?;
        let at = self.line(self.end_line(*last)?)?;
        let mut new = block_text_of(name, value, indent)?;
        if at == self.0.len() && !self.0.ends_with('\n') {
            new.insert(0, '\n');
        }
        self.splice(at, at, &new)
    }

    /// The end of a scalar that begins at `start`.
    fn scalar_end(&self, start: usize, flow: bool) -> Option<usize> {
        let rest = self.0.get(start..)?;
        let quoted = |end: usize| Some(start + end);
        if rest.starts_with('"') || rest.starts_with('\'') {
            return quoted(quoted_end(rest)?);
        }
        let line = rest.lines().next()?;
        let mut end = line.len();
        for (at, c) in line.char_indices() {
            let comment = c == '#' && line.get(..at).is_some_and(|b| b.ends_with([' ', '\t']));
            if comment || (flow && matches!(c, ',' | '}' | ']')) {
                end = at;
                break;
            }
        }
        Some(start + line.get(..end)?.trim_end().len())
    }

    /// The end of a flow value that begins at `start`.
    fn flow_end(&self, start: usize) -> Option<usize> {
        let rest = self.0.get(start..)?;
        if !rest.starts_with(['{', '[']) {
            return self.scalar_end(start, true);
        }
        let (mut depth, mut at) = (0_usize, 0);
        while let Some(c) = rest.get(at..)?.chars().next() {
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' => depth = depth.checked_sub(1)?,
                '"' | '\'' => {
                    at += quoted_end(rest.get(at..)?)?;
                    continue;
                }
                // What a comment says would be counted.
                '#' => return None,
                _ => {}
            }
            at += c.len_utf8();
            if depth == 0 {
                return Some(start + at);
            }
        }
        None
    }
}

/// Bytes of the quoted scalar that `text` begins with.
fn quoted_end(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => {
                chars.next();
            }
            '\'' if quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
            }
            c if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

/// A scalar in the quotes that stood there, where it can be.
fn scalar_text(value: &Value, quote: Option<char>) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let quotes = || value.to_string();
    match quote {
        Some('"') => return quotes(),
        Some('\'') if !text.contains(['\'', '\n']) => return format!("'{text}'"),
        _ => {}
    }
    let yaml = serde_saphyr::to_string(value).unwrap_or_default();
    let safe = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '.' | '-' | '_' | '/' | '+');
    if yaml.trim_end() == text && text.chars().all(safe) {
        text.clone()
    } else {
        quotes()
    }
}

fn flow_text(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| {
                let key = scalar_text(&Value::String(key.clone()), None);
                format!("{key}: {}", flow_text(value))
            };
            format!(
                "{{{}}}",
                map.iter().map(entry).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow_text).collect();
            format!("[{}]", items.join(", "))
        }
        scalar => scalar_text(scalar, None),
    }
}

/// `name: value` as lines of a block map.
fn block_text_of(name: &str, value: &Value, indent: usize) -> Option<String> {
    let map = Map::from_iter([(name.to_owned(), value.clone())]);
    let yaml = serde_saphyr::to_string(&Value::Object(map)).ok()?;
    let space = " ".repeat(indent);
    let lines = yaml.lines().filter(|l| !l.is_empty());
    Some(lines.map(|line| format!("{space}{line}\n")).collect())
}
