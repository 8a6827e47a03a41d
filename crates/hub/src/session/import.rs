//! A session arrives: its tasks' entries are appended as they stood where they come from, each task
//! with an entry that says whence, in one transaction.
//!
//! What is open lies parked until a person says that it goes on here; its finished steps answer
//! from the journal as ever, because a task's key and its steps' ids came along. A task that was
//! here before and left comes back: what its file has beyond what lies here is appended, once the
//! rest is shown to be the same. A file that was imported before changes nothing. One that is older
//! than what is here, or whose tasks went on in both places, is refused: there would be two truths.

use std::collections::BTreeMap;

use mainstay_core::event::Event;
use store::{NewEntry, Reader};

use super::check::{Exported, Session, check};
use super::compare::{Standing, Standings, compared};
use super::file::{self, FileError, Proven};
use crate::tx::Tx;
use crate::view::{ImportView, ImportedTaskView};
use crate::{Code, Hub, HubError};

const MAX_AUTHOR_BYTES: usize = 256;
/// How often what lies here may change between looking and appending.
const TRIES: usize = 5;

impl Hub {
    /// Takes a session out of a file.
    pub async fn session_import(
        &self,
        file: bytes::Bytes,
        author: &str,
    ) -> Result<ImportView, HubError> {
        self.shared.can_record()?;
        let read = move |reader: &Reader| {
            let session = file::read(&file, None).and_then(check);
            let session = match session {
                Ok(session) => session,
                Err(error) => return Ok(Err(invalid(&error))),
            };
            Ok(compared(reader, &session)?.map(|standings| (session, standings)))
        };
        let (mut session, mut standings) = self.read(read).await??;
        for _ in 0..TRIES {
            let author = author.to_owned();
            let brought = self
                .writer
                .run(move |tx| tx.bring_in(session, &standings, &author))
                .await?;
            session = match brought {
                Brought::Done(view) => return Ok(view),
                Brought::Refused(error) => return Err(error),
                Brought::Stale(session) => *session,
            };
            let again = move |reader: &Reader| {
                Ok(compared(reader, &session)?.map(|standings| (session, standings)))
            };
            (session, standings) = self.read(again).await??;
        }
        Err(HubError::new(
            Code::Conflict,
            "tasks of this session change here while it is imported: try again",
        ))
    }
}

fn invalid(error: &FileError) -> HubError {
    let code = match error {
        FileError::TooLarge => Code::TooLarge,
        _ => Code::Invalid,
    };
    HubError::new(code, error.to_string())
}

/// What came of a try.
pub(super) enum Brought {
    Done(ImportView),
    /// Something changed since it was looked at.
    Stale(Box<Session>),
    Refused(HubError),
}

impl Tx<'_> {
    pub(super) fn bring_in(
        &mut self,
        session: Session,
        standings: &Standings,
        author: &str,
    ) -> Brought {
        match self.may_bring(&session, standings) {
            Ok(true) => Brought::Done(self.brought_in(session, standings, author)),
            Ok(false) => Brought::Stale(Box::new(session)),
            Err(error) => Brought::Refused(error),
        }
    }

    /// Whether all of it may be appended; `false` if something changed since it was looked at.
    fn may_bring(&mut self, session: &Session, standings: &Standings) -> Result<bool, HubError> {
        if self.low_space() {
            return Err(HubError::new(
                Code::NoSpace,
                "less than 64 MiB of disk are free: free some, then import again",
            ));
        }
        self.refuse_without_agent(session)?;
        self.refuse_foreign_sessions(session, standings)?;
        for (id, task) in &session.tasks {
            let is_as_seen = match standings.get(id) {
                Some(Standing::New) => self.may_be_new(id, session, task)?,
                Some(Standing::Away { last, .. }) => {
                    let is_there = self.load(id) || self.load_erased(id)?;
                    let open = self.state.tasks.get(id).filter(|_| is_there);
                    open.is_some_and(|open| {
                        open.updated_seq == *last && open.record.task.moved.is_some()
                    })
                }
                Some(Standing::Known) => true,
                None => false,
            };
            if !is_as_seen {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn refuse_without_agent(&self, session: &Session) -> Result<(), HubError> {
        let open = session.tasks.values().filter(|task| task.is_open());
        let open = open.map(|task| task.record.task.agent.as_str());
        for agent in open.chain([session.header.agent.as_str()]) {
            if self.state.agent(agent).is_none() {
                return Err(HubError::new(
                    Code::Conflict,
                    format!(
                        "the session is of agent {agent}, and this fleet has none of that name: apply the manifests first"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A name alone doesn't make two sessions one: a task that both have does.
    fn refuse_foreign_sessions(
        &self,
        session: &Session,
        standings: &Standings,
    ) -> Result<(), HubError> {
        let mut shared: BTreeMap<&str, (bool, &str)> = BTreeMap::new();
        for (id, task) in &session.tasks {
            let task = &task.record.task;
            let of_session = shared.entry(&task.session).or_insert((false, &task.agent));
            of_session.0 |= standings.get(id) != Some(&Standing::New);
        }
        for (name, (is_shared, agent)) in shared {
            let here = self.session_agent(name)?;
            if here.is_some_and(|here| !is_shared || here != agent) {
                return Err(HubError::new(
                    Code::Conflict,
                    format!(
                        "there is a session {name} here, and it has no task in common with the file's"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Nothing of it is here, and it takes nobody's place.
    fn may_be_new(
        &mut self,
        id: &str,
        session: &Session,
        task: &Exported,
    ) -> Result<bool, HubError> {
        if self.is_open(id)?.is_some() {
            return Ok(false);
        }
        let taken = |what: String| Err(HubError::new(Code::Conflict, what));
        if let Some(parent) = &task.record.task.parent {
            if !task.called && self.is_open(&parent.task)?.is_some() {
                return taken(format!(
                    "task {id} says that task {} of this home called it",
                    parent.task
                ));
            }
            if task.called && self.called(&parent.task, &parent.step)?.is_some() {
                return taken(format!("step {} has called another task", parent.step));
            }
        }
        let first = task.entries.first().and_then(|at| session.entries.get(*at));
        if let Some((
            _,
            Event::TaskSubmitted {
                idempotency: Some(key),
                ..
            },
        )) = first
            && self.idempotent(*key)?.is_some()
        {
            return taken(format!(
                "task {id} has the Idempotency-Key of another one here"
            ));
        }
        Ok(true)
    }

    fn brought_in(&mut self, session: Session, standings: &Standings, author: &str) -> ImportView {
        let Session {
            header,
            entries,
            tasks,
            ..
        } = session;
        let mut view = ImportView {
            session: header.session.clone(),
            agent: header.agent.clone(),
            origin: header.origin.clone(),
            entries: 0,
            erased: tasks.values().map(|task| task.erased).sum(),
            tasks: Vec::new(),
        };
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for (proven, event) in entries {
            let id = &proven.entry.subject;
            last.insert(id.clone(), proven.entry.seq);
            let at = seen.entry(id.clone()).or_default();
            let is_new = match standings.get(id) {
                Some(Standing::New) => true,
                Some(Standing::Away { from, .. }) => *at >= *from,
                Some(Standing::Known) | None => false,
            };
            *at += 1;
            if is_new {
                let key = tasks.get(id).and_then(|task| task.key);
                self.bring(brought(proven), &event, key);
                view.entries += 1;
            }
        }
        for (id, task) in &tasks {
            let change = match standings.get(id) {
                Some(Standing::New) => "new",
                Some(Standing::Away { from, .. }) if *from == task.entries.len() => "returned",
                Some(Standing::Away { .. }) => "continued",
                Some(Standing::Known) | None => "known",
            };
            if change != "known" {
                let imported = Event::TaskImported {
                    origin: header.origin.clone(),
                    head: header.head.clone(),
                    seq: last.get(id).copied().unwrap_or_default(),
                    called: task.called,
                };
                self.emit(id, author, imported);
                self.renew_due(id);
            }
            view.tasks.push(self.imported_task(id, task, change));
        }
        view
    }

    fn imported_task(&self, id: &str, task: &Exported, change: &'static str) -> ImportedTaskView {
        let here = self.state.tasks.get(id).map(|open| &open.record.task);
        let here = here.unwrap_or(&task.record.task);
        ImportedTaskView {
            id: id.to_owned(),
            agent: here.agent.clone(),
            session: here.session.clone(),
            state: here.state.word().to_owned(),
            reason: here.reason.map(|reason| reason.word().to_owned()),
            change,
        }
    }
}

/// The entry as it is appended here.
fn brought(proven: Proven) -> NewEntry {
    let Proven {
        entry, payloads, ..
    } = proven;
    let mut author = entry.author;
    if !author.starts_with(super::IMPORTED) {
        author.insert_str(0, super::IMPORTED);
        while author.len() > MAX_AUTHOR_BYTES {
            author.pop();
        }
    }
    NewEntry {
        time_ms: entry.time_ms,
        kind: entry.kind,
        version: entry.version,
        subject: entry.subject,
        author,
        traceparent: entry.traceparent,
        data: entry.data,
        payloads,
    }
}
