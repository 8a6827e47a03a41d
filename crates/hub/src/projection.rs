//! Rows from events: what the writer stores with a commit, and what a rebuild compares them with.
//!
//! Both go through `core::task::apply`, so a row can't say what no entry says.

use std::collections::BTreeMap;

use mainstay_core::event::Event;
use mainstay_core::step::Step;
use mainstay_core::task::{self, Task, TaskRecord};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{KIND_CREATED, KIND_ERASED, Row, SessionRow, StepRow, TaskRow};

/// Version of the event encoding.
pub const EVENT_VERSION: u16 = 1;

/// A session's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    pub agent: String,
    pub created_ms: i64,
    pub updated_ms: i64,
}

/// CBOR of a value. Structs write their fields in order, so equal values give equal bytes.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory can't fail, and these types have no maps with keys that CBOR lacks.
    let _ = ciborium::into_writer(value, &mut bytes);
    bytes
}

/// The inverse of [`encode`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    ciborium::from_reader(bytes).ok()
}

/// A task's row.
#[must_use]
pub fn task_row(task: &Task, updated_seq: u64) -> Row {
    Row::Task(TaskRow {
        id: task.id.clone(),
        agent: task.agent.clone(),
        session: task.session.clone(),
        state: task.state.word().to_owned(),
        created_ms: task.created_ms,
        updated_seq,
        body: encode(task),
    })
}

/// A step's row.
#[must_use]
pub fn step_row(task: &str, step: &Step) -> Row {
    Row::Step(StepRow {
        task: task.to_owned(),
        n: u64::from(step.n),
        body: encode(step),
    })
}

/// A session's row.
#[must_use]
pub fn session_row(session: &Session) -> Row {
    Row::Session(SessionRow {
        id: session.id.clone(),
        agent: Some(session.agent.clone()),
        body: encode(session),
    })
}

/// Which steps an event changes.
#[must_use]
pub fn changed_steps(event: &Event) -> Vec<u32> {
    match event {
        Event::StepIntended { n, .. }
        | Event::StepRepeated { n, .. }
        | Event::StepFinished { n, .. }
        | Event::StepFailed { n, .. }
        | Event::StepUnknown { n }
        | Event::StepHeld { n }
        | Event::StepParked { n, .. }
        | Event::StepResolved { n, .. } => vec![*n],
        Event::StepsMarked { marks, .. } => marks.iter().map(|mark| mark.n).collect(),
        _ => Vec::new(),
    }
}

/// Reads a task with its steps from a reader.
pub fn load(
    reader: &store::Reader,
    id: &str,
) -> Result<Option<(TaskRecord, u64)>, store::StoreError> {
    let Some(row) = reader.task(id)? else {
        return Ok(None);
    };
    let Some(task) = decode::<Task>(&row.body) else {
        return Ok(None);
    };
    let steps = reader
        .steps(id)?
        .iter()
        .filter_map(|row| decode::<Step>(&row.body))
        .collect();
    Ok(Some((TaskRecord { task, steps }, row.updated_seq)))
}

/// A session as its row says.
pub(crate) fn session(reader: &store::Reader, id: &str) -> Option<Session> {
    decode(&reader.session(id).ok().flatten()?.body)
}

/// Rows that follow from the entries from this one on, given the rows that follow from all before.
pub(crate) fn tail(reader: &store::Reader, mut from: u64) -> Result<Vec<Row>, String> {
    let shown = |error: store::StoreError| error.to_string();
    let mut rebuild = Rebuild::default();
    loop {
        let page = reader.entries(from, PAGE).map_err(shown)?;
        let Some(last) = page.last() else {
            return Ok(rebuild.rows());
        };
        from = last.seq + 1;
        for entry in &page {
            if entry.kind == KIND_CREATED || entry.kind == KIND_ERASED {
                continue;
            }
            rebuild.load(reader, &entry.subject).map_err(shown)?;
            rebuild.entry_on(
                |id| session(reader, id),
                entry.seq,
                entry.time_ms,
                &entry.subject,
                &entry.data,
            )?;
        }
    }
}

/// Entries read together.
const PAGE: usize = 256;

/// All rows of a workspace's log, folded from its entries.
#[derive(Debug, Default)]
pub struct Rebuild {
    tasks: BTreeMap<String, (TaskRecord, u64)>,
    sessions: BTreeMap<String, Session>,
    idempotency: BTreeMap<String, String>,
}

impl Rebuild {
    /// Takes one entry of a task's, given all before it.
    pub fn entry(
        &mut self,
        seq: u64,
        time_ms: i64,
        subject: &str,
        data: &[u8],
    ) -> Result<(), String> {
        self.entry_on(|_| None, seq, time_ms, subject, data)
    }

    /// Begins with a task's rows as they are.
    fn load(&mut self, reader: &store::Reader, id: &str) -> Result<(), store::StoreError> {
        if !self.tasks.contains_key(id)
            && let Some(known) = load(reader, id)?
        {
            self.tasks.insert(id.to_owned(), known);
        }
        Ok(())
    }

    fn entry_on(
        &mut self,
        session_before: impl FnOnce(&str) -> Option<Session>,
        seq: u64,
        time_ms: i64,
        subject: &str,
        data: &[u8],
    ) -> Result<(), String> {
        let event: Event = decode(data).ok_or("entry holds no event that this build knows")?;
        if let Some(record) = task::create(subject, seq, time_ms, &event) {
            if let Event::TaskSubmitted {
                idempotency: Some(key),
                ..
            } = &event
            {
                self.idempotency.insert(key.to_hex(), subject.to_owned());
            }
            if !self.sessions.contains_key(&record.task.session)
                && let Some(session) = session_before(&record.task.session)
            {
                self.sessions.insert(session.id.clone(), session);
            }
            note_session(&mut self.sessions, &record.task);
            self.tasks.insert(subject.to_owned(), (record, seq));
            return Ok(());
        }
        let (record, updated) = self
            .tasks
            .get_mut(subject)
            .ok_or("entry speaks of a task that was never submitted")?;
        task::apply(record, seq, time_ms, &event);
        *updated = seq;
        if let Some(key) = came_along(&record.task, &event) {
            self.idempotency.insert(key, subject.to_owned());
        }
        Ok(())
    }

    /// The rows that the entries say.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let tasks = self.tasks.values().flat_map(|(record, seq)| {
            let steps = record
                .steps
                .iter()
                .map(|step| step_row(&record.task.id, step));
            std::iter::once(task_row(&record.task, *seq))
                .chain(steps)
                .collect::<Vec<_>>()
        });
        let sessions = self.sessions.values().map(session_row);
        let keys = self.idempotency.iter().map(|(key, task)| Row::Idempotency {
            key: key.clone(),
            task: task.clone(),
        });
        tasks.chain(sessions).chain(keys).collect()
    }
}

/// Under which a step finds the task that it called, where that was imported with its caller.
#[must_use]
pub fn called_key(caller: &str, step: &str) -> String {
    format!("called:{caller}:{step}")
}

/// The key under which this event lets a task be found.
pub(crate) fn came_along(task: &Task, event: &Event) -> Option<String> {
    let Event::TaskImported { called: true, .. } = event else {
        return None;
    };
    let parent = task.parent.as_ref()?;
    Some(called_key(&parent.task, &parent.step))
}

/// Adds a task to its session.
pub fn note_session(sessions: &mut BTreeMap<String, Session>, task: &Task) {
    if task.ambient {
        return;
    }
    let session = sessions
        .entry(task.session.clone())
        .or_insert_with(|| Session {
            id: task.session.clone(),
            agent: task.agent.clone(),
            created_ms: task.created_ms,
            updated_ms: task.created_ms,
        });
    session.updated_ms = session.updated_ms.max(task.created_ms);
}
