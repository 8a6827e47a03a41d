//! What the entries of an exported session say, and that they say nothing else: each of a task of
//! this session or of one that such a task called, whole, in an order in which a hub writes them,
//! and left in good order.
//!
//! A file may come from anybody. `file.rs` has shown that it is what its log's head says; a log can
//! be made up. So nothing that is read here is taken for a fact before it was looked at: ids have
//! the form of ids, steps are numbered as steps are, and no task stands beside those of the session.

use std::collections::{BTreeMap, HashMap};

use mainstay_core::event::Event;
use mainstay_core::step::StepState;
use mainstay_core::task::{self, TaskRecord};

use super::file::{Contents, FileError, Header, Proven};
use crate::keys::TaskKey;
use crate::projection::{self, EVENT_VERSION};

/// Most tasks in a file.
const MAX_TASKS: usize = 10_000;
/// The end of the year 9999: times are added to.
const LATEST_MS: i64 = 253_402_300_799_999;
/// Attempts of one task: a next one must have a number.
const MAX_ATTEMPT: u32 = 1 << 24;
/// What one call may say to hold of a budget: such are added up.
const MAX_RESERVED: u64 = 1 << 53;

/// A checked session.
#[derive(Clone, Debug)]
pub struct Session {
    pub header: Header,
    /// In the log's order.
    pub entries: Vec<(Proven, Event)>,
    pub tasks: BTreeMap<String, Exported>,
    /// Every step's id, with its task.
    steps: HashMap<String, String>,
}

/// A task of it.
#[derive(Clone, Debug)]
pub struct Exported {
    /// As it stood when it left.
    pub record: TaskRecord,
    /// Places of its entries in `entries`.
    pub entries: Vec<usize>,
    /// The task that called it is in the file too.
    pub called: bool,
    pub(crate) key: Option<TaskKey>,
    /// Payloads that its home had erased.
    pub erased: usize,
}

impl Exported {
    /// It waits for something, as opposed to having ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.record.task.state.is_terminal()
    }
}

/// Checks what the entries mean.
pub fn check(contents: Contents) -> Result<Session, FileError> {
    let Contents { header, entries } = contents;
    if !crate::task::is_session_name(&header.session) {
        return Err(whole("the session's name is none"));
    }
    let mut session = Session {
        header,
        entries: Vec::with_capacity(entries.len()),
        tasks: BTreeMap::new(),
        steps: HashMap::new(),
    };
    for proven in entries {
        session.take(proven)?;
    }
    session.finish()
}

impl Session {
    fn take(&mut self, proven: Proven) -> Result<(), FileError> {
        let (entry, line) = (&proven.entry, proven.line);
        let wrong = |what: &str| FileError::Meaning {
            line,
            what: what.to_owned(),
        };
        let event: Option<Event> = projection::decode(&entry.data);
        let event = event.ok_or_else(|| wrong("the entry holds no event that this build knows"))?;
        // One encoding of each event: what is appended is byte for byte what was written there.
        let is_exact = entry.version == EVENT_VERSION
            && entry.kind == event.kind()
            && projection::encode(&event) == entry.data;
        if !is_exact {
            return Err(wrong("the entry is not written as this build writes it"));
        }
        if !is_id(&entry.subject) {
            return Err(wrong("the entry is of no task"));
        }
        if !(0..=LATEST_MS).contains(&entry.time_ms) {
            return Err(wrong("the entry is of no time"));
        }
        self.note_step(&entry.subject, &event).map_err(wrong)?;
        let at = self.entries.len();
        match self.tasks.get_mut(&entry.subject) {
            None => {
                let task = self.begin(&proven, &event).map_err(wrong)?;
                if self.tasks.len() >= MAX_TASKS {
                    return Err(FileError::TooLarge);
                }
                self.tasks.insert(entry.subject.clone(), task);
            }
            Some(task) => {
                may_follow(&task.record, &event).map_err(wrong)?;
                task::apply(&mut task.record, entry.seq, entry.time_ms, &event);
            }
        }
        if let Some(task) = self.tasks.get_mut(&entry.subject) {
            task.entries.push(at);
            task.erased += entry.payloads.len() - proven.payloads.len();
        }
        self.entries.push((proven, event));
        Ok(())
    }

    fn note_step(&mut self, task: &str, event: &Event) -> Result<(), &'static str> {
        let Event::StepIntended { id, .. } = event else {
            return Ok(());
        };
        if !is_id(id) {
            return Err("the step's id is none");
        }
        let before = self.steps.insert(id.clone(), task.to_owned());
        before
            .is_none()
            .then_some(())
            .ok_or("the step has another's id")
    }

    /// A task begins: of the session, or called by one of its tasks.
    fn begin(&self, proven: &Proven, event: &Event) -> Result<Exported, &'static str> {
        let entry = &proven.entry;
        let record = task::create(&entry.subject, entry.seq, entry.time_ms, event);
        let record = record.ok_or("the task's first entry is missing")?;
        let task = &record.task;
        if task.ambient || !crate::task::is_session_name(&task.session) {
            return Err("the task is of no session");
        }
        let parent = task.parent.as_ref();
        let called =
            parent.is_some_and(|parent| self.steps.get(&parent.step) == Some(&parent.task));
        let is_late = task
            .deadline_ms
            .is_some_and(|ms| !(0..=LATEST_MS).contains(&ms));
        if is_late || parent.is_some_and(|parent| !is_id(&parent.task) || !is_id(&parent.step)) {
            return Err("the task has a deadline or a caller that can't be");
        }
        let own = task.session == self.header.session && task.agent == self.header.agent;
        if !own && !called {
            return Err("the task is neither of the session nor called by a task of it");
        }
        let key = proven.payloads.iter().find(|(name, _)| name == "key");
        let key = key.map(|(_, bytes)| TaskKey::try_from(bytes.as_slice()));
        let key = key.transpose().map_err(|_| "the task's key is none")?;
        Ok(Exported {
            record,
            entries: Vec::new(),
            called,
            key,
            erased: 0,
        })
    }

    fn finish(self) -> Result<Session, FileError> {
        let is_there = |task: &Exported| task.record.task.session == self.header.session;
        if !self.tasks.values().any(is_there) {
            return Err(whole("the file has no task of its session"));
        }
        for (id, task) in &self.tasks {
            let fault = self.fault(task);
            if let Some(fault) = fault {
                return Err(FileError::Whole {
                    what: format!("task {id} {fault}"),
                });
            }
        }
        Ok(self)
    }

    /// What is wrong with a task as a whole.
    fn fault(&self, task: &Exported) -> Option<&'static str> {
        let last = task.entries.last().and_then(|at| self.entries.get(*at));
        let before = task.entries.len().saturating_sub(1) as u64;
        match last {
            Some((_, Event::TaskMoved { entries })) if *entries == before => {}
            Some((_, Event::TaskMoved { .. })) => return Some("lacks some of its entries"),
            _ => return Some("has not left its home: its last entry doesn't say so"),
        }
        let mut steps = task.record.steps.iter();
        if steps.any(|step| step.state == StepState::InFlight) {
            return Some("left its home in the middle of a call");
        }
        if task.is_open() && (task.key.is_none() || task.erased > 0) {
            return Some("is open and part of its content is missing");
        }
        None
    }
}

/// What no hub writes behind what is there.
fn may_follow(record: &TaskRecord, event: &Event) -> Result<(), &'static str> {
    let n = match event {
        Event::TaskSubmitted { .. } => return Err("the task is submitted twice"),
        Event::TaskImported { .. } => {
            let was_away = record.task.moved.is_some();
            return was_away
                .then_some(())
                .ok_or("the task was imported without having moved");
        }
        Event::TaskMoved { .. } | Event::TaskCanceled => return Ok(()),
        _ if record.task.moved.is_some() => {
            return Err("something was done to the task after it had moved");
        }
        Event::StepIntended {
            n,
            reserved_tokens,
            reserved_micro_usd,
            ..
        } => {
            let is_next = *n as usize == record.steps.len() + 1;
            let is_bounded = *reserved_tokens.max(reserved_micro_usd) <= MAX_RESERVED;
            return (is_next && is_bounded)
                .then_some(())
                .ok_or("the step is out of its place");
        }
        Event::AttemptStarted { attempt, .. } | Event::Noted { attempt, .. } => {
            let may_be = *attempt <= MAX_ATTEMPT;
            return may_be.then_some(()).ok_or("the attempt has no number");
        }
        event => projection::changed_steps(event),
    };
    let is_known = |n: &u32| record.step(*n).is_some();
    n.iter()
        .all(is_known)
        .then_some(())
        .ok_or("the entry is of a step that isn't there")
}

/// As [`crate::ground::Ground::new_id`] and derived ids are written.
fn is_id(text: &str) -> bool {
    text.len() == uuid::fmt::Hyphenated::LENGTH
        && text == text.to_ascii_lowercase()
        && uuid::Uuid::try_parse(text).is_ok()
}

fn whole(what: &str) -> FileError {
    FileError::Whole {
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_core::step::{Digest, Effect, StepKind};
    use mainstay_core::task::Parent;

    const TASK: &str = "019a0000-0000-7000-8000-000000000001";
    const CHILD: &str = "019a0000-0000-7000-8000-000000000002";
    const STEP: &str = "019a0000-0000-8000-8000-000000000003";

    fn header() -> Header {
        let line = br#"{"mainstay":"session","version":1,"session":"s","agent":"a","origin":"o","head":"h","key":"k","entries":0}"#;
        serde_json::from_slice(line).unwrap()
    }

    fn submitted(agent: &str, session: &str, parent: Option<Parent>) -> Event {
        Event::TaskSubmitted {
            agent: agent.into(),
            session: session.into(),
            deadline_ms: None,
            parent,
            idempotency: None,
            ambient: false,
        }
    }

    fn intended(n: u32, id: &str) -> Event {
        Event::StepIntended {
            n,
            id: id.into(),
            kind: StepKind::Tool,
            name: "t".into(),
            key: Digest([0; 32]),
            masked: None,
            effect: Effect::Keyed,
            attempt: 1,
            incarnation: 1,
            proposed_by: None,
            reserved_tokens: 0,
            reserved_micro_usd: 0,
        }
    }

    fn moved(entries: u64) -> Event {
        Event::TaskMoved { entries }
    }

    /// Entries as a log that was made up would prove them.
    fn told(events: &[(&str, Event)]) -> Contents {
        let entries = events.iter().enumerate().map(|(at, (task, event))| {
            let key = matches!(event, Event::TaskSubmitted { .. });
            let payloads = key.then(|| ("key".to_owned(), vec![1; 32]));
            Proven {
                line: at + 2,
                entry: store::Entry {
                    seq: at as u64,
                    time_ms: 1_000,
                    kind: event.kind().to_owned(),
                    version: EVENT_VERSION,
                    subject: (*task).to_owned(),
                    author: "hub".into(),
                    author_seq: at as u64,
                    traceparent: None,
                    data: projection::encode(event),
                    payloads: payloads
                        .iter()
                        .map(|(name, bytes)| store::PayloadDigest {
                            name: name.clone(),
                            length: bytes.len() as u64,
                            digest: [0; 32],
                        })
                        .collect(),
                },
                payloads: payloads.into_iter().collect(),
            }
        });
        Contents {
            header: header(),
            entries: entries.collect(),
        }
    }

    fn fault(events: &[(&str, Event)]) -> String {
        check(told(events)).unwrap_err().to_string()
    }

    #[test]
    fn a_session_with_a_task_that_it_called_is_taken() {
        let parent = Parent {
            task: TASK.into(),
            step: STEP.into(),
        };
        let session = check(told(&[
            (TASK, submitted("a", "s", None)),
            (TASK, intended(1, STEP)),
            (CHILD, submitted("b", "other", Some(parent))),
            (TASK, Event::StepUnknown { n: 1 }),
            (TASK, moved(3)),
            (CHILD, moved(1)),
        ]));
        let session = session.unwrap();
        assert!(session.tasks[CHILD].called && !session.tasks[TASK].called);
        assert!(session.tasks[TASK].is_open());
    }

    #[test]
    fn what_no_hub_writes_is_refused() {
        let first = || (TASK, submitted("a", "s", None));
        let by_nobody = Parent {
            task: CHILD.into(),
            step: STEP.into(),
        };
        let check = |events: &[(&str, Event)], expected: &str| {
            let fault = fault(events);
            assert!(fault.contains(expected), "{expected}: {fault}");
        };
        check(&[], "no task of its session");
        check(&[("../etc", submitted("a", "s", None))], "of no task");
        check(&[(TASK, moved(0))], "first entry is missing");
        check(
            &[(TASK, submitted("a", "other", None))],
            "neither of the session",
        );
        check(
            &[first(), (CHILD, submitted("b", "x", Some(by_nobody)))],
            "neither of the session",
        );
        check(&[first(), first()], "submitted twice");
        check(&[first(), (TASK, intended(2, STEP))], "out of its place");
        check(&[first(), (TASK, intended(1, "a\r\nb"))], "id is none");
        check(
            &[
                first(),
                (TASK, intended(1, STEP)),
                (TASK, intended(2, STEP)),
            ],
            "another's id",
        );
        check(
            &[first(), (TASK, Event::StepUnknown { n: 1 })],
            "a step that isn't there",
        );
        let last = Event::AttemptStarted {
            attempt: u32::MAX,
            instance: "a-0".into(),
            generation: 1,
        };
        check(&[first(), (TASK, last)], "attempt has no number");
        check(&[first()], "has not left its home");
        check(&[first(), (TASK, moved(2))], "lacks some of its entries");
        check(
            &[first(), (TASK, intended(1, STEP)), (TASK, moved(2))],
            "in the middle of a call",
        );
        check(
            &[first(), (TASK, moved(1)), (TASK, Event::TaskRetried)],
            "after it had moved",
        );
    }

    #[test]
    fn an_open_task_without_all_of_its_content_is_refused() {
        let mut contents = told(&[(TASK, submitted("a", "s", None)), (TASK, moved(1))]);
        contents.entries[0].payloads.clear();
        let fault = check(contents).unwrap_err().to_string();
        assert!(fault.contains("content is missing"), "{fault}");
    }
}
