//! How many instances an account has room for. Lists are behind what was just made, and creates go on side by side: what was asked for
//! counts from before the call, and a list is asked for only where nothing else tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// For how long a list tells that there is room.
const TELLS: Duration = Duration::from_secs(60);
/// For how long a list tells that there is none.
const TELLS_FULL: Duration = Duration::from_secs(5);

/// What is known of one account.
#[derive(Debug, Default)]
struct Account {
    /// Instance keys of the latest list, and when it came.
    listed: Option<(Instant, BTreeSet<String>)>,
    /// Instance keys that were asked for, and until when lists may not show them.
    asked: BTreeMap<String, Instant>,
}

impl Account {
    fn used(&self, key: &str) -> usize {
        let listed = self.listed.as_ref().map(|(_, keys)| keys);
        let shown = |key: &String| listed.is_some_and(|keys| keys.contains(key));
        let others = self.asked.keys().filter(|k| *k != key && !shown(k));
        listed.map_or(0, BTreeSet::len) + others.count()
    }
}

/// What there is to be done before an instance is made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is room, and it is taken.
    Taken,
    /// There is none: so many are used.
    Full(usize),
    /// The account has to be listed first.
    List,
}

/// What is known of accounts that have a limit.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Mutex<BTreeMap<String, Account>>);

impl Rooms {
    /// Takes room for an instance in an account of this limit, until `within` has passed or it is [given back](Self::give_back).
    pub(crate) fn take(
        &self,
        account: &str,
        key: &str,
        limit: usize,
        now: Instant,
        within: Duration,
    ) -> Room {
        let mut all = self.0.lock();
        let known = all.entry(account.to_owned()).or_default();
        known.asked.retain(|_, until| *until > now);
        let Some(age) = known.listed.as_ref().map(|(at, _)| now.duration_since(*at)) else {
            return Room::List;
        };
        let used = known.used(key);
        if used < limit && age < TELLS {
            known.asked.insert(key.to_owned(), now + within);
            return Room::Taken;
        }
        if age < TELLS_FULL {
            Room::Full(used)
        } else {
            Room::List
        }
    }

    /// Takes in a list that came at this time: what was made while it was on its way was asked for, and counts as that.
    pub(crate) fn listed(&self, account: &str, at: Instant, keys: BTreeSet<String>) {
        let mut all = self.0.lock();
        let known = all.entry(account.to_owned()).or_default();
        if known.listed.as_ref().is_none_or(|(before, _)| *before < at) {
            known.listed = Some((at, keys));
        }
    }

    /// Gives back the room of an instance that is not made, or is deleted.
    pub(crate) fn give_back(&self, account: &str, key: &str) {
        if let Some(known) = self.0.lock().get_mut(account) {
            known.asked.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn what_was_asked_for_counts_before_lists_show_it() {
        let (rooms, begin) = (Rooms::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let within = Duration::from_secs(300);
        let take = |key: &str, seconds| rooms.take("a", key, 2, at(seconds), within);
        assert_eq!(take("k1", 0), Room::List);
        rooms.listed("a", at(0), keys(&["k0"]));
        // Of two creates at once one finds room, asked again the same one.
        assert_eq!(take("k1", 1), Room::Taken);
        assert_eq!(take("k2", 1), Room::Full(2));
        assert_eq!(take("k1", 2), Room::Taken);
        // A list that came before and one that is behind change nothing.
        rooms.listed("a", at(0), keys(&[]));
        assert_eq!(take("k2", 5), Room::List);
        rooms.listed("a", at(5), keys(&["k0"]));
        assert_eq!(take("k2", 6), Room::Full(2));
        rooms.listed("a", at(7), keys(&["k0", "k1"]));
        assert_eq!(take("k2", 8), Room::Full(2));
        // What came to nothing makes room, what is deleted once lists say so.
        rooms.give_back("a", "k1");
        assert_eq!(take("k2", 9), Room::Full(2));
        rooms.listed("a", at(10), keys(&["k1"]));
        assert_eq!(take("k2", 11), Room::Taken);
        assert_eq!(rooms.take("b", "k2", 2, at(11), within), Room::List);
    }

    #[test]
    fn one_list_tells_of_many_creates() {
        let (rooms, now) = (Rooms::default(), Instant::now());
        rooms.listed("a", now, keys(&[]));
        for n in 0..50 {
            let taken = rooms.take("a", &format!("k{n}"), 50, now, TELLS * 9);
            assert_eq!(taken, Room::Taken);
        }
        assert_eq!(rooms.take("a", "k", 50, now, TELLS), Room::Full(50));
        assert_eq!(rooms.take("a", "k0", 50, now + TELLS, TELLS), Room::List);
        rooms.listed("a", now + TELLS, keys(&[]));
        assert_eq!(rooms.take("a", "k0", 50, now + TELLS, TELLS), Room::Taken);
    }
}
