//! A tool's result as agents get it, `CallToolResult` of MCP, whatever kind of tool it was.

use mcp::message::bounded;
use mcp::server::text_result;
use serde_json::{Value, json};

/// What became of a tool call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Made {
    /// An answer, a tool's own error included.
    Answer { result: Value, is_error: bool },
    /// It never left.
    NotSent(String),
    /// It left, and nobody knows what became of it.
    Unanswered { message: String, timed_out: bool },
    /// An agent's task, which waits for a person.
    Parked { task: String },
}

impl Made {
    pub(super) fn text(text: &str) -> Self {
        Self::Answer {
            result: text_result(text, false),
            is_error: false,
        }
    }

    pub(super) fn error(text: &str) -> Self {
        Self::Answer {
            result: text_result(text, true),
            is_error: true,
        }
    }
}

/// A recorded result for an MCP client. A person's `done` may be any JSON, and a refusal is the
/// hub's own object; both become a result that says what they say.
#[must_use]
pub fn recorded(status: u16, body: &[u8]) -> Value {
    let is_error = status >= 400;
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(fields)) if fields.get("content").is_some_and(Value::is_array) => {
            Value::Object(fields)
        }
        Ok(Value::String(text)) => text_result(&text, is_error),
        Ok(value) => match value.pointer("/error/message").and_then(Value::as_str) {
            Some(message) => text_result(message, true),
            None => structured(&value, is_error),
        },
        Err(_) => text_result(&String::from_utf8_lossy(body), is_error),
    }
}

fn structured(value: &Value, is_error: bool) -> Value {
    let mut result = text_result(&value.to_string(), is_error);
    if value.is_object() {
        result["structuredContent"] = value.clone();
    }
    result
}

/// A server's own result within its bound; `None` if it is larger.
pub(super) fn within(result: Value, limit_bytes: usize) -> Option<Value> {
    (result.to_string().len() <= limit_bytes.saturating_add(1024)).then_some(result)
}

/// What is said of a result that is too large.
pub(super) fn too_large(limit_bytes: usize, start: &str) -> Made {
    let start = bounded(start, 512);
    let text = format!(
        "the result is larger than {limit_bytes} bytes and was cut off; ask for less, or raise limits.result"
    );
    let mut made = Made::error(&text);
    if let Made::Answer { result, .. } = &mut made
        && !start.is_empty()
    {
        result["content"] = json!([{"type": "text", "text": text}, {"type": "text", "text": format!("it begins: {start}")}]);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_recorded_becomes_a_result() {
        let text = |status, body: &str| {
            let result = recorded(status, body.as_bytes());
            (
                result["content"][0]["text"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                result["isError"] == true,
            )
        };
        assert_eq!(
            text(200, r#"{"content":[{"type":"text","text":"own"}]}"#),
            ("own".into(), false)
        );
        assert_eq!(text(200, r#""done""#), ("done".into(), false));
        assert_eq!(text(200, r#"{"id":7}"#), (r#"{"id":7}"#.into(), false));
        assert_eq!(
            text(409, r#"{"error":{"code":"parked","message":"waits"}}"#),
            ("waits".into(), true)
        );
        assert_eq!(text(500, "not json"), ("not json".into(), true));
        assert_eq!(recorded(200, br#"{"id":7}"#)["structuredContent"]["id"], 7);
    }
}
