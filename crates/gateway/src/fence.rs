//! The fence: when a newer attempt of a task calls, what an older one still waits for is cut off.
//!
//! The hub refuses the older attempt's next call anyway. This ends the call it is in, so that a
//! process that can't be ended, or one that shares its life with other tasks, gets no answer for
//! a task that is no longer its own. Only connections that work for the task now are closed: a
//! client may use one for several tasks in turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hub::caller::Caller;

use crate::wire::Connection;

/// Tasks remembered before those without a connection are forgotten.
const TIDY_AT: usize = 1024;

/// Who calls for which task.
#[derive(Default)]
pub struct Fence {
    by_task: Mutex<HashMap<String, Holder>>,
}

#[derive(Default)]
struct Holder {
    attempt: u32,
    connections: Vec<Weak<Connection>>,
}

impl Fence {
    /// A call has begun on this connection.
    pub fn enter(&self, caller: &Caller, connection: &Arc<Connection>) {
        self.begin(&caller.task, caller.attempt, connection);
    }

    fn begin(&self, task: &str, attempt: u32, connection: &Arc<Connection>) {
        connection.works_for(task, attempt);
        let mut by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        if by_task.len() >= TIDY_AT {
            by_task.retain(|_, holder| holder.is_alive());
        }
        let holder = by_task.entry(task.to_owned()).or_default();
        if attempt > holder.attempt {
            holder.attempt = attempt;
            for older in holder.connections.drain(..) {
                if let Some(older) = older.upgrade() {
                    older.cut_if_older(task, attempt);
                }
            }
        }
        holder.connections.retain(|known| known.strong_count() > 0);
        let known = |known: &Weak<Connection>| known.as_ptr() == Arc::as_ptr(connection);
        if !holder.connections.iter().any(known) {
            holder.connections.push(Arc::downgrade(connection));
        }
    }
}

impl Holder {
    fn is_alive(&self) -> bool {
        self.connections
            .iter()
            .any(|known| known.strong_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_work_for_an_older_attempt_are_cut() {
        let fence = Fence::default();
        let [older, moved_on, newer] = std::array::from_fn(|_| Arc::new(Connection::default()));
        fence.begin("a", 1, &older);
        fence.begin("a", 1, &moved_on);
        fence.begin("b", 1, &moved_on);
        assert!(!older.is_cut());
        fence.begin("a", 2, &newer);
        let cut = [&older, &moved_on, &newer].map(|connection| connection.is_cut());
        assert_eq!(cut, [true, false, false]);
    }
}
