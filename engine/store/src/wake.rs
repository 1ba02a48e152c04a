//! Who is woken by a change: those who watch a prefix of its key, and no others.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::Notify;

/// Wakes the watchers of one prefix, in the order in which they wait: the same run is the same run again.
pub(crate) type Bell = Arc<Notify>;

/// The prefixes that are watched.
#[derive(Default)]
pub(crate) struct Bells {
    /// By prefix, with the number of its watchers.
    by_prefix: BTreeMap<String, (Bell, usize)>,
    /// To be rung once the store's lock is free.
    due: BTreeMap<String, Bell>,
}

impl Bells {
    /// Counts one more watcher of `prefix`.
    pub(crate) fn join(&mut self, prefix: &str) -> Bell {
        let (bell, watchers) = self.by_prefix.entry(prefix.to_owned()).or_default();
        *watchers += 1;
        Arc::clone(bell)
    }

    /// Counts one less.
    pub(crate) fn leave(&mut self, prefix: &str) {
        if let Some((_, watchers)) = self.by_prefix.get_mut(prefix) {
            *watchers -= 1;
            if *watchers == 0 {
                self.by_prefix.remove(prefix);
            }
        }
    }

    /// Notes that `key` has changed. The prefixes of the key are found from the longest to the shortest; the next one is
    /// never longer than what the key has in common with the one before it in order.
    pub(crate) fn note(&mut self, key: &str) {
        let mut below = Bound::Included(key);
        while let Some((prefix, (bell, _))) = self
            .by_prefix
            .range::<str, _>((Bound::Unbounded, below))
            .next_back()
        {
            if key.starts_with(prefix.as_str()) {
                if !self.due.contains_key(prefix) {
                    self.due.insert(prefix.clone(), Arc::clone(bell));
                }
                below = Bound::Excluded(&key[..prefix.len()]);
            } else {
                let same = key.char_indices().zip(prefix.chars());
                let end = same.take_while(|((_, a), b)| a == b).last();
                let end = end.map_or(0, |((at, a), _)| at + a.len_utf8());
                below = Bound::Included(&key[..end]);
            }
        }
    }

    /// Notes that everybody is to be woken.
    pub(crate) fn note_all(&mut self) {
        let all = self.by_prefix.iter();
        self.due = all
            .map(|(prefix, (bell, _))| (prefix.clone(), Arc::clone(bell)))
            .collect();
    }

    /// What is to be rung.
    pub(crate) fn due(&mut self) -> impl Iterator<Item = Bell> + use<> {
        std::mem::take(&mut self.due).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_rings_for_all_its_prefixes_and_no_others() {
        let mut bells = Bells::default();
        for prefix in ["", "/", "/a/", "/a/b", "/a/bc/", "/a/bc/d/x", "/b/", "/ä/"] {
            bells.join(prefix);
        }
        for (key, rung) in [
            ("/a/bc/d", &["", "/", "/a/", "/a/b", "/a/bc/"][..]),
            (
                "/a/bc/d/xy",
                &["", "/", "/a/", "/a/b", "/a/bc/", "/a/bc/d/x"],
            ),
            ("/b/a", &["", "/", "/b/"]),
            ("/c", &["", "/"]),
            ("/ä/ö", &["", "/", "/ä/"]),
            ("0", &[""]),
        ] {
            bells.note(key);
            let due: Vec<String> = std::mem::take(&mut bells.due).into_keys().collect();
            assert_eq!(due, rung, "{key}");
        }
        bells.leave("/b/");
        bells.note_all();
        assert_eq!(bells.due().count(), 7);
        assert_eq!(bells.due().count(), 0);
    }
}
