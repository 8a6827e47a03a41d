//! What shows that a request contains an earlier answer: the ids of the tool calls it proposed, else what it said.
//! The marks are plain here; the hub turns them into HMACs under the task's key before it keeps any.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dialect::Dialect;
use crate::fields::{items, text};
use crate::relay::Outcome;

/// A trace that an answer leaves in later requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mark {
    ToolCallId(String),
    /// Trimmed: frameworks strip what they keep.
    AssistantText(String),
}

impl Mark {
    /// Bytes to digest, distinct for each kind.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, value) = match self {
            Mark::ToolCallId(id) => ("call:", id),
            Mark::AssistantText(text) => ("text:", text),
        };
        [kind.as_bytes(), value.as_bytes()].concat()
    }
}

/// The marks of an answer: its tool calls, or, if it proposed none, its text.
pub fn answer_marks(outcome: &Outcome) -> Vec<Mark> {
    let calls = outcome.tool_calls.iter().filter(|call| !call.id.is_empty());
    let marks: Vec<Mark> = calls
        .map(|call| Mark::ToolCallId(call.id.clone()))
        .collect();
    if marks.is_empty() {
        said(&outcome.text).into_iter().collect()
    } else {
        marks
    }
}

/// The marks of all earlier answers that a request contains, in order.
pub fn request_marks(dialect: Dialect, body: &Value) -> Vec<Mark> {
    let messages = items(body.get(dialect.messages_field()));
    match dialect {
        Dialect::OpenAiChat => messages.iter().flat_map(chat_marks).collect(),
        Dialect::OpenAiResponses => responses_marks(messages),
        Dialect::Anthropic => messages.iter().flat_map(anthropic_marks).collect(),
    }
}

fn said(text: &str) -> Option<Mark> {
    let text = text.trim();
    (!text.is_empty()).then(|| Mark::AssistantText(text.to_owned()))
}

fn called(id: &str) -> Option<Mark> {
    (!id.is_empty()).then(|| Mark::ToolCallId(id.to_owned()))
}

/// The text of a message's content, be it a string or parts.
fn spoken(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(content)) => content.clone(),
        content => items(content)
            .iter()
            .map(|part| text(part, "text"))
            .collect(),
    }
}

fn chat_marks(message: &Value) -> Vec<Mark> {
    if text(message, "role") != "assistant" {
        return Vec::new();
    }
    let mut marks: Vec<Mark> = said(&spoken(message)).into_iter().collect();
    let calls = items(message.get("tool_calls"));
    marks.extend(calls.iter().filter_map(|call| called(text(call, "id"))));
    marks
}

/// An answer is several items here, and its text may be in several of them: each run is also one answer.
fn responses_marks(items: &[Value]) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut run: Vec<String> = Vec::new();
    for item in items {
        match text(item, "type") {
            "message" | "" if text(item, "role") == "assistant" => {
                run.push(spoken(item));
                marks.extend(run.last().and_then(|text| said(text)));
            }
            "reasoning" => {}
            kind if kind.ends_with("_call") => marks.extend(called(text(item, "call_id"))),
            _ => marks.extend(said_together(std::mem::take(&mut run))),
        }
    }
    marks.extend(said_together(run));
    marks
}

fn said_together(run: Vec<String>) -> Option<Mark> {
    if run.len() > 1 {
        said(&run.concat())
    } else {
        None
    }
}

fn anthropic_marks(message: &Value) -> Vec<Mark> {
    if text(message, "role") != "assistant" {
        return Vec::new();
    }
    let mut marks: Vec<Mark> = said(&spoken(message)).into_iter().collect();
    for block in items(message.get("content")) {
        if text(block, "type") == "tool_use" {
            marks.extend(called(text(block, "id")));
        }
    }
    marks
}
