//! What is in memory: all current values and the recent history.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::blob::Families;
use crate::format::{self, Contents};
use crate::wake::Bells;
use crate::{Blob, Entry, Error, Event, Op, Result, Revision};

/// What an event costs beside its bytes.
const EVENT_OVERHEAD: usize = 96;
/// Which part of the history's bytes the newest values may take that are not packed: who follows closely, or changes a
/// value again at once, finds them as they are.
const FRESH: usize = 16;

#[derive(Clone)]
struct Slot {
    value: Blob,
    modified: Revision,
    row: Row,
}

/// Where and how a value is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) created: Revision,
    pub(crate) checksum: u32,
}

pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    values: BTreeMap<Arc<str>, Slot>,
    pub(crate) history: VecDeque<Event>,
    history_bytes: usize,
    history_limit: usize,
    /// How many of the newest events have values that are not packed yet, and their bytes.
    fresh: usize,
    fresh_bytes: usize,
    families: Families,
    /// The id of the next new row.
    next_row: i64,
    pub(crate) bells: Bells,
    /// Bytes of history since everybody was woken last.
    unseen: usize,
}

/// One change whose preconditions held, with its final bytes.
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) value: Option<Bytes>,
    pub(crate) last: Option<Bytes>,
    /// The row that is written, or removed.
    pub(crate) row: Row,
    /// The checksum of the row before, where there was one.
    pub(crate) replaced: Option<u32>,
}

/// What earlier commits of the same batch have changed and memory does not show yet: modification revisions and rows;
/// `None` where the key is removed.
pub(crate) type Overlay = BTreeMap<String, Option<(Revision, Row)>>;

impl State {
    pub(crate) fn new(history_limit: usize) -> Self {
        Self {
            revision: 1,
            compacted: 1,
            values: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            history_limit,
            fresh: 0,
            fresh_bytes: 0,
            families: Families::default(),
            next_row: 1,
            bells: Bells::default(),
            unseen: 0,
        }
    }

    /// What a file holds. Nothing of what was before is known.
    pub(crate) fn loaded(history_limit: usize, contents: Contents) -> Self {
        let mut state = Self::new(history_limit);
        let rows = contents.rows.iter().map(|stored| stored.row);
        state.next_row = rows.max().unwrap_or_default() + 1;
        for stored in contents.rows {
            let Entry {
                key,
                value,
                created,
                modified,
            } = stored.entry;
            let row = Row {
                id: stored.row,
                created,
                checksum: stored.checksum,
            };
            state.keep(key, value, modified, row);
        }
        (state.revision, state.compacted) = (contents.revision, contents.revision);
        state
    }

    /// Puts a value that is kept elsewhere.
    pub(crate) fn load(&mut self, entry: Entry) {
        let Entry {
            key,
            value,
            created,
            modified,
        } = entry;
        let row = Row {
            id: self.next_row,
            created,
            checksum: 0,
        };
        self.next_row += 1;
        self.keep(key, value, modified, row);
    }

    /// Puts a value that nobody watches come.
    fn keep(&mut self, key: Arc<str>, value: Blob, modified: Revision, row: Row) {
        self.families.pack(&key, &value);
        let slot = Slot {
            value,
            modified,
            row,
        };
        self.values.insert(key, slot);
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        let (key, slot) = self.values.get_key_value(key)?;
        Some(entry(key, slot))
    }

    fn iter<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Slot)> {
        let start = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.values
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(crate) fn range(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Vec<Entry> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        self.iter(prefix, start_after)
            .take(limit)
            .map(|(key, slot)| entry(key, slot))
            .collect()
    }

    pub(crate) fn count(&self, prefix: &str, start_after: Option<&str>) -> usize {
        self.iter(prefix, start_after).count()
    }

    /// Undoes what was done since `revision`, newest first.
    pub(crate) fn range_at(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        revision: Revision,
    ) -> Result<Vec<(Arc<str>, Blob)>> {
        if revision < self.compacted {
            let compacted = self.compacted;
            return Err(Error::Compacted { compacted });
        }
        let mut past: BTreeMap<Arc<str>, Blob> = self
            .iter(prefix, start_after)
            .map(|(key, slot)| (key.clone(), slot.value.clone()))
            .collect();
        let since = self.history.partition_point(|e| e.revision <= revision);
        let counts = |key: &str| key.starts_with(prefix) && start_after.is_none_or(|a| key > a);
        for event in self.history.range(since..).rev().filter(|e| counts(&e.key)) {
            match &event.previous {
                Some(value) => past.insert(event.key.clone(), value.clone()),
                None => past.remove(&event.key),
            };
        }
        Ok(past.into_iter().collect())
    }

    /// Checks the preconditions of `ops` and gives what is to be changed at `revision`. What earlier commits of the
    /// batch change is in `overlay`, and is extended where this one can be made.
    pub(crate) fn prepare(
        &mut self,
        ops: &[Op],
        revision: Revision,
        overlay: &mut Overlay,
    ) -> Result<Vec<Change>> {
        let stored = |values: &BTreeMap<Arc<str>, Slot>, key: &str| match overlay.get(key) {
            Some(known) => *known,
            None => values.get(key).map(|slot| (slot.modified, slot.row)),
        };
        for op in ops {
            let expected = match op {
                Op::Put { expect, .. } | Op::Delete { expect, .. } => *expect,
                Op::Check { expect, .. } => Some(*expect),
            };
            let Some(expected) = expected else { continue };
            let found = stored(&self.values, op.key()).map_or(0, |(modified, _)| modified);
            if expected != found {
                let key = op.key().to_owned();
                return Err(Error::Conflict {
                    key,
                    expected,
                    found,
                });
            }
        }
        let mut own = Overlay::new();
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            let known = own.get(op.key()).copied();
            let before = known.unwrap_or_else(|| stored(&self.values, op.key()));
            let before = before.map(|(_, row)| row);
            let change = match op {
                Op::Put { key, value, .. } => {
                    let value = value.at(revision);
                    let (id, created) = before.map_or_else(
                        || {
                            self.next_row += 1;
                            (self.next_row - 1, revision)
                        },
                        |row| (row.id, row.created),
                    );
                    let checksum = format::checksum(key, created, revision, &value);
                    let row = Row {
                        id,
                        created,
                        checksum,
                    };
                    own.insert(key.clone(), Some((revision, row)));
                    Change {
                        key: key.clone(),
                        value: Some(value),
                        last: None,
                        row,
                        replaced: before.map(|row| row.checksum),
                    }
                }
                Op::Delete { key, last, .. } => {
                    let Some(row) = before else { continue };
                    own.insert(key.clone(), None);
                    Change {
                        key: key.clone(),
                        value: None,
                        last: last.as_ref().map(|value| value.at(revision)),
                        row,
                        replaced: Some(row.checksum),
                    }
                }
                Op::Check { .. } => continue,
            };
            changes.push(change);
        }
        overlay.append(&mut own);
        Ok(changes)
    }

    /// Makes changes visible, with their events.
    pub(crate) fn apply(&mut self, changes: Vec<Change>, revision: Revision) {
        if changes.is_empty() {
            return;
        }
        self.revision = revision;
        for change in changes {
            let event = match change.value {
                Some(value) => self.put(change.key, value.into(), revision, change.row),
                None => {
                    let Some((key, slot)) = self.values.remove_entry(change.key.as_str()) else {
                        continue;
                    };
                    Event {
                        revision,
                        key,
                        // Never the blob of an earlier event: what an event costs would change with that.
                        value: change.last.unwrap_or_else(|| slot.value.bytes()).into(),
                        previous: Some(slot.value),
                        deleted: true,
                    }
                }
            };
            self.bells.note(&event.key);
            self.history_bytes += cost(&event);
            self.unseen += cost(&event);
            self.fresh += 1;
            self.fresh_bytes += event.value.len();
            self.history.push_back(event);
        }
        while self.fresh > 0 && self.fresh_bytes > self.history_limit / FRESH {
            self.age();
        }
        // Those whom nothing concerns look on too, now and then, lest the history leaves them behind.
        if self.unseen > self.history_limit / 2 {
            self.unseen = 0;
            self.bells.note_all();
        }
        self.compact();
    }

    /// Packs the value of the oldest event whose is not packed yet.
    fn age(&mut self) {
        let oldest = self.history.len().checked_sub(self.fresh);
        if let Some(event) = oldest.and_then(|at| self.history.get(at)) {
            let before = event.value.held();
            self.families.pack(&event.key, &event.value);
            self.history_bytes -= before - event.value.held();
            self.fresh_bytes -= event.value.len();
        }
        self.fresh = self.fresh.saturating_sub(1);
    }

    fn put(&mut self, key: String, value: Blob, revision: Revision, row: Row) -> Event {
        let mut previous = None;
        let key = match self.values.get_key_value(key.as_str()) {
            Some((known, _)) => known.clone(),
            None => Arc::from(key),
        };
        self.values
            .entry(key.clone())
            .and_modify(|slot| {
                previous = Some(std::mem::replace(&mut slot.value, value.clone()));
                slot.modified = revision;
                slot.row = row;
            })
            .or_insert_with(|| Slot {
                value: value.clone(),
                modified: revision,
                row,
            });
        Event {
            revision,
            key,
            value,
            previous,
            deleted: false,
        }
    }

    /// Forgets the oldest commits, whole ones, until the history fits.
    fn compact(&mut self) {
        while self.history_bytes > self.history_limit {
            let Some(event) = self.forget_oldest() else {
                break;
            };
            self.compacted = self.compacted.max(event.revision);
        }
        while self
            .history
            .front()
            .is_some_and(|event| event.revision <= self.compacted)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> Option<Event> {
        let event = self.history.pop_front()?;
        self.history_bytes -= cost(&event);
        if self.fresh > self.history.len() {
            self.fresh -= 1;
            self.fresh_bytes -= event.value.len();
            if event.value.is_shared() {
                self.families.pack(&event.key, &event.value);
            }
        }
        Some(event)
    }

    /// The whole of a commit in memory.
    pub(crate) fn commit(&mut self, ops: &[Op]) -> Result<Revision> {
        let revision = self.revision + 1;
        let changes = self.prepare(ops, revision, &mut Overlay::new())?;
        self.apply(changes, revision);
        Ok(self.revision)
    }
}

fn cost(event: &Event) -> usize {
    // The value before is, most often, an earlier event's value: it is counted once.
    EVENT_OVERHEAD + event.value.held()
}

fn entry(key: &Arc<str>, slot: &Slot) -> Entry {
    Entry {
        key: key.clone(),
        value: slot.value.clone(),
        created: slot.row.created,
        modified: slot.modified,
    }
}
