//! Submitting, reading, waiting for, canceling, retrying and resuming tasks: what clients ask for.
//!
//! Every change is a job of the writer that checks first and emits afterwards, with whoever asked
//! as the entry's author. Reading goes past the writer wherever the store knows enough. Who works
//! on a task is `dispatch.rs`; what becomes of its calls is `step.rs`.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::event::{Event, Payload};
use mainstay_core::step::StepState;
use mainstay_core::task::{Parent, ResumeAs, Task, TaskRecord, TaskState};
use serde_json::Value;

use crate::caller::Caller;
use crate::keys;
use crate::projection;
use crate::queue::Waits;
use crate::shared::lock;
use crate::stream::FrameKind;
use crate::tx::Tx;
use crate::view::{self, CostView, ErrorView, Page, StepView, TaskView};
use crate::{Code, Hub, HubError, Refusal};

/// A unit of work from a client.
#[derive(Clone, Debug, Default)]
pub struct SubmitTask {
    pub agent: String,
    /// A string for plain text, else a list of A2A parts.
    pub input: serde_json::Value,
    /// A name of the client's choosing; a fresh session when left out.
    pub session: Option<String>,
    /// Unix milliseconds.
    pub deadline_ms: Option<i64>,
    pub idempotency_key: Option<String>,
    /// Who asks, for the log: `owner`, `cli:uid=0` …
    pub author: String,
    pub traceparent: Option<String>,
}

/// Which tasks to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    pub agent: Option<String>,
    pub state: Option<String>,
    pub cursor: Option<String>,
    /// At most 200; 50 when zero.
    pub limit: usize,
}

/// What a person says about the step a task waits for.
#[derive(Clone, Debug)]
pub struct Resume {
    pub step: u32,
    pub how: ResumeAs,
    /// The result to use with `done`.
    pub result: Option<serde_json::Value>,
    /// Who says it, for the log.
    pub author: String,
}

impl Hub {
    /// Takes a task, or returns the one that this idempotency key made before.
    pub async fn task_submit(&self, submit: SubmitTask) -> Result<TaskView, HubError> {
        if let Some(session) = &submit.session
            && !is_session_name(session)
        {
            return Err(HubError::new(
                Code::Invalid,
                "a session's name has 1 to 128 letters, digits, `.`, `_` or `-`",
            ));
        }
        let id = self.shared.ground.new_id();
        let id = self
            .writer
            .run(move |tx| submitted(tx, &id, submit, None))
            .await??;
        self.task_get(&id).await
    }

    /// A child task of an agent used as a tool. Its id is derived from the step: asking again
    /// never makes a second.
    pub async fn agent_tool_submit(
        &self,
        caller: &Caller,
        step_id: &str,
        agent: &str,
        input: Value,
    ) -> Result<TaskView, Refusal> {
        let id = self.shared.keys.derived_id(&[b"child", step_id.as_bytes()]);
        let parent = Parent {
            task: caller.task.clone(),
            step: step_id.to_owned(),
        };
        let submit = SubmitTask {
            agent: agent.to_owned(),
            input,
            author: format!("agent:{}", caller.agent.name),
            ..SubmitTask::default()
        };
        let child = id.clone();
        self.writer
            .run(move |tx| {
                if tx.load(&child) {
                    Ok(child)
                } else {
                    submitted(tx, &child, submit, Some(parent))
                }
            })
            .await??;
        self.task_get(&id).await
    }

    /// One task.
    pub async fn task_get(&self, id: &str) -> Result<TaskView, HubError> {
        let (record, waits) = self.found(id).await?;
        let mut view = self.read(move |reader| view_of(reader, &record)).await?;
        view.show_waits(waits);
        Ok(view)
    }

    /// The record: from the writer's memory while it is open, else from the store.
    pub(crate) async fn record(&self, id: &str) -> Result<TaskRecord, HubError> {
        Ok(self.found(id).await?.0)
    }

    async fn found(&self, id: &str) -> Result<(TaskRecord, Option<Waits>), HubError> {
        let wanted = id.to_owned();
        let open = self
            .writer
            .run(move |tx| {
                let open = tx.state.tasks.get(&wanted)?;
                Some((open.record.clone(), tx.state.waits(&wanted)))
            })
            .await?;
        if let Some(found) = open {
            return Ok(found);
        }
        let wanted = id.to_owned();
        let found = self
            .read(move |reader| projection::load(reader, &wanted))
            .await?;
        found
            .map(|(record, _)| (record, None))
            .ok_or_else(|| HubError::new(Code::NotFound, format!("no task {id}")))
    }

    /// The entry that changed the task last.
    pub(crate) async fn task_seq(&self, id: &str) -> Result<u64, HubError> {
        let wanted = id.to_owned();
        let row = self.read(move |reader| reader.task(&wanted)).await?;
        row.map(|row| row.updated_seq)
            .ok_or_else(|| HubError::new(Code::NotFound, format!("no task {id}")))
    }

    /// Tasks, newest first. Ambient tasks are listed only when asked for by id.
    pub async fn task_list(&self, filter: TaskFilter) -> Result<Page<TaskView>, HubError> {
        let limit = if filter.limit == 0 {
            50
        } else {
            filter.limit.min(200)
        };
        if let Some(state) = &filter.state
            && !STATES.contains(&state.as_str())
        {
            return Err(HubError::new(
                Code::Invalid,
                format!("no state {state}: it is one of {}", STATES.join(", ")),
            ));
        }
        let before = filter.cursor.as_deref().map(cursor_parse).transpose()?;
        let wanted = store::TaskFilter {
            agent: filter.agent,
            session: None,
            state: filter.state,
            before,
        };
        let listed = self.read(move |reader| {
            let rows = reader.tasks(&wanted, limit + 1)?;
            let next = (rows.len() > limit)
                .then(|| rows.get(limit - 1).map(cursor_text))
                .flatten();
            let mut items = Vec::new();
            for row in rows.iter().take(limit) {
                if let Some((record, _)) = projection::load(reader, &row.id)?
                    && !record.task.ambient
                {
                    items.push(view_of(reader, &record)?);
                }
            }
            Ok(Page { items, next })
        });
        let mut page = listed.await?;
        self.show_waits(&mut page.items).await?;
        Ok(page)
    }

    /// Returns when the task has ended or waits for a person, or when time is up.
    pub async fn task_wait(&self, id: &str, timeout: Duration) -> Result<TaskView, HubError> {
        self.wait(id, timeout, |state| {
            state.is_terminal() || state.is_parked()
        })
        .await
    }

    /// Returns when the task has ended, or when time is up; one that waits for a person goes on.
    pub async fn task_finished(&self, id: &str, timeout: Duration) -> Result<TaskView, HubError> {
        self.wait(id, timeout, TaskState::is_terminal).await
    }

    async fn wait(
        &self,
        id: &str,
        timeout: Duration,
        enough: fn(TaskState) -> bool,
    ) -> Result<TaskView, HubError> {
        let until = tokio::time::Instant::now() + timeout;
        loop {
            // Registered before looking, or an end in between would be missed.
            let (waiter, ended) = tokio::sync::oneshot::channel();
            {
                let mut waiters = lock(&self.shared.waiters);
                let waiters = waiters.entry(id.to_owned()).or_default();
                // Those who went away without a word, or they would pile up behind a long task.
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(waiter);
            }
            let record = self.record(id).await;
            let enough_now = record
                .as_ref()
                .is_ok_and(|record| enough(record.task.state));
            if enough_now || record.is_err() || tokio::time::timeout_at(until, ended).await.is_err()
            {
                self.forget_waiters(id);
                return self.task_get(id).await;
            }
        }
    }

    fn forget_waiters(&self, id: &str) {
        let mut waiters = lock(&self.shared.waiters);
        if let Some(list) = waiters.get_mut(id) {
            list.retain(|waiter| !waiter.is_closed());
            if list.is_empty() {
                waiters.remove(id);
            }
        }
    }

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

    /// The steps of a task in intent order.
    pub async fn task_steps(&self, id: &str) -> Result<Page<StepView>, HubError> {
        let record = self.record(id).await?;
        Ok(Page {
            items: view::steps(&record),
            next: None,
        })
    }
}

const STATES: [&str; 8] = [
    "submitted",
    "working",
    "input-required",
    "auth-required",
    "completed",
    "failed",
    "canceled",
    "rejected",
];

/// `[A-Za-z0-9._-]{1,128}`.
#[must_use]
pub fn is_session_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn cursor_text(row: &store::TaskRow) -> String {
    format!("{}.{}", row.created_ms, row.id)
}

fn cursor_parse(text: &str) -> Result<store::TaskCursor, HubError> {
    let bad = || {
        HubError::new(
            Code::Invalid,
            "cursor is not one that a list gave as `next`",
        )
    };
    let (created_ms, id) = text.split_once('.').ok_or_else(bad)?;
    Ok(store::TaskCursor {
        created_ms: created_ms.parse().map_err(|_| bad())?,
        id: id.to_owned(),
    })
}

fn submitted(
    tx: &mut Tx<'_>,
    id: &str,
    submit: SubmitTask,
    parent: Option<Parent>,
) -> Result<String, HubError> {
    let Some(agent) = tx.state.agent(&submit.agent) else {
        return Err(HubError::new(
            Code::NotFound,
            format!(
                "no agent {}{}",
                submit.agent,
                tx.state.nearest(&submit.agent)
            ),
        ));
    };
    let queue_max = agent.queue_max as usize;
    let fingerprint = format!(
        "{}|{}|{}",
        submit.agent,
        submit.session.as_deref().unwrap_or(""),
        submit.input
    );
    let idempotency = submit
        .idempotency_key
        .as_deref()
        .map(|key| tx.shared.keys.idempotency(key));
    if let Some(key) = idempotency
        && let Some(known) = tx.idempotent(key)
    {
        return same_request(tx, &known, &fingerprint);
    }
    if tx.low_space() {
        return Err(HubError::new(
            Code::NoSpace,
            "less than 64 MiB of disk are free: free some, then submit again",
        ));
    }
    if tx
        .state
        .queues
        .get(&submit.agent)
        .map_or(0, std::collections::BTreeSet::len)
        >= queue_max
    {
        return Err(HubError::new(
            Code::QueueFull,
            format!(
                "agent {} has {queue_max} tasks waiting: try later",
                submit.agent
            ),
        ));
    }
    let session = submit
        .session
        .clone()
        .unwrap_or_else(|| tx.shared.ground.new_id());
    if let Some(owner) = tx.session_agent(&session)
        && owner != submit.agent
    {
        return Err(HubError::new(
            Code::Conflict,
            format!("session {session} belongs to agent {owner}"),
        ));
    }
    let key = keys::random_key(tx.shared.ground.as_ref())?;
    let event = Event::TaskSubmitted {
        agent: submit.agent.clone(),
        session,
        deadline_ms: submit.deadline_ms,
        parent,
        idempotency,
        ambient: false,
    };
    let mut recorded = event.with("input", submit.input.to_string().into_bytes());
    recorded.payloads.push(Payload {
        name: "key".into(),
        bytes: key.to_vec(),
    });
    let text = crate::boot::input_text(&submit.input);
    tx.create(
        id,
        &submit.author,
        submit.traceparent,
        recorded,
        key,
        Arc::clone(&text),
    );
    tx.shared.metrics.submitted(&submit.agent);
    tx.frame(
        id,
        FrameKind::Message {
            role: "user",
            text: text.to_string(),
        },
    );
    tx.dispatch();
    Ok(id.to_owned())
}

/// The key was used: for this request it gives the task, for another it is an error.
fn same_request(tx: &mut Tx<'_>, known: &str, fingerprint: &str) -> Result<String, HubError> {
    tx.load(known);
    let Some(open) = tx.state.tasks.get(known) else {
        // Its content was erased since: nothing is left to compare with.
        return Ok(known.to_owned());
    };
    let task = &open.record.task;
    let reader = tx.state.log.read();
    let input = crate::input::payload_json(reader, task.input_seq, "input").unwrap_or_default();
    let session = &task.session;
    // A fresh session's name was made by us and is not part of the request.
    let same = [
        format!("{}|{session}|{input}", task.agent),
        format!("{}||{input}", task.agent),
    ];
    if input.is_null() || same.iter().any(|same| same == fingerprint) {
        Ok(known.to_owned())
    } else {
        Err(HubError::new(
            Code::Conflict,
            "this Idempotency-Key was used for another request",
        ))
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
    let asked = tx
        .state
        .tasks
        .get(id)
        .and_then(|open| open.record.task.asked_step);
    if let (true, Some(step)) = (state.is_parked(), asked) {
        return Err(HubError::new(
            Code::Conflict,
            format!(
                "task {id} waits for a word on step {step}: mainstay task resume {id} --step {step} --as done[=RESULT]|repeat|fail"
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
        let input = crate::input::payload_json(log.read(), seq, "input");
        seq < log.size() && input.is_ok_and(|input| input.is_null())
    })
}

/// A task as it is printed.
pub(crate) fn view_of(
    reader: &store::Reader,
    record: &TaskRecord,
) -> Result<TaskView, store::StoreError> {
    let task = &record.task;
    let (delivered, replayed) = if task.state.is_terminal() {
        (task.delivered, task.replayed)
    } else {
        record.counts(false)
    };
    let error = task.error_code.clone().map(|code| ErrorView {
        code,
        message: task.error_message.clone().unwrap_or_default(),
    });
    Ok(TaskView {
        id: task.id.clone(),
        agent: task.agent.clone(),
        session: task.session.clone(),
        state: task.state.word().to_owned(),
        output: crate::input::output(reader, task)?,
        attempts: task.attempt,
        steps: delivered,
        replayed,
        repeated: task.repeated,
        diverged_at: task.diverged_at,
        usage: task.usage.into(),
        cost: CostView {
            usd: task.cost.usd(),
        },
        reason: task.reason.map(|reason| reason.word().to_owned()),
        error,
        input: crate::input::payload_json(reader, task.input_seq, "input")?,
        created: view::rfc3339(task.created_ms),
        updated: view::rfc3339(task.updated_ms),
        generation: task.generation,
        asked_step: task.asked_step,
        parent: task.parent.as_ref().map(|parent| parent.task.clone()),
    })
}
