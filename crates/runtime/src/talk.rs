//! The loop: ask the model, run the tools it proposes, add both to the conversation, until it
//! proposes none. It has no limit of its own: the task's budget is refused at the gateway.

use futures_util::future::try_join_all;

use llm::{AssistantPart, Block, ToolCall, ToolResult, Turn};
use serde_json::{Value, json};

use crate::assignment::Assignment;
use crate::door::Doors;
use crate::failure::Failure;
use crate::model::Conversation;
use crate::tools::{Tools, failed};

/// Works until the model has an answer, and returns its text.
pub(crate) async fn to_the_end(assignment: &Assignment, doors: &Doors) -> Result<String, Failure> {
    let (server, tools) = match &doors.tools {
        Some(uri) => {
            let (server, tools) = Tools::open(uri, doors).await?;
            (Some(server), tools)
        }
        None => (None, Vec::new()),
    };
    let mut conversation = Conversation::new(assignment, tools)?;
    loop {
        let answer = conversation.ask(doors).await?;
        let calls: Vec<ToolCall> = answer.tool_calls();
        if calls.is_empty() {
            return Ok(said(&answer.blocks));
        }
        conversation.push(Turn::Assistant(
            answer.blocks.into_iter().map(part).collect(),
        ));
        for result in run_all(server.as_ref(), &calls).await? {
            conversation.push(Turn::Tool(result));
        }
    }
}

/// Text, or the words of a refusal.
fn said(blocks: &[Block]) -> String {
    let texts = blocks.iter().filter_map(|block| match block {
        Block::Text(text) | Block::Refusal(text) => Some(text.as_str()),
        Block::Reasoning(_) | Block::ToolCall(_) => None,
    });
    texts.collect()
}

/// What the model said, kept for it as it was: reasoning goes back unchanged.
fn part(block: Block) -> AssistantPart {
    match block {
        Block::Text(text) => AssistantPart::Text(text),
        Block::Refusal(text) => AssistantPart::Refusal(text),
        Block::Reasoning(reasoning) => AssistantPart::Reasoning(reasoning),
        Block::ToolCall(mut call) => {
            // Providers refuse a conversation with arguments that are no object; the model is told
            // what was wrong by the call's result.
            if arguments(&call).is_err() {
                call.arguments = "{}".into();
            }
            AssistantPart::ToolCall(call)
        }
    }
}

/// At once, results in the order of the calls.
async fn run_all(server: Option<&Tools>, calls: &[ToolCall]) -> Result<Vec<ToolResult>, Failure> {
    try_join_all(calls.iter().map(|call| run(server, call))).await
}

async fn run(server: Option<&Tools>, call: &ToolCall) -> Result<ToolResult, Failure> {
    match (server, arguments(call)) {
        (_, Err(message)) => Ok(failed(&call.id, &message)),
        (None, Ok(_)) => Ok(failed(&call.id, "there is no such tool")),
        (Some(server), Ok(arguments)) => server.call(&call.id, &call.name, &arguments).await,
    }
}

/// Empty text is what some models send for no arguments.
fn arguments(call: &ToolCall) -> Result<Value, String> {
    if call.arguments.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_str(&call.arguments) {
        Ok(arguments @ Value::Object(_)) => Ok(arguments),
        Ok(_) => Err("the arguments must be a JSON object".to_owned()),
        Err(error) => Err(format!("the arguments are not JSON: {error}")),
    }
}
