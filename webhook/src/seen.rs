//! Deliveries that were seen: bounded, first in, first out.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

/// Remembers the last `capacity` keys.
#[derive(Debug)]
pub struct Seen {
    capacity: usize,
    inner: Mutex<(HashSet<String>, VecDeque<String>)>,
}

impl Seen {
    /// Remembers at most `capacity` keys; at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            inner: Mutex::default(),
        }
    }

    /// Whether the key is new; from now on it is not.
    pub fn is_new(&self, key: &str) -> bool {
        let mut inner = self.inner.lock();
        let (set, order) = &mut *inner;
        if !set.insert(key.to_owned()) {
            return false;
        }
        order.push_back(key.to_owned());
        while order.len() > self.capacity {
            if let Some(oldest) = order.pop_front() {
                set.remove(&oldest);
            }
        }
        true
    }

    /// Forgets a key: what it stood for was not done.
    pub fn forget(&self, key: &str) {
        let mut inner = self.inner.lock();
        inner.0.remove(key);
        inner.1.retain(|k| k != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_and_what_failed() {
        let seen = Seen::new(2);
        assert!(seen.is_new("a") && seen.is_new("b") && !seen.is_new("a"));
        assert!(seen.is_new("c"));
        assert!(seen.is_new("a"), "a was the oldest of three");
        seen.forget("a");
        assert!(seen.is_new("a"));
    }
}
