//! What must hold after every commit. Entries are folded as they come; each is held against the
//! record before it by rules of its own, written down here a second time, and each row that changed
//! against the fold, once a commit has written the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use hub::projection;
use mainstay_core::event::Event;
use mainstay_core::restart::Class;
use mainstay_core::step::{Effect, Step, StepState};
use mainstay_core::task::{self, ResumeAs, Task, TaskRecord, TaskState};
use store::Reader;

use super::agent::TOKENS;

/// Looks at the log after every commit.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    reader: Option<Reader>,
    next: u64,
    records: BTreeMap<String, TaskRecord>,
    /// Tasks and steps whose rows are not written yet.
    changed: BTreeMap<String, BTreeSet<u32>>,
    /// Leave that a person gave to send a step again, by its id.
    leaves: BTreeMap<String, u32>,
    /// Token budgets by agent.
    budgets: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl Watch {
    pub(crate) fn budget(&self, agent: &str, tokens: u64) {
        let mut seen = self.seen.lock().unwrap();
        seen.budgets.insert(agent.to_owned(), tokens);
    }

    /// Takes what was committed since the last look; with a full disk no intents are.
    pub(crate) fn look(&self, log: &Path, is_full: bool) {
        let mut seen = self.seen.lock().unwrap();
        let reader = match seen.reader.take() {
            Some(reader) => reader,
            None => Reader::open(log).unwrap(),
        };
        let looked = reader.snapshot(|reader| {
            seen.take(reader, is_full)?;
            Ok(())
        });
        if let Err(error) = looked {
            seen.wrong.push(format!("failed to read: {error}"));
        }
        seen.reader = Some(reader);
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.seen.lock().unwrap().wrong.clone()
    }

    /// A step is being performed: may it be, for so many times now?
    pub(crate) fn performed(&self, id: &str, times: u32) {
        let mut seen = self.seen.lock().unwrap();
        let found = seen.records.values().find_map(|record| {
            let step = record.steps.iter().find(|step| step.id == id)?;
            Some((record.task.id.clone(), step.clone()))
        });
        let Some((task, step)) = found else {
            let what = format!("step {id} is performed and was never intended");
            return seen.wrong.push(what);
        };
        let may = 1 + seen.leaves.get(id).copied().unwrap_or(0);
        if step.state == StepState::Finished {
            let what = format!("{task}: a finished step is performed again: {step:?}");
            seen.wrong.push(what);
        }
        if step.effect == Effect::Opaque && times > may {
            let what = format!("{task}: an opaque step is performed {times} times: {step:?}");
            seen.wrong.push(what);
        }
    }

    pub(crate) fn has_leave(&self, id: &str) -> bool {
        self.seen.lock().unwrap().leaves.contains_key(id)
    }
}

impl Seen {
    fn take(&mut self, reader: &Reader, is_full: bool) -> Result<(), store::StoreError> {
        loop {
            let page = reader.entries(self.next, 1000)?;
            let Some(last) = page.last() else { break };
            self.next = last.seq + 1;
            for entry in page {
                if entry.kind.starts_with("log.") {
                    continue;
                }
                let event: Event = projection::decode(&entry.data).unwrap();
                if is_full
                    && matches!(
                        event,
                        Event::StepIntended { .. } | Event::TaskSubmitted { .. }
                    )
                {
                    self.wrong
                        .push(format!("entry {}: an intent on a full disk", entry.seq));
                }
                if let Err(what) = self.event(entry.seq, entry.time_ms, &entry.subject, &event) {
                    let told = format!(
                        "entry {} of {}: {what}: {event:?}",
                        entry.seq, entry.subject
                    );
                    self.wrong.push(told);
                }
                let changed = self.changed.entry(entry.subject).or_default();
                changed.extend(projection::changed_steps(&event));
            }
        }
        if reader.watermark()? == self.next {
            for (id, steps) in std::mem::take(&mut self.changed) {
                self.rows(reader, &id, &steps)?;
            }
        }
        Ok(())
    }

    /// What the rows say of a task is what its entries say.
    fn rows(
        &mut self,
        reader: &Reader,
        id: &str,
        steps: &BTreeSet<u32>,
    ) -> Result<(), store::StoreError> {
        let Some(record) = self.records.get(id) else {
            return Ok(());
        };
        let task = reader
            .task(id)?
            .and_then(|row| projection::decode::<Task>(&row.body));
        if task.as_ref() != Some(&record.task) {
            let what = format!("{id}: the row says {task:?}, the entries {:?}", record.task);
            self.wrong.push(what);
        }
        for n in steps {
            let Some(record) = self.records.get(id) else {
                continue;
            };
            let row = reader.step(id, u64::from(*n))?;
            let row = row.and_then(|row| projection::decode::<Step>(&row.body));
            if row.as_ref() != record.step(*n) {
                let what = format!(
                    "{id}: the row says {row:?}, the entries {:?}",
                    record.step(*n)
                );
                self.wrong.push(what);
            }
        }
        Ok(())
    }

    fn event(&mut self, seq: u64, at_ms: i64, id: &str, event: &Event) -> Result<(), String> {
        if let Some(record) = task::create(id, seq, at_ms, event) {
            let before = self.records.insert(id.to_owned(), record);
            return must(before.is_none(), "submitted twice");
        }
        let record = self.records.get_mut(id).ok_or("never submitted")?;
        let allowed = may_follow(record, event).and_then(|()| step_may(record, event));
        if let Event::StepResolved {
            n,
            how: ResumeAs::Repeat,
            ..
        } = event
            && let Some(step) = record.step(*n)
        {
            *self.leaves.entry(step.id.clone()).or_default() += 1;
        }
        task::apply(record, seq, at_ms, event);
        allowed?;
        if let Some(limit) = self.budgets.get(&record.task.agent) {
            within(record, *limit)?;
        }
        Ok(())
    }
}

fn must(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// The states from which an event may come, and the epoch that it must be of.
fn may_follow(record: &TaskRecord, event: &Event) -> Result<(), String> {
    let task = &record.task;
    let (is_open, is_parked) = (!task.state.is_terminal(), task.state.is_parked());
    let holds = |attempt: u32| {
        task.lease
            .as_ref()
            .is_some_and(|lease| lease.attempt == attempt)
    };
    match event {
        Event::TaskSubmitted { .. } => Err("submitted twice".into()),
        Event::AttemptStarted {
            attempt,
            generation,
            ..
        } => {
            must(is_open && !is_parked, "an attempt of a task that rests")?;
            must(*attempt > task.attempt, "an epoch that was used before")?;
            let pinned = task.generation.is_none_or(|pinned| pinned == *generation);
            must(pinned, "another generation than the first attempt's")
        }
        Event::AttemptEnded { attempt, .. } => must(holds(*attempt), "the end of an old epoch"),
        Event::StepIntended { attempt, n, .. } => {
            must(holds(*attempt), "an intent of an old epoch")?;
            must(task.state == TaskState::Working, "an intent in no work")?;
            must(*n as usize == record.steps.len() + 1, "a number left out")
        }
        Event::StepsMarked { attempt, .. } => {
            must(*attempt == task.attempt, "marks of an old epoch")
        }
        Event::CallRefused { attempt, .. } => must(holds(*attempt), "a refusal of an old epoch"),
        Event::TaskParked { .. } => must(is_open && !is_parked, "parked where it rests"),
        Event::TaskResumed | Event::StepResolved { .. } => {
            must(is_parked, "a word nobody waits for")
        }
        Event::TaskRetried => {
            let may = is_parked || matches!(task.state, TaskState::Failed | TaskState::Canceled);
            must(may, "tried again where it goes on")
        }
        Event::TaskCompleted { .. } => {
            let is_done = task
                .last_exit
                .as_ref()
                .is_some_and(|exit| exit.class == Class::Done);
            must(task.state == TaskState::Working, "completed where it rests")?;
            must(is_done && task.lease.is_none(), "completed by nobody")
        }
        Event::TaskFailed { .. } | Event::TaskCanceled => must(is_open, "ended twice"),
        Event::TaskMoved { .. } => must(!is_open || is_parked, "moved out of its work"),
        Event::TaskImported { .. } => must(task.moved.is_some(), "came without having left"),
        Event::StepRepeated { .. }
        | Event::StepFinished { .. }
        | Event::StepFailed { .. }
        | Event::StepUnknown { .. }
        | Event::StepHeld { .. }
        | Event::StepParked { .. }
        | Event::Noted { .. } => Ok(()),
    }
}

/// What may become of a step: nothing once it has an answer.
fn step_may(record: &TaskRecord, event: &Event) -> Result<(), String> {
    use StepState::{Failed, Held, InFlight, Parked, Released, Unknown};
    let state = |n: &u32| record.step(*n).map(|step| step.state);
    let is = |n: &u32, states: &[StepState]| {
        let known = state(n).ok_or("no such step")?;
        let what = format!("a step that is {known:?}");
        must(states.contains(&known), &what)
    };
    match event {
        Event::StepRepeated { n, .. } => is(n, &[Failed, Unknown, Released, Parked]),
        Event::StepFinished { n, .. } | Event::StepFailed { n, .. } => is(n, &[InFlight, Unknown]),
        Event::StepUnknown { n } | Event::StepParked { n, .. } => is(n, &[InFlight, Unknown]),
        Event::StepHeld { n } => is(n, &[InFlight]),
        Event::StepResolved { n, .. } => is(n, &[Unknown, Held]),
        Event::StepIntended { id, .. } => {
            let is_new = record.steps.iter().all(|step| step.id != *id);
            must(is_new, "an id that another step has")
        }
        _ => Ok(()),
    }
}

/// What was spent and is held is within the budget, but for calls that were made again.
fn within(record: &TaskRecord, limit: u64) -> Result<(), String> {
    let steps = &record.steps;
    let held = steps
        .iter()
        .filter(|step| step.state == StepState::InFlight);
    let held: u64 = held.map(|step| step.reserved_tokens).sum();
    let again = steps.iter().filter(|step| step.repeated > 0).count() as u64;
    let taken = record.task.usage.total() + held;
    let what = format!("{taken} tokens are taken of {limit}");
    must(taken <= limit + again * TOKENS, &what)
}
