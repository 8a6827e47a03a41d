//! What is to be reconciled, and when: every object at most once at a time, a failed one later and
//! later, and nothing about why.
//!
//! A reconcile looks at the whole object, so two reasons for one are one. Times are arguments.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a failed object rests at first.
const FIRST: Duration = Duration::from_millis(200);
/// How long it rests at most.
const LONGEST: Duration = Duration::from_secs(120);

/// A queue of keys.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    due: BTreeSet<(Instant, K)>,
    at: HashMap<K, Instant>,
    running: HashSet<K>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Ord + Hash> Queue<K> {
    pub(crate) fn new() -> Self {
        Self {
            due: BTreeSet::new(),
            at: HashMap::new(),
            running: HashSet::new(),
            failures: HashMap::new(),
        }
    }

    /// Due at that time, or earlier if it was due earlier.
    pub(crate) fn push(&mut self, key: K, when: Instant) {
        match self.at.get(&key) {
            Some(before) if *before <= when => return,
            Some(before) => {
                self.due.remove(&(*before, key.clone()));
            }
            None => {}
        }
        self.at.insert(key.clone(), when);
        self.due.insert((when, key));
    }

    /// The next that is due and isn't running; it runs from now on.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        let key = self
            .due
            .iter()
            .take_while(|(when, _)| *when <= now)
            .find(|(_, key)| !self.running.contains(key))
            .map(|(_, key)| key.clone())?;
        if let Some(when) = self.at.remove(&key) {
            self.due.remove(&(when, key.clone()));
        }
        self.running.insert(key.clone());
        Some(key)
    }

    /// When there may be something to pop again, if nothing is pushed and nothing ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due
            .iter()
            .find(|(_, key)| !self.running.contains(key))
            .map(|(when, _)| *when)
    }

    /// It ran and all is well; looked at again after `again`, if that is said.
    pub(crate) fn succeeded(&mut self, key: K, now: Instant, again: Option<Duration>) {
        self.running.remove(&key);
        self.failures.remove(&key);
        if let Some(again) = again {
            self.push(key, now + again);
        }
    }

    /// It ran and failed: tried again, later each time. Returns how long it rests.
    pub(crate) fn failed(&mut self, key: K, now: Instant) -> Duration {
        self.running.remove(&key);
        let failures = self.failures.entry(key.clone()).or_default();
        let rest = FIRST.saturating_mul(1 << (*failures).min(16)).min(LONGEST);
        *failures += 1;
        // What was pushed meanwhile must not undo the rest: a fight would spin.
        if let Some(when) = self.at.remove(&key) {
            self.due.remove(&(when, key.clone()));
        }
        self.push(key, now + rest);
        rest
    }

    /// How many wait or run.
    pub(crate) fn len(&self) -> usize {
        self.at.len() + self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_runs_once_at_a_time_and_again_if_it_was_asked_for_meanwhile() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.push("a", now);
        queue.push("a", now);
        assert_eq!(queue.pop(now), Some("a"));
        queue.push("a", now);
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.next(), None);
        queue.succeeded("a", now, None);
        assert_eq!(queue.pop(now), Some("a"));
        queue.succeeded("a", now, None);
        assert_eq!((queue.pop(now), queue.len()), (None, 0));
    }

    #[test]
    fn a_failed_key_rests_longer_each_time_whoever_asks() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.push("a", now);
        let mut rests = Vec::new();
        let mut when = now;
        for _ in 0..12 {
            assert_eq!(queue.pop(when), Some("a"));
            queue.push("a", when);
            let rest = queue.failed("a", when);
            assert_eq!(queue.pop(when), None);
            when += rest;
            rests.push(rest);
        }
        assert_eq!(rests[0], FIRST);
        assert_eq!(rests[1], 2 * FIRST);
        assert_eq!(rests[11], LONGEST);
        assert_eq!(queue.pop(when), Some("a"));
        queue.succeeded("a", when, Some(FIRST));
        assert_eq!(queue.next(), Some(when + FIRST));
        assert_eq!(queue.pop(when + FIRST), Some("a"));
        assert_eq!(queue.failed("a", when), FIRST);
    }

    #[test]
    fn the_earlier_of_two_times_counts() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.push("a", now + FIRST);
        queue.push("b", now);
        queue.push("a", now + LONGEST);
        assert_eq!(queue.pop(now), Some("b"));
        assert_eq!(queue.pop(now), None);
        queue.push("a", now);
        assert_eq!(queue.pop(now), Some("a"));
    }
}
