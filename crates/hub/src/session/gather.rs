//! Finds the entries of a session in the log: those of its tasks, and of the tasks that these
//! called, for they were submitted after them.
//!
//! One walk over the log, which can be gone on with later. The tables know tasks by session, but
//! no task's entries; and the proofs of an export need every leaf once anyway.

use std::collections::BTreeMap;

use mainstay_core::event::Event;
use store::{Entry, Reader, StoreError};

use crate::projection;

const PAGE: usize = 512;

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    session: String,
    /// Tasks with the sequences of their entries.
    pub(super) tasks: BTreeMap<String, Vec<u64>>,
    /// Entries below this were looked at.
    pub(super) next: u64,
    pub(super) entries: u64,
    pub(super) entry_bytes: u64,
    pub(super) payload_bytes: u64,
    /// Nothing is added to a session that is on its way.
    is_closed: bool,
}

impl Gathered {
    /// Of a session with whatever its tasks called.
    pub(super) fn of_session(session: &str) -> Self {
        Self {
            session: session.to_owned(),
            ..Self::default()
        }
    }

    /// Of these tasks alone.
    pub(super) fn of_tasks<'a>(tasks: impl Iterator<Item = &'a str>) -> Self {
        Self {
            tasks: tasks.map(|task| (task.to_owned(), Vec::new())).collect(),
            is_closed: true,
            ..Self::default()
        }
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Goes on to the end of the log, or to this sequence.
    pub(super) fn walk(&mut self, reader: &Reader, end: u64) -> Result<(), StoreError> {
        while self.next < end {
            let page = reader.entries(self.next, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for entry in page.iter().filter(|entry| entry.seq < end) {
                self.take(entry);
                self.next = entry.seq + 1;
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry) {
        if !self.is_closed && entry.kind == "task.submitted" && self.belongs(&entry.data) {
            self.tasks.entry(entry.subject.clone()).or_default();
        }
        let Some(of_task) = self.tasks.get_mut(&entry.subject) else {
            return;
        };
        of_task.push(entry.seq);
        self.entries += 1;
        // The rest of an entry is short and bounded.
        self.entry_bytes += entry.data.len() as u64 + 1024;
        for payload in &entry.payloads {
            self.payload_bytes += payload.length;
            self.entry_bytes += payload.name.len() as u64 + 128;
        }
    }

    /// Whether a submission is of the session, or of a task that one of its tasks called.
    pub(super) fn belongs(&self, data: &[u8]) -> bool {
        match projection::decode::<Event>(data) {
            Some(Event::TaskSubmitted {
                session,
                parent,
                ambient: false,
                ..
            }) => {
                let called = parent.is_some_and(|parent| self.tasks.contains_key(&parent.task));
                called || session == self.session
            }
            _ => false,
        }
    }
}
