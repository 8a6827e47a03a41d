//! An agent as a tool: a task of its own, whose id comes from the step, so that a repeated call
//! finds the task it made before. A task that works may take what `limits.timeout` gives it; one
//! that waits for a person is waited for a moment only, and then the caller's task waits too.

use std::sync::Arc;
use std::time::Duration;

use hub::Code;
use hub::view::TaskView;
use serde_json::Value;
use tokio::time::Instant;

use super::ToolCall;
use super::result::{Made, too_large};
use crate::Gateway;

/// How long one look waits. Short enough to notice that the hub stops.
const LOOK: Duration = Duration::from_secs(5);
/// How long a call may be blocked by a person: SDKs and MCP clients give up at a minute.
const PERSON: Duration = Duration::from_secs(20);

pub(super) async fn call(
    gateway: &Arc<Gateway>,
    call: &ToolCall,
    agent: &str,
    step_id: &str,
) -> Made {
    let submitted = gateway
        .hub
        .agent_tool_submit(&call.caller, step_id, agent, input(&call.arguments))
        .await;
    let task = match submitted {
        Ok(task) => task,
        // The hub's own trouble is no answer of the agent's: the same step finds the task later.
        Err(refused)
            if matches!(
                refused.code,
                Code::Unavailable | Code::Internal | Code::NoSpace
            ) =>
        {
            return unanswered(format!("agent {agent} was not reached: {refused}"), false);
        }
        Err(refused) => {
            return Made::error(&format!("agent {agent} did not take the task: {refused}"));
        }
    };
    wait(gateway, call, agent, &task.id).await
}

/// Follows the task to its end, until time is up, or until it has waited long enough for a person.
async fn wait(gateway: &Arc<Gateway>, call: &ToolCall, agent: &str, task: &str) -> Made {
    let hub = &gateway.hub;
    let deadline = Instant::now() + Duration::from_millis(call.tool.timeout_ms);
    let mut asks_since: Option<Instant> = None;
    loop {
        let until = asks_since.map_or(deadline, |since| deadline.min(since + PERSON));
        let left = until.saturating_duration_since(Instant::now());
        // One that waits for a person already is waited for until it has ended.
        let seen = match asks_since {
            None => hub.task_wait(task, LOOK.min(left)).await,
            Some(_) => hub.task_finished(task, LOOK.min(left)).await,
        };
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                return unanswered(format!("task {task} can't be read: {error}"), false);
            }
        };
        if let Some(made) = outcome(agent, &seen, call.tool.result_bytes) {
            return made;
        }
        let asks = seen.state.ends_with("-required");
        asks_since = asks.then(|| asks_since.unwrap_or_else(Instant::now));
        if !left.is_zero() {
            continue;
        }
        if asks && call.caller.ambient {
            // Nothing brings a service back to a call that it made outside any task.
            return Made::error(&format!(
                "agent {agent}'s task {task} waits for a person and goes on by itself afterwards"
            ));
        }
        if asks {
            return Made::Parked {
                task: task.to_owned(),
            };
        }
        if deadline <= Instant::now() {
            return late(agent, task, call.tool.timeout_ms);
        }
    }
}

fn late(agent: &str, task: &str, timeout_ms: u64) -> Made {
    let seconds = timeout_ms / 1000;
    let message =
        format!("agent {agent} did not finish within {seconds} s; its task {task} goes on");
    unanswered(message, true)
}

/// What the agent is told: a lone `input` is its text, anything else is handed on as JSON.
fn input(arguments: &Value) -> Value {
    match arguments.as_object() {
        Some(fields) if fields.len() == 1 && fields.get("input").is_some_and(Value::is_string) => {
            fields["input"].clone()
        }
        _ => Value::String(arguments.to_string()),
    }
}

fn outcome(agent: &str, task: &TaskView, limit_bytes: u64) -> Option<Made> {
    let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    match task.state.as_str() {
        "completed" => {
            let text = match &task.output {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some(if text.len() > limit_bytes {
                too_large(limit_bytes, &text)
            } else {
                Made::text(&text)
            })
        }
        "failed" | "canceled" | "rejected" => {
            let why = task
                .error
                .as_ref()
                .map_or("no reason given", |error| error.message.as_str());
            Some(Made::error(&format!(
                "agent {agent}'s task {} is {}: {}",
                task.id,
                task.state,
                mcp::message::bounded(why, 2048)
            )))
        }
        _ => None,
    }
}

fn unanswered(message: String, timed_out: bool) -> Made {
    Made::Unanswered { message, timed_out }
}
