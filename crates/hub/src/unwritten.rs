//! Rows that the tables don't have yet: which tasks, steps, sessions and keys changed since the
//! log's watermark.
//!
//! A step changes its task's row and its own three times, and each such write is one to a random
//! page; entries and payloads go to the end of theirs. So the tables get the rows of many commits
//! at once, each row once, and the watermark says how far they are: see `store`'s `batch.rs` for
//! what makes that safe. Until then the state in memory is the only place that has them, which
//! bears on three things. A task that ended stays in memory until its rows are written. The writer
//! looks here before it looks into a table. And everybody else's read of rows is preceded by their
//! writing ([`crate::Hub::read`]), so nobody sees less than what was committed before he asked.
//! After a kill the next start folds the entries behind the watermark: [`LIMIT`] bounds how many.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use store::Row;
use tokio::time::Instant;

use crate::projection::{self, Session};
use crate::state::{Map, Open};

/// Entries whose rows may be left for later.
const LIMIT: u64 = 2048;
/// How long rows may be left for later, looked at with each batch and each tick.
const AGE: Duration = Duration::from_secs(1);

/// What changed since the watermark.
#[derive(Default)]
pub(crate) struct Unwritten {
    /// Tasks, each with those of its steps that changed.
    tasks: BTreeMap<String, BTreeSet<u32>>,
    sessions: BTreeMap<String, Session>,
    /// Tasks by the idempotency keys that made them.
    keys: BTreeMap<String, String>,
    entries: u64,
    since: Option<Instant>,
}

impl Unwritten {
    /// The task's row changed, and these steps' rows.
    pub(crate) fn changed(&mut self, task: &str, steps: impl IntoIterator<Item = u32>) {
        match self.tasks.get_mut(task) {
            Some(known) => known.extend(steps),
            None => {
                let steps = steps.into_iter().collect();
                self.tasks.insert(task.to_owned(), steps);
            }
        }
    }

    /// Notes a new task's turn in its session; `known` is what the table says of the session.
    pub(crate) fn note_session(
        &mut self,
        task: &mainstay_core::task::Task,
        known: impl FnOnce() -> Option<Session>,
    ) {
        if !self.sessions.contains_key(&task.session)
            && let Some(session) = known()
        {
            self.sessions.insert(task.session.clone(), session);
        }
        projection::note_session(&mut self.sessions, task);
    }

    pub(crate) fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.get(id)
    }

    pub(crate) fn note_key(&mut self, key: String, task: &str) {
        self.keys.insert(key, task.to_owned());
    }

    /// The task that an idempotency key made.
    pub(crate) fn task_of_key(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    pub(crate) fn has(&self, task: &str) -> bool {
        self.tasks.contains_key(task)
    }

    /// Every changed step with its task.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&str, u32)> {
        let tasks = self.tasks.iter();
        tasks.flat_map(|(task, steps)| steps.iter().map(|n| (task.as_str(), *n)))
    }

    /// Entries were appended and their rows left for later.
    pub(crate) fn left(&mut self, entries: u64) {
        self.entries += entries;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Enough was left, or for long enough.
    pub(crate) fn is_due(&self) -> bool {
        self.entries >= LIMIT || self.since.is_some_and(|since| since.elapsed() >= AGE)
    }

    /// The rows as the tasks in memory say.
    pub(crate) fn rows(&self, tasks: &Map<Open>) -> Vec<Row> {
        let mut rows = Vec::new();
        for (id, steps) in &self.tasks {
            let Some(open) = tasks.get(id) else { continue };
            let steps = steps.iter().filter_map(|n| open.record.step(*n));
            rows.push(projection::task_row(&open.record.task, open.updated_seq));
            rows.extend(steps.map(|step| projection::step_row(id, step)));
        }
        rows.extend(self.sessions.values().map(projection::session_row));
        rows.extend(self.keys.iter().map(|(key, task)| Row::Idempotency {
            key: key.clone(),
            task: task.clone(),
        }));
        rows
    }

    /// They are written. Returns the tasks that changed.
    pub(crate) fn written(&mut self) -> impl Iterator<Item = String> + use<> {
        std::mem::take(self).tasks.into_keys()
    }
}
