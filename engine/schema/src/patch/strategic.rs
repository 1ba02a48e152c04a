//! Strategic merge patch: a merge patch that merges the lists of core kinds by key.

use super::{PatchError, none, object};
use crate::structural::Node;
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// What `live` becomes by a strategic merge patch.
///
/// # Errors
/// [`PatchError::Malformed`] when a directive is not known, or an item lacks the key that it is merged by.
pub fn strategic(node: &Node, live: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(fields) = patch.as_object() else {
        return Ok(patch.clone());
    };
    match fields
        .get(DIRECTIVE)
        .map(|d| d.as_str().unwrap_or_default())
    {
        None | Some("merge") => {}
        Some("replace") => return Ok(plain(&Value::Object(fields.clone()))),
        Some("delete") => return Ok(Value::Object(Map::new())),
        Some(other) => return Err(unknown(other)),
    }
    let mut out = object(live);
    if let Some(keep) = fields.get(RETAIN).and_then(Value::as_array) {
        out.retain(|name, _| keep.iter().any(|k| k == name));
    }
    for (name, gone) in fields {
        if let Some(list) = name.strip_prefix(DELETE_ITEMS)
            && let (Some(gone), Some(Value::Array(have))) = (gone.as_array(), out.get_mut(list))
        {
            have.retain(|item| !gone.contains(item));
        }
    }
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with('$')) {
        if value.is_null() {
            out.remove(name);
            continue;
        }
        let child = node.child(name).unwrap_or_else(|| none());
        let have = out.get(name).cloned().unwrap_or(Value::Null);
        let merged = match (&have, value) {
            (Value::Array(have), Value::Array(items)) if child.patch.merge => {
                list(child, have, items)?
            }
            (_, Value::Array(items)) if child.patch.merge => list(child, &[], items)?,
            (_, Value::Object(_)) => strategic(child, &have, value)?,
            _ => value.clone(),
        };
        out.insert(name.clone(), merged);
    }
    for (name, list) in fields {
        let name = name.strip_prefix(ORDER).unwrap_or(name);
        let child = node.child(name).unwrap_or_else(|| none());
        let order = fields.get(&format!("{ORDER}{name}")).unwrap_or(list);
        if let (true, Some(order), Some(Value::Array(have))) =
            (child.patch.merge, order.as_array(), out.get_mut(name))
        {
            let before = live
                .get(name)
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice);
            *have = ordered(
                child.patch.merge_key.as_deref(),
                before,
                order,
                std::mem::take(have),
            );
        }
    }
    Ok(Value::Object(out))
}

fn unknown(directive: &str) -> PatchError {
    PatchError::Malformed(format!(
        "Unknown patch type found: {directive}: use merge, replace or delete"
    ))
}

fn list(node: &Node, have: &[Value], items: &[Value]) -> Result<Value, PatchError> {
    let item_node = node.items.as_deref().unwrap_or_else(|| none());
    let Some(key) = &node.patch.merge_key else {
        let mut out = have.to_vec();
        out.extend(items.iter().filter(|item| !have.contains(item)).cloned());
        return Ok(out.into());
    };
    let replaces = |item: &Value| {
        item.get(DIRECTIVE).is_some_and(|d| d == "replace") && item.get(key).is_none()
    };
    let mut out = if items.iter().any(replaces) {
        Vec::new()
    } else {
        have.to_vec()
    };
    for item in items.iter().filter(|item| !replaces(item)) {
        let Some(wanted) = item.get(key) else {
            return Err(PatchError::Malformed(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        };
        let place = out.iter().position(|have| have.get(key) == Some(wanted));
        match (
            item.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()),
            place,
        ) {
            (Some("delete"), Some(place)) => drop(out.remove(place)),
            (Some("delete"), None) => {}
            (None | Some("merge" | "replace"), place) => {
                let base = place
                    .and_then(|i| out.get(i))
                    .cloned()
                    .unwrap_or(Value::Null);
                let merged = strategic(item_node, &base, item)?;
                match place.and_then(|i| out.get_mut(i)) {
                    Some(slot) => *slot = merged,
                    None => out.push(merged),
                }
            }
            (Some(other), _) => return Err(unknown(other)),
        }
    }
    Ok(out.into())
}

/// Puts items that `order` names in its order, and the others, which only the server has, at their old place among them:
/// before the first named item that stood behind them.
fn ordered(key: Option<&str>, before: &[Value], order: &[Value], items: Vec<Value>) -> Vec<Value> {
    let same = |a: &Value, b: &Value| key.map_or(a == b, |key| a.get(key) == b.get(key));
    let place = |list: &[Value], item: &Value| list.iter().position(|have| same(have, item));
    let (mut named, rest): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    let mut out = Vec::new();
    while let (Some(left), Some(right)) = (named.peek(), rest.peek()) {
        let left_first = place(before, left)
            .is_none_or(|left| place(before, right).is_some_and(|right| left < right));
        out.extend(if left_first {
            named.next()
        } else {
            rest.next()
        });
    }
    out.extend(named.chain(rest));
    out
}

/// A value without directives.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(name, _)| !name.starts_with('$'))
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}
