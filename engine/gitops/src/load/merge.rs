//! Documents laid over each other, by the rules of a server-side apply: maps merge by key, lists that have keys by their
//! keys, sets by value; everything else is replaced. A null takes away what was said below it.

use std::collections::BTreeMap;

use fleetwright_schema::{
    Schema,
    fields::PathElement,
    structural::{self, ListType},
    typed::{child, element, items, merge_order},
};

use super::LoadContext;
use crate::yaml::{Content, Node, Place};

/// The settings of a provider: its schema holds for what is in them.
const PROVIDER_CONFIG: &str = "providerConfig";

type Entry = (String, Place, Node);

/// Merges values by the schemas of kinds and of providers.
pub(super) struct Merger<'c, 'a> {
    context: &'c LoadContext<'a>,
    /// Schemas of `providerConfig`, by `apiVersion` and kind.
    providers: BTreeMap<(String, String), Schema>,
}

impl<'c, 'a> Merger<'c, 'a> {
    pub(super) fn new(context: &'c LoadContext<'a>) -> Self {
        Self {
            context,
            providers: BTreeMap::new(),
        }
    }

    /// `over` laid over `under`. Nulls stay: [`drop_nulls`] ends a merge.
    pub(super) fn merge(&mut self, schema: &structural::Node, under: Node, over: Node) -> Node {
        let content = match (under.content, over.content) {
            (Content::Map(under), Content::Map(over)) if !schema.atomic_map => {
                Content::Map(self.maps(schema, under, over))
            }
            (Content::List(under), Content::List(over)) if schema.list_type != ListType::Atomic => {
                Content::List(self.lists(schema, under, over))
            }
            (_, over) => over,
        };
        Node {
            place: over.place,
            content,
        }
    }

    fn maps(
        &mut self,
        schema: &structural::Node,
        mut under: Vec<Entry>,
        over: Vec<Entry>,
    ) -> Vec<Entry> {
        let places: BTreeMap<String, usize> = under.iter().map(|e| e.0.clone()).zip(0..).collect();
        for (key, place, new) in over {
            let Some(slot) = places.get(&key).and_then(|at| under.get_mut(*at)) else {
                under.push((key, place, new));
                continue;
            };
            let old = std::mem::take(&mut slot.2);
            slot.1 = place;
            slot.2 = if key == PROVIDER_CONFIG {
                self.provider_config(child(schema, &key), old, new)
            } else {
                self.merge(child(schema, &key), old, new)
            };
        }
        under
    }

    fn lists(&mut self, schema: &structural::Node, under: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
        let elements = |list: &[Node]| -> Vec<PathElement> {
            let one = |item: &Node| element(schema, &item.to_value());
            list.iter().map(one).collect()
        };
        let order = merge_order(&elements(&under), &elements(&over));
        // Of an item that is there twice, the second finds nothing to be laid over.
        let [mut under, mut over] = [under, over].map(|l| l.into_iter().map(Some).collect());
        let take = |list: &mut Vec<Option<Node>>, at: Option<usize>| list.get_mut(at?)?.take();
        let mut out = Vec::with_capacity(order.len());
        for (old, new) in order {
            match (take(&mut under, old), take(&mut over, new)) {
                (Some(old), Some(new)) => out.push(self.merge(items(schema), old, new)),
                (one, other) => out.extend(one.or(other)),
            }
        }
        out
    }

    /// Settings of another kind take the place of what was there: fields of two providers make no whole.
    fn provider_config(&mut self, declared: &structural::Node, under: Node, over: Node) -> Node {
        let [old, new] = [&under, &over].map(|node| {
            ["apiVersion", "kind"].map(|name| node.get(name)?.as_str().map(ToOwned::to_owned))
        });
        let differs = |(old, new): (&Option<String>, &Option<String>)| {
            old.is_some() && new.is_some() && old != new
        };
        if old.iter().zip(&new).any(differs) {
            return over;
        }
        let [version, kind] = old;
        let [new_version, new_kind] = new;
        let schema = match (new_version.or(version), new_kind.or(kind)) {
            (Some(version), Some(kind)) => self.provider(version, kind),
            _ => None,
        };
        match schema {
            Some(schema) => self.merge(schema.root(), under, over),
            None => self.merge(declared, under, over),
        }
    }

    /// The compiled schema of a kind of `providerConfig`; `None` where no provider knows it.
    pub(super) fn provider(&mut self, version: String, kind: String) -> Option<Schema> {
        let said = (self.context.provider_schema)(&version, &kind)?;
        let known = self.providers.entry((version, kind));
        // A schema that is none says nothing of lists: they are replaced.
        let schema = known.or_insert_with(|| Schema::from_openapi(said).unwrap_or_default());
        Some(schema.clone())
    }
}

/// Takes away what is null wherever keys merge: it has done its work.
pub(super) fn drop_nulls(schema: &structural::Node, node: &mut Node) {
    match &mut node.content {
        Content::Map(entries) if !schema.atomic_map => {
            entries.retain(|(_, _, value)| !value.is_null());
            for (key, _, value) in entries {
                drop_nulls(child(schema, key), value);
            }
        }
        Content::List(list) if schema.list_type != ListType::Atomic => {
            for item in list {
                drop_nulls(items(schema), item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
