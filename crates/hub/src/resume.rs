//! What an agent gets for a step that a person decided about: the same shapes a call would give.

use mainstay_core::step::{Step, StepKind};
use mainstay_core::task::ResumeAs;
use serde_json::{Value, json};

/// The answer to record; no body means leave to send.
pub(crate) struct Decided {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Option<Vec<u8>>,
}

/// The recorded answer of a tool step is an MCP result, of a local step the plain value.
pub(crate) fn answer(step: &Step, how: ResumeAs, result: Option<&Value>) -> Decided {
    let body = match (how, step.kind) {
        (ResumeAs::Repeat, _) => None,
        (ResumeAs::Done, StepKind::Local) => Some(result.cloned().unwrap_or(Value::Null)),
        (ResumeAs::Fail, StepKind::Local) => Some(json!({"error": fail_text(result)})),
        (ResumeAs::Done, _) => Some(tool_result(result)),
        (ResumeAs::Fail, _) => {
            Some(json!({"content": [{"type": "text", "text": fail_text(result)}], "isError": true}))
        }
    };
    Decided {
        status: 200,
        content_type: "application/json".into(),
        body: body.map(|body| body.to_string().into_bytes()),
    }
}

fn tool_result(result: Option<&Value>) -> Value {
    match result {
        // Already an MCP result.
        Some(value) if value.get("content").is_some_and(Value::is_array) => value.clone(),
        Some(Value::String(text)) => {
            json!({"content": [{"type": "text", "text": text}], "isError": false})
        }
        Some(value) => {
            json!({"content": [{"type": "text", "text": value.to_string()}], "isError": false})
        }
        None => json!({"content": [{"type": "text", "text": "done"}], "isError": false}),
    }
}

fn fail_text(result: Option<&Value>) -> String {
    match result {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "a person decided that this call fails".into(),
    }
}
