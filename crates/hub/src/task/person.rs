//! A person's word: cancel, retry, and what became of a step that a task waits for.

use mainstay_core::event::Event;
use mainstay_core::step::StepState;
use mainstay_core::task::{Task, TaskState};

use super::Resume;
use crate::projection;
use crate::tx::Tx;
use crate::view::TaskView;
use crate::{Code, Hub, HubError};

impl Hub {
    /// Ends a task and what it called.
    pub async fn task_cancel(&self, id: &str, author: &str) -> Result<TaskView, HubError> {
        let (task, author) = (id.to_owned(), author.to_owned());
        self.writer
            .run(move |tx| canceled(tx, &task, &author))
            .await??;
        self.task_get(id).await
    }

    /// Tries a failed, canceled or parked task again under today's generation. Finished steps stay.
    pub async fn task_retry(&self, id: &str, author: &str) -> Result<TaskView, HubError> {
        let (task, author) = (id.to_owned(), author.to_owned());
        self.writer
            .run(move |tx| retried(tx, &task, &author))
            .await??;
        self.task_get(id).await
    }

    /// A person's word on the step that a task waits for.
    pub async fn task_resume(&self, id: &str, resume: Resume) -> Result<TaskView, HubError> {
        let task = id.to_owned();
        self.writer
            .run(move |tx| resumed(tx, &task, &resume))
            .await??;
        self.task_get(id).await
    }
}

fn canceled(tx: &mut Tx<'_>, id: &str, author: &str) -> Result<(), HubError> {
    let state = state_of(tx, id)?;
    if state == TaskState::Canceled {
        return Ok(());
    }
    if state.is_terminal() {
        return Err(HubError::new(
            Code::Conflict,
            format!("task {id} is {} already", state.word()),
        ));
    }
    tx.cancel(id, author);
    Ok(())
}

fn retried(tx: &mut Tx<'_>, id: &str, author: &str) -> Result<(), HubError> {
    let state = state_of(tx, id)?;
    refuse_if_moved(tx, id)?;
    let asked = tx
        .state
        .tasks
        .get(id)
        .and_then(|open| open.record.task.asked_step);
    if let (true, Some(step)) = (state.is_parked(), asked) {
        return Err(HubError::new(
            Code::Conflict,
            format!(
                "task {id} waits for a word on step {step}: mainstay task resume {id} --step {step} --as done[=JSON]|repeat|fail"
            ),
        ));
    }
    let open = tx.state.tasks.get(id);
    if open.is_some_and(|open| open.record.task.ambient) {
        return Err(HubError::new(
            Code::Conflict,
            "what a service did outside any task can't be tried again",
        ));
    }
    if !state.is_parked() && !matches!(state, TaskState::Failed | TaskState::Canceled) {
        return Err(HubError::new(
            Code::Conflict,
            format!(
                "task {id} is {}: only a failed, canceled or parked task is tried again",
                state.word()
            ),
        ));
    }
    if is_erased(tx, id) {
        return Err(HubError::new(
            Code::Conflict,
            format!(
                "task {id} can't be tried again: its input was erased, as the workspace's retention says. Submit it anew"
            ),
        ));
    }
    tx.lost_calls_unknown(id);
    tx.emit(id, author, Event::TaskRetried);
    tx.again(id);
    tx.renew_due(id);
    tx.dispatch();
    Ok(())
}

fn resumed(tx: &mut Tx<'_>, id: &str, resume: &Resume) -> Result<(), HubError> {
    let state = state_of(tx, id)?;
    if !state.is_parked() {
        return Err(HubError::new(
            Code::Conflict,
            format!("task {id} is {} and waits for nobody", state.word()),
        ));
    }
    refuse_if_moved(tx, id)?;
    let open = tx
        .state
        .tasks
        .get(id)
        .ok_or_else(|| HubError::new(Code::NotFound, format!("no task {id}")))?;
    let n = resume.step;
    let step = open.record.step(n).cloned();
    let step =
        step.ok_or_else(|| HubError::new(Code::NotFound, format!("task {id} has no step {n}")))?;
    if !matches!(step.state, StepState::Unknown | StepState::Held) {
        let asked = open
            .record
            .task
            .asked_step
            .map(|asked| format!("; it waits for step {asked}"))
            .unwrap_or_default();
        return Err(HubError::new(
            Code::Conflict,
            format!("step {n} is not in question{asked}"),
        ));
    }
    let answer = crate::resume::answer(&step, resume.how, resume.result.as_ref());
    let event = Event::StepResolved {
        n,
        how: resume.how,
        status: answer.status,
        content_type: answer.content_type,
    };
    match answer.body {
        Some(body) => tx.emit(id, &resume.author, event.with("answer", body)),
        None => tx.emit(id, &resume.author, event),
    }
    // Other steps may be in question too: their turn comes when the agent asks for them.
    tx.emit(id, &resume.author, Event::TaskResumed);
    tx.dispatch();
    Ok(())
}

/// A task has one home: what were done here would be done there again.
fn refuse_if_moved(tx: &Tx<'_>, id: &str) -> Result<(), HubError> {
    let open = tx.state.tasks.get(id).map(|open| &open.record.task);
    let Some((task, moved)) = open.and_then(|task| Some((task, task.moved.as_ref()?))) else {
        return Ok(());
    };
    let (session, at) = (&task.session, crate::view::rfc3339(moved.moved_ms));
    Err(HubError::new(
        Code::Conflict,
        format!(
            "task {id} left with an export of its session at {at} and goes on where that is imported. If it never was imported: mainstay session export {session} -o FILE, then mainstay session import FILE here takes it back"
        ),
    ))
}

fn state_of(tx: &mut Tx<'_>, id: &str) -> Result<TaskState, HubError> {
    if tx.load(id)
        && let Some(open) = tx.state.tasks.get(id)
    {
        return Ok(open.record.task.state);
    }
    // What is left of a task whose key was erased says how it ended.
    let row = tx.state.log.read().task(id).ok().flatten();
    row.and_then(|row| projection::decode::<Task>(&row.body))
        .map(|task| task.state)
        .ok_or_else(|| HubError::new(Code::NotFound, format!("no task {id}")))
}

/// Retention takes a task's content as a whole, its input first.
fn is_erased(tx: &Tx<'_>, id: &str) -> bool {
    tx.state.tasks.get(id).is_none_or(|open| {
        let (log, seq) = (&tx.state.log, open.record.task.input_seq);
        seq < log.size()
            && log
                .read()
                .has_payload(seq, "input")
                .is_ok_and(|there| !there)
    })
}
