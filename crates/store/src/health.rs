//! How a log's server is, for those who don't write: what a hub says of itself while its writer waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What keeps a log from being written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The server can't be reached: the writer waits.
    Away,
    /// The server has no room: the writer tries again until it has.
    Full,
    /// Another has the lease: the writer's next append fails.
    Lost,
}

/// A handle on it. A log on SQLite has no trouble that its writer doesn't end with.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    pub fn trouble(&self) -> Trouble {
        match self.0.load(Ordering::Relaxed) {
            1 => Trouble::Away,
            2 => Trouble::Full,
            3 => Trouble::Lost,
            _ => Trouble::None,
        }
    }

    /// A lease that is lost stays lost.
    pub(crate) fn set(&self, trouble: Trouble) {
        let new = match trouble {
            Trouble::None => 0,
            Trouble::Away => 1,
            Trouble::Full => 2,
            Trouble::Lost => 3,
        };
        let _kept = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                (old != 3).then_some(new)
            });
    }
}
