//! An agent as a tool: a task of its own, whose id comes from the step, so that a repeated call
//! finds the task it made before.

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
    let deadline = Instant::now() + Duration::from_millis(call.tool.timeout_ms);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let seen = match gateway.hub.task_finished(&task.id, LOOK.min(left)).await {
            Ok(seen) => seen,
            Err(error) => {
                return unanswered(format!("task {} can't be read: {error}", task.id), false);
            }
        };
        if let Some(made) = outcome(agent, &seen, call.tool.result_bytes) {
            return made;
        }
        if left.is_zero() {
            let seconds = call.tool.timeout_ms / 1000;
            return unanswered(
                format!(
                    "agent {agent} did not finish within {seconds} s; its task {} goes on",
                    task.id
                ),
                true,
            );
        }
    }
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
