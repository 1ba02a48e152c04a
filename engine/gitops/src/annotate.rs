//! Objects as YAML that says where each value was written.

use std::collections::BTreeMap;

use crate::{
    load::DesiredObject,
    yaml::{self, Content, Node, Place},
};

/// The path of the value that begins in each line of an object's YAML, by the number of the line, from 1.
pub(crate) fn paths(text: &str) -> BTreeMap<usize, Vec<String>> {
    let mut out = BTreeMap::new();
    for document in yaml::parse(text).unwrap_or_default() {
        put(&document, &mut Vec::new(), &mut out);
    }
    out
}

fn put(node: &Node, path: &mut Vec<String>, out: &mut BTreeMap<usize, Vec<String>>) {
    let mut down = |part: String, place: Place, node: &Node| {
        path.push(part);
        if let Ok(line) = usize::try_from(place.line) {
            out.insert(line, path.clone());
        }
        put(node, path, out);
        path.pop();
    };
    match &node.content {
        Content::Map(entries) => {
            for (key, place, value) in entries {
                down(key.clone(), *place, value);
            }
        }
        Content::List(items) => {
            for (at, item) in items.iter().enumerate() {
                down(at.to_string(), item.place, item);
            }
        }
        Content::Scalar(_) => {}
    }
}

/// An object as it is applied, as a YAML document. Of one that is built on bases each value has a comment with the file and line
/// that it was written in.
#[must_use]
pub fn render(object: &DesiredObject) -> String {
    let yaml = serde_saphyr::to_string(&object.document).unwrap_or_default();
    let mut out = format!("---\n# {}:{}\n", object.file, object.line);
    let places = match object.origins.is_one() {
        true => BTreeMap::new(),
        false => paths(&yaml),
    };
    for (number, line) in (1..).zip(yaml.lines()) {
        out.push_str(line);
        if let Some(origin) = places.get(&number).and_then(|path| object.origins.of(path)) {
            out.push_str(&format!("  # {origin}"));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests;
