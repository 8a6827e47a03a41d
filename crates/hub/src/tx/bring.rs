//! What moving a session takes of a transaction: entries that are brought along from another log,
//! and looks at what of a task is committed and what isn't yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::event::Event;
use mainstay_core::task;
use store::NewEntry;

use super::{Tx, unread};
use crate::keys::TaskKey;
use crate::state::Open;
use crate::{HubError, projection};

impl Tx<'_> {
    /// Whether a task of this batch was submitted with such an event.
    pub(crate) fn brings(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let entries = self.batch.entries.iter();
        let mut submitted = entries.filter(|entry| entry.kind == "task.submitted");
        submitted.any(|entry| wanted(&entry.data))
    }

    /// Entries of a task in this batch.
    pub(crate) fn uncommitted(&self, id: &str) -> u64 {
        let of_task = self
            .batch
            .entries
            .iter()
            .filter(|entry| entry.subject == id);
        of_task.count() as u64
    }

    /// Kind of a loaded task's last entry.
    pub(crate) fn last_kind(&self, id: &str) -> Result<Option<String>, HubError> {
        let Some(open) = self.state.tasks.get(id) else {
            return Ok(None);
        };
        let size = self.state.log.size();
        if let Some(at) = open.updated_seq.checked_sub(size) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            return Ok(self.batch.entries.get(at).map(|entry| entry.kind.clone()));
        }
        let entry = self.state.log.read().entry(open.updated_seq);
        Ok(entry.map_err(unread)?.map(|entry| entry.kind))
    }

    /// Brings a task into memory that has ended and whose key was erased. It can't be tried again,
    /// so nothing is ever matched with the key it is given.
    pub(crate) fn load_erased(&mut self, id: &str) -> Result<bool, HubError> {
        let found = projection::load(self.state.log.read(), id).map_err(unread)?;
        let found = found.filter(|(record, _)| record.task.state.is_terminal());
        let Some((record, updated_seq)) = found else {
            return Ok(false);
        };
        let open = self.brought(record, updated_seq, [0; 32]);
        self.state.tasks.insert(id.to_owned(), open);
        self.after.settled.insert(id.to_owned());
        Ok(true)
    }

    fn brought(&self, record: task::TaskRecord, updated_seq: u64, key: TaskKey) -> Open {
        let clocks = self.clocks();
        let deadline_ms = record.task.deadline_ms;
        Open {
            updated_seq,
            key,
            input_text: Arc::from(""),
            blobs: Default::default(),
            index: Default::default(),
            pending_marks: BTreeMap::new(),
            inherited: None,
            unheard: None,
            born_ms: clocks.boot_time(record.task.created_ms),
            due_ms: deadline_ms.map(|deadline| clocks.boot_time(deadline)),
            rests_until: None,
            record,
        }
    }

    /// Appends an entry of a task as it stood in another log, time included. A first entry makes
    /// the task. Nothing is counted or shown for it: it happened elsewhere.
    pub(crate) fn bring(&mut self, entry: NewEntry, event: &Event, key: Option<TaskKey>) {
        let (seq, id, at_ms) = (self.next_seq(), entry.subject.clone(), entry.time_ms);
        if let Some(record) = task::create(&id, seq, at_ms, event) {
            if let Event::TaskSubmitted {
                idempotency: Some(digest),
                ..
            } = event
            {
                self.state.unwritten.note_key(digest.to_hex(), &id);
            }
            self.note_session(&record.task);
            let mut open = self.brought(record, seq, key.unwrap_or_default());
            open.input_text = input_text(&entry);
            self.state.tasks.insert(id.clone(), open);
            self.after.settled.insert(id.clone());
        }
        let Some(open) = self.state.tasks.get_mut(&id) else {
            return;
        };
        task::apply(&mut open.record, seq, at_ms, event);
        open.updated_seq = seq;
        let blobs = entry.payloads.iter().filter_map(|(name, _)| blob(name));
        open.blobs.extend(blobs);
        if let Some(key) = projection::came_along(&open.record.task, event) {
            self.state.unwritten.note_key(key, &id);
        }
        self.state
            .unwritten
            .changed(&id, projection::changed_steps(event));
        self.batch.entries.push(entry);
    }

    /// The task that came with the caller of this step, if one did.
    pub(crate) fn called(&self, caller: &str, step: &str) -> Result<Option<String>, HubError> {
        let key = projection::called_key(caller, step);
        match self.state.unwritten.task_of_key(&key) {
            Some(task) => Ok(Some(task.to_owned())),
            None => self.state.log.read().idempotent_task(&key).map_err(unread),
        }
    }
}

fn input_text(entry: &NewEntry) -> Arc<str> {
    let input = entry.payloads.iter().find(|(name, _)| name == "input");
    let input = input.and_then(|(_, bytes)| serde_json::from_slice(bytes).ok());
    crate::boot::input_text(&input.unwrap_or_default())
}

fn blob(name: &str) -> Option<[u8; 32]> {
    hex::decode(name.strip_prefix("blob:")?)
        .ok()?
        .try_into()
        .ok()
}
