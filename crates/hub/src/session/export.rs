//! A session leaves: its open tasks are parked in good order, each of its tasks is journaled as
//! moved, and what the log has of them becomes a file.
//!
//! From the entry `task.moved` on nothing is done here for a task any more; what still happens
//! around it (a late answer, a process that ends) finds it gone and is not written down, so that it
//! can come back without two histories. Asked again, the same file is made again. What dies before
//! that entry leaves tasks that were parked as interrupted, which the next hub takes up again.
//!
//! It runs to its end whether or not who asked stays: a file that nobody got can be asked for again.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_core::event::Event;
use mainstay_core::step::{StepKind, StepState};
use mainstay_core::task::Reason;
use store::{Entry, Paths, Reader, SaltedPayload, StoreError, leaf_hash};
use tokio::time::Instant;

use super::file::{self, MAX_ENTRIES, MAX_FILE_BYTES, Told};
use super::gather::Gathered;
use crate::stream::FrameKind;
use crate::tx::{Tx, unread};
use crate::{Code, Hub, HubError};

/// How long calls in flight may take to end; what of them nobody knows then is unknown.
const CALLS: Duration = Duration::from_secs(30);
/// How long processes may take to end. The fence does without it.
const PROCESSES: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(50);
const PAGE: usize = 512;

impl Hub {
    /// Makes a file of a session and gives its tasks out of this hub's hands.
    pub async fn session_export(&self, id: &str, author: &str) -> Result<Vec<u8>, HubError> {
        let (hub, id, author) = (self.clone(), id.to_owned(), author.to_owned());
        let (told, answer) = tokio::sync::oneshot::channel();
        self.spawn("session export", async move {
            // Who asked may be gone.
            let _ = told.send(hub.export(&id, &author).await);
        });
        let stopped = |_| HubError::new(Code::Unavailable, "the hub is stopping");
        answer.await.map_err(stopped)?
    }

    async fn export(&self, id: &str, author: &str) -> Result<Vec<u8>, HubError> {
        let agent = self.session_get(id).await?.agent;
        let gathered = self.gather(Gathered::of_session(id)).await?;
        refuse_if_large(id, &gathered)?;
        let left = self.leave(id, author, gathered).await;
        let (end, mut gathered) = match left {
            Ok(left) => left,
            Err(error) => {
                if !self.is_stopping() {
                    // The next hub does it where this one ends.
                    let _ = self.writer.run(|tx| tx.stay()).await;
                }
                return Err(error);
            }
        };
        gathered.close();
        let session = id.to_owned();
        self.read_entries(move |reader| {
            gathered.walk(reader, end)?;
            whole(reader, &session, &agent, &gathered)
        })
        .await
    }

    /// Waits for its tasks to come to rest. Returns where the log ends once they have moved.
    async fn leave(
        &self,
        id: &str,
        author: &str,
        mut gathered: Gathered,
    ) -> Result<(u64, Gathered), HubError> {
        let began = Instant::now();
        loop {
            refuse_if_large(id, &gathered)?;
            if self.is_stopping() {
                return Err(HubError::new(Code::Unavailable, "the hub is stopping"));
            }
            let patience = Patience {
                for_calls: began.elapsed() < CALLS,
                for_processes: began.elapsed() < PROCESSES,
            };
            let (known, author) = (gathered.clone(), author.to_owned());
            let moved = self
                .writer
                .run(move |tx| tx.move_out(&known, &author, patience))
                .await??;
            if let Some(moved) = moved {
                return Ok(moved);
            }
            tokio::time::sleep(LOOK).await;
            gathered = self.gather(gathered).await?;
        }
    }

    async fn gather(&self, mut gathered: Gathered) -> Result<Gathered, HubError> {
        self.read_entries(move |reader| {
            let size = reader.size()?;
            gathered.walk(reader, size)?;
            Ok(gathered)
        })
        .await
    }
}

fn refuse_if_large(id: &str, gathered: &Gathered) -> Result<(), HubError> {
    let bytes = file::file_bytes(
        gathered.entries,
        gathered.entry_bytes,
        gathered.payload_bytes,
    );
    // One more entry for each task is to come.
    let entries = gathered.entries + gathered.tasks.len() as u64;
    if bytes > MAX_FILE_BYTES as u64 || entries > MAX_ENTRIES as u64 {
        return Err(HubError::new(
            Code::TooLarge,
            format!(
                "session {id} has {} entries and about {bytes} bytes as a file; a file has {MAX_ENTRIES} and {MAX_FILE_BYTES} at most",
                gathered.entries
            ),
        ));
    }
    Ok(())
}

/// What is still waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    for_calls: bool,
    for_processes: bool,
}

impl Tx<'_> {
    /// The session stays: what was parked for its export goes on.
    fn stay(&mut self) {
        self.adopt_orphans();
        self.dispatch();
    }

    /// Parks what is open, and once all is quiet says of each task that it has moved. Returns where
    /// the log ends then, and what is in it; `None` while something is waited for.
    pub(super) fn move_out(
        &mut self,
        known: &Gathered,
        author: &str,
        patience: Patience,
    ) -> Result<Option<(u64, Gathered)>, HubError> {
        let mut known = known.clone();
        known
            .walk(self.state.log.read(), self.state.log.size())
            .map_err(unread)?;
        if self.brings(|data| known.belongs(data)) {
            // Submitted a moment ago, and readable the next.
            return Ok(None);
        }
        for id in known.tasks.keys() {
            self.refuse_if_called(id, &known)?;
        }
        let mut is_quiet = true;
        for id in known.tasks.keys() {
            self.come_to_rest(id, &known);
            let open = self.state.tasks.get(id);
            let calls = open.is_some_and(|open| open.has_calls());
            is_quiet &= !(calls && patience.for_calls);
            is_quiet &= !(self.state.is_ending(id) && patience.for_processes);
        }
        if !is_quiet {
            return Ok(None);
        }
        for (id, entries) in &known.tasks {
            self.say_moved(id, entries.len() as u64, author)?;
        }
        Ok(Some((self.next_seq(), known)))
    }

    /// A task that another one waits for can't leave without it.
    fn refuse_if_called(&mut self, id: &str, known: &Gathered) -> Result<(), HubError> {
        let open = self.state.tasks.get(id).map(|open| &open.record.task);
        let parent = open.and_then(|task| task.parent.as_ref());
        let outside = parent.filter(|parent| !known.tasks.contains_key(&parent.task));
        let Some(outside) = outside.filter(|_| self.is_open_task(id)) else {
            return Ok(());
        };
        let waits = self
            .state
            .tasks
            .get(&outside.task)
            .map(|open| &open.record.task);
        match waits.filter(|task| !task.state.is_terminal() && !task.ambient) {
            None => Ok(()),
            Some(task) => Err(HubError::new(
                Code::Conflict,
                format!(
                    "task {id} of this session was called by task {}, which waits for it: export session {} instead",
                    task.id, task.session
                ),
            )),
        }
    }

    /// Its process ends, and nobody gets it meanwhile.
    fn come_to_rest(&mut self, id: &str, known: &Gathered) {
        let open = self.state.tasks.get(id);
        let Some(open) = open.filter(|open| open.record.task.moved.is_none()) else {
            return;
        };
        let state = open.record.task.state;
        // A call to an agent whose task comes along will be found again.
        let called: Vec<(u32, String)> = open
            .record
            .steps
            .iter()
            .filter(|step| step.state == StepState::InFlight && step.kind == StepKind::Tool)
            .filter_map(|step| Some((step.n, self.called_by(&step.id, known)?)))
            .collect();
        if !state.is_terminal() && !state.is_parked() {
            self.park(
                id,
                Reason::Interrupted,
                None,
                "its session is being exported".to_owned(),
            );
        }
        for (n, task) in called {
            self.emit(id, "hub", Event::StepParked { n, task });
        }
    }

    fn called_by(&self, step: &str, known: &Gathered) -> Option<String> {
        let tasks = known.tasks.keys().filter_map(|id| self.state.tasks.get(id));
        let mut called = tasks.map(|open| &open.record.task).filter(|task| {
            task.parent
                .as_ref()
                .is_some_and(|parent| parent.step == step)
        });
        called.next().map(|task| task.id.clone())
    }

    fn say_moved(&mut self, id: &str, entries: u64, author: &str) -> Result<(), HubError> {
        if !self.load(id) && !self.load_erased(id)? {
            return Err(HubError::new(
                Code::Internal,
                format!("task {id} has entries and no row"),
            ));
        }
        if self.last_kind(id)? == Some("task.moved".to_owned()) {
            return Ok(());
        }
        self.flush_marks(id, "hub");
        self.unknown_calls(id);
        let entries = entries + self.uncommitted(id);
        self.emit(id, author, Event::TaskMoved { entries });
        if self.is_open_task(id) {
            self.frame(
                id,
                FrameKind::Question {
                    step: None,
                    reason: Reason::Moved.word().to_owned(),
                    text: "its session was exported, and it goes on where that is imported"
                        .to_owned(),
                },
            );
        }
        Ok(())
    }

    /// Calls that are still in flight when nobody waits any longer, whose hub has ended, or that the
    /// ended process made by itself.
    fn unknown_calls(&mut self, id: &str) {
        let steps = self.state.tasks.get(id).map(|open| &open.record.steps);
        let in_flight: BTreeSet<u32> = steps
            .into_iter()
            .flatten()
            .filter(|step| step.state == StepState::InFlight)
            .map(|step| step.n)
            .collect();
        for n in in_flight {
            self.emit(id, "hub", Event::StepUnknown { n });
        }
    }
}

/// The file, as the log stands now.
fn whole(
    reader: &Reader,
    session: &str,
    agent: &str,
    gathered: &Gathered,
) -> Result<Vec<u8>, StoreError> {
    let damaged = || StoreError::Damaged {
        what: "the log's last head".to_owned(),
    };
    let head = reader.last_head()?.ok_or_else(damaged)?;
    let wanted: BTreeSet<u64> = gathered.tasks.values().flatten().copied().collect();
    let mut out = Vec::new();
    let told = Told {
        session,
        agent,
        head: &head,
        key: reader.public_key(),
        entries: wanted.len(),
    };
    file::write_header(&mut out, &told);
    let mut paths = paths_of(reader, head.head.size, &wanted)?.into_iter();
    for seq in wanted {
        let (Some(entry), Some(path)) = (reader.entry(seq)?, paths.next()) else {
            return Err(damaged());
        };
        let bytes = bytes_of(&entry)?;
        let payloads = payloads_of(reader, &entry)?;
        file::write_entry(&mut out, &bytes, &path, &payloads);
    }
    Ok(out)
}

fn paths_of(
    reader: &Reader,
    size: u64,
    wanted: &BTreeSet<u64>,
) -> Result<Vec<Vec<store::Hash>>, StoreError> {
    let mut paths = Paths::default();
    while paths.size() < size {
        let page = reader.entries(paths.size(), PAGE)?;
        if page.is_empty() {
            return Err(StoreError::Damaged {
                what: format!("entry {}", paths.size()),
            });
        }
        for entry in page.iter().filter(|entry| entry.seq < size) {
            paths.push(leaf_hash(&bytes_of(entry)?), wanted.contains(&entry.seq));
        }
    }
    Ok(paths.finish())
}

/// An entry has one encoding: what is decoded and encoded again is what lies in the log.
fn bytes_of(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    entry.encode().map_err(|_| StoreError::Damaged {
        what: format!("entry {}", entry.seq),
    })
}

fn payloads_of(reader: &Reader, entry: &Entry) -> Result<Vec<(String, SaltedPayload)>, StoreError> {
    let mut payloads = Vec::new();
    for named in &entry.payloads {
        if let Some(payload) = reader.salted_payload(entry.seq, &named.name)? {
            payloads.push((named.name.clone(), payload));
        }
    }
    Ok(payloads)
}
