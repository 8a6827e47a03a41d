//! Finds steps by their keys, so that a request doesn't look at every step of a long task.
//!
//! It follows from the steps and is told of none: whoever asks lets it catch up first. A step's
//! keys never change, and steps are only ever added.

use std::collections::HashMap;

use super::{Digest, Step};

/// Numbers of steps by key, in intent order.
#[derive(Clone, Debug, Default)]
pub struct Index {
    seen: usize,
    exact: HashMap<Digest, Vec<u32>>,
    masked: HashMap<Digest, Vec<u32>>,
}

impl Index {
    /// Takes up the steps that were added since.
    pub fn catch_up(&mut self, steps: &[Step]) {
        for step in steps.get(self.seen..).unwrap_or_default() {
            self.exact.entry(step.key).or_default().push(step.n);
            if let Some(masked) = step.masked {
                self.masked.entry(masked).or_default().push(step.n);
            }
        }
        self.seen = steps.len();
    }

    /// Steps of this key.
    #[must_use]
    pub fn of_key(&self, key: Digest) -> &[u32] {
        self.exact.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Steps of this masked key.
    #[must_use]
    pub fn of_masked(&self, masked: Digest) -> &[u32] {
        self.masked.get(&masked).map_or(&[], Vec::as_slice)
    }
}
