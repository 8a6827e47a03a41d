//! A transaction of the writer: events emitted by the jobs of one batch, and what follows them.

mod bring;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstay_core::event::{Event, Payload, Recorded, StepMark};
use mainstay_core::step::StepState;
use mainstay_core::task;
use store::{Batch, NewEntry, Row};
use tokio::time::Instant;

use crate::action::Action;
use crate::keys::TaskKey;
use crate::projection::{self, EVENT_VERSION};
use crate::shared::{self, Shared};
use crate::state::{Clocks, Open, State};
use crate::stream::{FrameKind, Published};
use crate::{Code, HubError};

/// Marks in one entry: an entry's data is bounded.
const MARKS_AT_ONCE: usize = 4096;

/// Runs jobs of one batch against the state.
pub(crate) struct Tx<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) now_ms: i64,
    pub(crate) boot_ms: i64,
    batch: Batch,
    system: Batch,
    /// Steps that events of this batch changed, with their tasks.
    changed: Vec<(String, u32)>,
    wants_dispatch: bool,
    wants_rows: bool,
    after: After,
}

/// What is done once the batch is durable.
#[derive(Default)]
pub(crate) struct After {
    actions: Vec<Action>,
    frames: Vec<(String, Published)>,
    settled: BTreeSet<String>,
    size: u64,
    entries: u64,
    commit_micros: Option<u64>,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(state: &'a mut State, shared: &'a Arc<Shared>) -> Self {
        let clocks = Clocks::read(shared.ground.as_ref());
        Self {
            state,
            shared,
            now_ms: clocks.wall_ms,
            boot_ms: clocks.boot_ms,
            batch: Batch::default(),
            system: Batch::default(),
            changed: Vec::new(),
            wants_dispatch: false,
            wants_rows: false,
            after: After::default(),
        }
    }

    /// The sequence the next entry will have.
    pub(crate) fn next_seq(&self) -> u64 {
        self.state.log.size() + self.batch.entries.len() as u64
    }

    /// Emits an event of a new task.
    pub(crate) fn create(
        &mut self,
        id: &str,
        author: &str,
        traceparent: Option<String>,
        recorded: Recorded,
        key: TaskKey,
        input_text: Arc<str>,
    ) {
        let Recorded { event, payloads } = recorded;
        let seq = self.push(id, author, traceparent, &event, payloads);
        let Some(record) = task::create(id, seq, self.now_ms, &event) else {
            return;
        };
        if let Event::TaskSubmitted {
            idempotency: Some(digest),
            ..
        } = &event
        {
            self.state.unwritten.note_key(digest.to_hex(), id);
        }
        self.note_session(&record.task);
        let deadline_ms = record.task.deadline_ms;
        let due_ms = deadline_ms.map(|deadline| self.clocks().boot_time(deadline));
        let open = Open {
            record,
            updated_seq: seq,
            key,
            input_text,
            blobs: Default::default(),
            index: Default::default(),
            pending_marks: BTreeMap::new(),
            inherited: None,
            unheard: None,
            born_ms: self.boot_ms,
            due_ms,
            rests_until: None,
        };
        self.state.tasks.insert(id.to_owned(), open);
        self.state.unwritten.changed(id, None);
        self.refresh(id);
    }

    fn note_session(&mut self, task: &task::Task) {
        let reader = self.state.log.read();
        self.state
            .unwritten
            .note_session(task, || projection::session(reader, &task.session));
    }

    /// The session's agent, if the session exists.
    pub(crate) fn session_agent(&self, session: &str) -> Result<Option<String>, HubError> {
        if let Some(session) = self.state.unwritten.session(session) {
            return Ok(Some(session.agent.clone()));
        }
        let row = self.state.log.read().session(session).map_err(unread)?;
        Ok(row.and_then(|row| row.agent))
    }

    /// The task that an idempotency key made.
    pub(crate) fn idempotent(
        &self,
        key: mainstay_core::step::Digest,
    ) -> Result<Option<String>, HubError> {
        let key = key.to_hex();
        match self.state.unwritten.task_of_key(&key) {
            Some(task) => Ok(Some(task.to_owned())),
            None => self.state.log.read().idempotent_task(&key).map_err(unread),
        }
    }

    /// Follows the task's deadline after an event that changed it.
    pub(crate) fn renew_due(&mut self, id: &str) {
        let clocks = self.clocks();
        if let Some(open) = self.state.tasks.get_mut(id) {
            let deadline_ms = open.record.task.deadline_ms;
            open.due_ms = deadline_ms.map(|deadline| clocks.boot_time(deadline));
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            wall_ms: self.now_ms,
            boot_ms: self.boot_ms,
        }
    }

    /// Emits an event of a task and applies it. What is still told of a task that has moved is not
    /// written down: it would have two histories, and could not come back.
    pub(crate) fn emit(&mut self, id: &str, author: &str, recorded: impl Into<Recorded>) {
        let Recorded { event, payloads } = recorded.into();
        if !self.load(id) {
            return;
        }
        if self.has_moved(id) && !concerns_moved(&event) {
            tracing::debug!(task = id, kind = event.kind(), "the task has moved");
            return;
        }
        self.flush_marks(id, author);
        let seq = self.push(id, author, None, &event, payloads);
        self.apply(id, seq, &event);
    }

    /// It goes on elsewhere, or lies where its export put it.
    pub(crate) fn has_moved(&self, id: &str) -> bool {
        let open = self.state.tasks.get(id);
        open.is_some_and(|open| open.record.task.moved.is_some())
    }

    fn apply(&mut self, id: &str, seq: u64, event: &Event) {
        let Some(open) = self.state.tasks.get_mut(id) else {
            return;
        };
        task::apply(&mut open.record, seq, self.now_ms, event);
        open.updated_seq = seq;
        if let Some(key) = projection::came_along(&open.record.task, event) {
            self.state.unwritten.note_key(key, id);
        }
        let steps = projection::changed_steps(event);
        if !matches!(event, Event::StepsMarked { .. }) {
            let changed = steps.iter().map(|n| (id.to_owned(), *n));
            self.changed.extend(changed);
        }
        self.state.unwritten.changed(id, steps);
        let state = open.record.task.state;
        if state.is_terminal() || state.is_parked() {
            self.after.settled.insert(id.to_owned());
        }
        self.shared.metrics.event(&open.record, event);
        self.refresh(id);
    }

    fn push(
        &mut self,
        id: &str,
        author: &str,
        traceparent: Option<String>,
        event: &Event,
        payloads: Vec<Payload>,
    ) -> u64 {
        let seq = self.next_seq();
        self.batch.entries.push(NewEntry {
            time_ms: self.now_ms,
            kind: event.kind().to_owned(),
            version: EVENT_VERSION,
            subject: id.to_owned(),
            author: author.to_owned(),
            traceparent,
            data: projection::encode(event),
            payloads: payloads
                .into_iter()
                .map(|payload| (payload.name, payload.bytes))
                .collect(),
        });
        seq
    }

    /// Marks a step in memory; the entry follows with the task's next event.
    pub(crate) fn mark(&mut self, id: &str, attempt: u32, mark: StepMark) {
        let Some(open) = self.state.tasks.get_mut(id) else {
            return;
        };
        let task = &open.record.task;
        if task.attempt != attempt || task.moved.is_some() {
            return;
        }
        // Asked for again and again, an answer that is marked already makes no entries.
        let says_nothing = open.record.step(mark.n).is_some_and(|step| {
            step.mark_attempt == attempt
                && step.mark == mark
                && (step.ever_delivered || !mark.delivered)
        });
        if says_nothing {
            return;
        }
        let event = Event::StepsMarked {
            attempt,
            marks: vec![mark],
        };
        let updated_ms = open.record.task.updated_ms;
        task::apply(&mut open.record, open.updated_seq, updated_ms, &event);
        open.pending_marks.insert(mark.n, mark);
    }

    /// Marks made so far go with this commit; whether the answer arrives is marked later.
    pub(crate) fn flush_marks(&mut self, id: &str, author: &str) {
        let Some(open) = self.state.tasks.get_mut(id) else {
            return;
        };
        if open.pending_marks.is_empty() {
            return;
        }
        let marks: Vec<StepMark> = std::mem::take(&mut open.pending_marks)
            .into_values()
            .collect();
        let attempt = open.record.task.attempt;
        for marks in marks.chunks(MARKS_AT_ONCE) {
            let event = Event::StepsMarked {
                attempt,
                marks: marks.to_vec(),
            };
            let seq = self.push(id, author, None, &event, Vec::new());
            self.apply(id, seq, &event);
        }
    }

    /// Marks made in this batch after their step's last event go with it. And a row that is
    /// written says what the entries say: the marks of its step go with it.
    fn flush_marks_of_steps(&mut self, writes_rows: bool) {
        let changed = self.changed.iter().map(|(id, n)| (id.as_str(), *n));
        let unwritten = writes_rows.then(|| self.state.unwritten.steps());
        let marked: BTreeSet<String> = changed
            .chain(unwritten.into_iter().flatten())
            .filter(|(id, n)| {
                let open = self.state.tasks.get(*id);
                open.is_some_and(|open| open.pending_marks.contains_key(n))
            })
            .map(|(id, _)| id.to_owned())
            .collect();
        for id in marked {
            self.flush_marks(&id, "hub");
        }
    }

    /// Marks that no later commit would carry: the hub ends.
    pub(crate) fn flush_all_marks(&mut self) {
        let marked = |open: &&Open| !open.pending_marks.is_empty();
        let tasks = self.state.tasks.values().filter(marked);
        let ids: Vec<String> = tasks.map(|open| open.record.task.id.clone()).collect();
        for id in ids {
            self.flush_marks(&id, "hub");
        }
    }

    /// Brings a task into memory if it exists.
    pub(crate) fn load(&mut self, id: &str) -> bool {
        if self.state.tasks.contains_key(id) {
            return true;
        }
        let reader = self.state.log.read();
        let Ok(Some((record, updated_seq))) = projection::load(reader, id) else {
            return false;
        };
        let open = crate::boot::open_task(reader, record, updated_seq, self.clocks());
        let Ok(Some(open)) = open else {
            return false;
        };
        self.state.tasks.insert(id.to_owned(), open);
        // Looked at again at the commit: it goes when it is terminal and nothing of it is in flight.
        self.dirty_tasks_touch(id);
        true
    }

    fn dirty_tasks_touch(&mut self, id: &str) {
        self.after.settled.insert(id.to_owned());
    }

    /// Keeps queues, leases and callers in step with a task.
    pub(crate) fn refresh(&mut self, id: &str) {
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let task = &open.record.task;
        if crate::caller::is_published(self.shared, task) {
            return;
        }
        let place = (task.created_ms, id.to_owned());
        if task.state.is_terminal() {
            if let Some(session) = self.state.sessions.get_mut(&task.session) {
                session.remove(&place);
                if session.is_empty() {
                    self.state.sessions.remove(&task.session);
                }
            }
        } else if !task.ambient {
            let session = self.state.sessions.entry(task.session.clone()).or_default();
            session.insert(place.clone());
        }
        let queue = self.state.queues.entry(task.agent.clone()).or_default();
        if open.is_waiting() {
            queue.insert(place);
        } else {
            queue.remove(&place);
        }
        // An ambient task takes no room.
        let holder = task
            .lease
            .as_ref()
            .filter(|_| !task.ambient)
            .map(|lease| lease.instance.clone());
        let mut freed = None;
        for (instance, leased) in &mut self.state.leases {
            if Some(instance) != holder.as_ref() && leased.remove(id) {
                freed = Some(instance.clone());
            }
        }
        if let Some(instance) = holder {
            self.state
                .leases
                .entry(instance)
                .or_default()
                .insert(id.to_owned());
        }
        crate::caller::publish(self, id);
        if let Some(instance) = freed {
            self.replace_outdated(&instance);
        }
    }

    /// Gives waiting tasks to free instances at the end of this batch: for those who free one
    /// where looking at the queues at once would be looking at them while they change.
    pub(crate) fn dispatch_later(&mut self) {
        self.wants_dispatch = true;
    }

    /// Writes the rows of all entries with this commit: somebody is about to read them.
    pub(crate) fn write_rows(&mut self) {
        self.wants_rows = true;
    }

    /// Does it after the commit.
    pub(crate) fn after(&mut self, action: Action) {
        self.after.actions.push(action);
    }

    /// Shows it to clients after the commit.
    pub(crate) fn frame(&mut self, task: &str, frame: FrameKind) {
        self.after
            .frames
            .push((task.to_owned(), Published::Frame(frame)));
    }

    /// Tells clients that an ended task goes on.
    pub(crate) fn again(&mut self, task: &str) {
        self.after.frames.push((task.to_owned(), Published::Again));
    }

    /// Calls of a task that ended before the hub that made them did: nobody settles them now.
    pub(crate) fn lost_calls_unknown(&mut self, id: &str) {
        let lost: Vec<u32> = {
            let spools = shared::lock(&self.shared.spools);
            let steps = self.state.tasks.get(id).map(|open| &open.record.steps);
            steps
                .into_iter()
                .flatten()
                .filter(|step| step.state == StepState::InFlight)
                .filter(|step| !spools.contains_key(&(id.to_owned(), step.n)))
                .map(|step| step.n)
                .collect()
        };
        for n in lost {
            self.emit(id, "hub", Event::StepUnknown { n });
        }
    }

    /// Tells clients that the task has ended. The view needs the committed output, so the stream
    /// fills it in when it is read.
    pub(crate) fn finished(&mut self, task: &str) {
        self.after.frames.push((task.to_owned(), Published::Ended));
    }

    /// Appends an entry to the system log.
    pub(crate) fn system(&mut self, kind: &str, subject: &str, data: Vec<u8>, row: Row) {
        self.system.entries.push(NewEntry {
            time_ms: self.now_ms,
            kind: kind.to_owned(),
            version: EVENT_VERSION,
            subject: subject.to_owned(),
            author: "hub".to_owned(),
            traceparent: None,
            data,
            payloads: Vec::new(),
        });
        self.system.rows.push(row);
    }

    /// Erases payloads with this commit; the store records which.
    pub(crate) fn erase(&mut self, erasures: Vec<store::Erasure>) {
        self.batch.erasures.extend(erasures);
    }

    /// Below the reserve new intents are refused; results are still written.
    pub(crate) fn low_space(&mut self) -> bool {
        let stale = self
            .state
            .low_space_checked
            .is_none_or(|at| at.elapsed().as_millis() > 500);
        if stale {
            self.state.low_space = self.state.log.low_space().unwrap_or(false);
            self.state.low_space_checked = Some(Instant::now());
        }
        self.state.low_space
    }

    /// Commits the batch and says what follows.
    pub(crate) fn commit(mut self) -> Result<After, store::StoreError> {
        if self.wants_dispatch {
            self.dispatch();
        }
        if self.state.ends {
            // Jobs behind the last one of this batch were still answered.
            self.flush_all_marks();
        }
        let writes_rows = self.wants_rows || self.state.ends || self.state.unwritten.is_due();
        self.flush_marks_of_steps(writes_rows);
        if writes_rows {
            self.batch.rows = self.state.unwritten.rows(&self.state.tasks);
        }
        self.batch.rows_later = !writes_rows;
        if !self.system.entries.is_empty() {
            self.state.system.append(&self.system)?;
        }
        self.append(writes_rows)?;
        let mut written = Vec::new();
        if writes_rows {
            written.extend(self.state.unwritten.written());
        }
        self.after.size = self.state.log.size();
        let lags = self.state.log.watermark() < self.after.size;
        self.shared.rows_lag.store(lags, Ordering::SeqCst);
        self.forget(&written);
        Ok(self.after)
    }

    fn append(&mut self, writes_rows: bool) -> Result<(), store::StoreError> {
        let log = &mut self.state.log;
        let owes_rows = log.watermark() < log.size();
        let has_entries = !self.batch.entries.is_empty() || !self.batch.erasures.is_empty();
        if !(has_entries || writes_rows && owes_rows) {
            return Ok(());
        }
        self.batch.now_ms = self.now_ms;
        let appended = log.append(&self.batch)?;
        self.after.commit_micros = Some(appended.commit_micros);
        self.after.entries = self.batch.entries.len() as u64;
        if !writes_rows {
            self.state.unwritten.left(self.after.entries);
        }
        Ok(())
    }

    /// Terminal tasks leave memory once their rows are written and nothing of them is in flight.
    fn forget(&mut self, written: &[String]) {
        for id in self.after.settled.iter().chain(written) {
            let open = self.state.tasks.get(id);
            let done =
                open.is_some_and(|open| open.record.task.state.is_terminal() && !open.has_calls());
            if done && !self.state.unwritten.has(id) {
                self.state.tasks.remove(id);
            }
        }
    }
}

impl After {
    /// Shows frames, wakes who waits and hands actions over.
    pub(crate) fn publish(self, shared: &Arc<Shared>) {
        if let Some(micros) = self.commit_micros {
            shared.metrics.commit(self.entries, micros);
        }
        for (task, frame) in self.frames {
            shared.streams.publish(&task, self.size, frame);
        }
        let mut waiters = shared::lock(&shared.waiters);
        for id in &self.settled {
            for waiter in waiters.remove(id).unwrap_or_default() {
                let _ = waiter.send(());
            }
        }
        drop(waiters);
        if self.entries > 0 {
            shared.streams.committed(self.size);
        }
        for action in self.actions {
            crate::action::send(shared, action);
        }
    }
}

/// What may become of a task that has moved: a person gives it up here, or it comes back.
fn concerns_moved(event: &Event) -> bool {
    matches!(
        event,
        Event::TaskMoved { .. } | Event::TaskImported { .. } | Event::TaskCanceled
    )
}

/// A read that fails is not taken for "not there".
pub(crate) fn unread(error: store::StoreError) -> HubError {
    let message = format!("failed to read the log: {error}");
    HubError::new(Code::Internal, message)
}
