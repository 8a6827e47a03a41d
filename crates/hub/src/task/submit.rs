//! Taking tasks, from clients and from agents that call an agent as a tool: once per key, within the
//! bounds of queue and disk, and in a session of the agent's own.

use std::sync::Arc;

use mainstay_core::event::{Event, Payload};
use mainstay_core::task::Parent;
use serde_json::Value;

use super::SubmitTask;
use crate::caller::Caller;
use crate::keys;
use crate::stream::FrameKind;
use crate::tx::{Tx, unread};
use crate::view::TaskView;
use crate::{Code, Hub, HubError, Refusal};

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
        self.shared.can_record()?;
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
        let (caller, step) = (caller.task.clone(), step_id.to_owned());
        let id = self
            .writer
            .run(move |tx| {
                if let Some(came_along) = tx.called(&caller, &step)? {
                    return Ok(came_along);
                }
                // One whose content was erased can't be loaded and is there all the same.
                if tx.load(&id) || tx.is_open(&id)?.is_some() {
                    Ok(id)
                } else {
                    submitted(tx, &id, submit, Some(parent))
                }
            })
            .await??;
        self.task_get(&id).await
    }
}

/// `[A-Za-z0-9._-]{1,128}`.
#[must_use]
pub fn is_session_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
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
    let idempotency = submit
        .idempotency_key
        .as_deref()
        .map(|key| tx.shared.keys.idempotency(key));
    if let Some(key) = idempotency
        && let Some(known) = tx.idempotent(key)?
    {
        return same_request(tx, &known, &submit);
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
    if let Some(owner) = tx.session_agent(&session)?
        && owner != submit.agent
    {
        return Err(HubError::new(
            Code::Conflict,
            format!("session {session} belongs to agent {owner}"),
        ));
    }
    refuse_if_moved(tx, &session)?;
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

/// Its open tasks are elsewhere, and a turn follows the one before it.
fn refuse_if_moved(tx: &Tx<'_>, session: &str) -> Result<(), HubError> {
    let open = tx.state.sessions.get(session).into_iter().flatten();
    let mut moved = open.filter(|(_, id)| tx.has_moved(id));
    match moved.next() {
        None => Ok(()),
        Some((_, id)) => Err(HubError::new(
            Code::Conflict,
            format!(
                "session {session} was exported with its task {id} open: submit it where the session was imported, or cancel that task here"
            ),
        )),
    }
}

/// The key was used: for this request it gives the task, for another it is an error.
fn same_request(tx: &mut Tx<'_>, known: &str, submit: &SubmitTask) -> Result<String, HubError> {
    tx.load(known);
    let Some(open) = tx.state.tasks.get(known) else {
        // Its content was erased since: nothing is left to compare with.
        return Ok(known.to_owned());
    };
    let task = &open.record.task;
    let (reader, seq) = (tx.state.log.read(), task.input_seq);
    let is_there = reader.has_payload(seq, "input").map_err(unread)?;
    let input = crate::input::payload_json(reader, seq, "input").map_err(unread)?;
    // A fresh session's name was made by us and is not part of the request.
    let session = submit.session.as_ref();
    let is_same = task.agent == submit.agent
        && session.is_none_or(|session| *session == task.session)
        && input == submit.input;
    if !is_there || is_same {
        Ok(known.to_owned())
    } else {
        Err(HubError::new(
            Code::Conflict,
            "this Idempotency-Key was used for another request",
        ))
    }
}
