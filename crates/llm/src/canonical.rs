//! The part of a request that a journal match is decided on: the body without what differs from try to try and
//! changes nothing about the answer, keys sorted. Also how a body is cut into one blob per message and put together.

use serde_json::{Map, Value, json};

use crate::dialect::Dialect;

/// Fields of the body itself that name the caller, trace, or steer caches.
const HINTS: &[&str] = &[
    "metadata",
    "user",
    "safety_identifier",
    "stream_options",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "cache_control",
    "diagnostics",
    "_meta",
];

/// Fields of messages, content blocks and tools that do the same.
const BLOCK_HINTS: &[&str] = &["cache_control", "prompt_cache_breakpoint", "_meta"];

/// The body as it is matched. Lists keep their order; tool arguments and schemas are never reached into.
pub fn canonical(dialect: Dialect, body: &Value) -> Value {
    let Some(fields) = body.as_object() else {
        return sorted(body);
    };
    let mut kept = Map::new();
    for (name, value) in fields {
        if HINTS.contains(&name.as_str()) {
            continue;
        }
        let is_blocks =
            matches!(name.as_str(), "system" | "tools") || name == dialect.messages_field();
        let value = if is_blocks {
            without_block_hints(value)
        } else {
            value.clone()
        };
        kept.insert(name.clone(), value);
    }
    sorted(&Value::Object(kept))
}

/// [`canonical`] as bytes, to be digested.
pub fn canonical_bytes(dialect: Dialect, body: &Value) -> Vec<u8> {
    canonical(dialect, body).to_string().into_bytes()
}

/// Strips hints from a list of messages, blocks or tools, and from the content lists inside them.
fn without_block_hints(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(without_block_hints).collect(),
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(name, _)| !BLOCK_HINTS.contains(&name.as_str()));
            let kept = kept.map(|(name, value)| match name.as_str() {
                "content" | "output" if value.is_array() => {
                    (name.clone(), without_block_hints(value))
                }
                _ => (name.clone(), value.clone()),
            });
            Value::Object(kept.collect())
        }
        other => other.clone(),
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            let entries = names
                .into_iter()
                .map(|name| (name.clone(), sorted(&fields[name])));
            Value::Object(entries.collect())
        }
        other => other.clone(),
    }
}

/// Cuts a body into its envelope and its messages, so that each message is kept once however often it is sent.
/// The envelope is only good for [`join`].
pub fn split(dialect: Dialect, body: &Value) -> (Value, Vec<Value>) {
    let field = dialect.messages_field();
    match body.get(field) {
        Some(Value::Array(messages)) => {
            let mut rest = body.clone();
            rest[field] = Value::Null;
            (json!({"body": rest, "messages": field}), messages.clone())
        }
        _ => (json!({"body": body}), Vec::new()),
    }
}

/// Puts together what [`split`] cut.
pub fn join(envelope: &Value, messages: Vec<Value>) -> Value {
    let mut body = envelope.get("body").cloned().unwrap_or(Value::Null);
    if let Some(field) = envelope.get("messages").and_then(Value::as_str)
        && let Some(fields) = body.as_object_mut()
    {
        fields.insert(field.to_owned(), Value::Array(messages));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_and_key_order_change_nothing() {
        let one = json!({
            "model": "m", "metadata": {"user_id": "1"}, "max_tokens": 5,
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "cache_control": {}, "content": [
                    {"type": "text", "text": "x", "cache_control": {}}
                ]}
            ]}],
            "tools": [{"name": "a", "cache_control": {}}],
        });
        let other = json!({
            "max_tokens": 5, "model": "m",
            "tools": [{"name": "a"}],
            "messages": [{"content": [
                {"content": [{"text": "x", "type": "text"}], "tool_use_id": "t", "type": "tool_result"}
            ], "role": "user"}],
            "system": [{"text": "s", "type": "text"}],
        });
        assert_eq!(
            canonical_bytes(Dialect::Anthropic, &one),
            canonical_bytes(Dialect::Anthropic, &other)
        );
    }

    #[test]
    fn arguments_that_look_like_hints_count() {
        let with = |value: u64| {
            json!({"messages": [{"role": "assistant", "content": [
                {"type": "tool_use", "id": "t", "name": "n", "input": {"cache_control": value}}
            ]}]})
        };
        assert_ne!(
            canonical(Dialect::Anthropic, &with(1)),
            canonical(Dialect::Anthropic, &with(2))
        );
    }

    #[test]
    fn what_is_asked_counts() {
        let body = |field: &str, value: Value| json!({"model": "m", "messages": [], field: value});
        let plain = canonical(Dialect::OpenAiChat, &json!({"model": "m", "messages": []}));
        for (field, value) in [
            ("temperature", json!(1)),
            ("stream", json!(true)),
            ("tools", json!([])),
        ] {
            assert_ne!(
                canonical(Dialect::OpenAiChat, &body(field, value)),
                plain,
                "{field}"
            );
        }
        for (field, value) in [
            ("user", json!("u")),
            ("stream_options", json!({"include_usage": true})),
        ] {
            assert_eq!(
                canonical(Dialect::OpenAiChat, &body(field, value)),
                plain,
                "{field}"
            );
        }
    }

    #[test]
    fn join_is_the_inverse_of_split() {
        let bodies = [
            json!({"a": 1, "messages": [1, {"b": 2}], "z": 3}),
            json!({"messages": null, "input": "text"}),
            json!({"input": [{"role": "user"}], "messages": 3}),
            json!({}),
            json!([1]),
            json!("x"),
        ];
        for dialect in Dialect::ALL {
            for body in &bodies {
                let (envelope, messages) = split(dialect, body);
                let joined = join(&envelope, messages);
                assert_eq!(joined.to_string(), body.to_string(), "{dialect}");
            }
        }
    }
}
