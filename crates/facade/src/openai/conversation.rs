//! From a list of messages to a task's input; the rule stands in `openai`'s header.
//!
//! Chat Completions and Responses differ in the words for the same parts; both become [`Turn`]s
//! here and are treated alike from then on.

use serde_json::{Map, Value, json};

use super::ApiError;

/// One message, its content as A2A parts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) role: String,
    pub(super) parts: Vec<Value>,
}

/// The task's input. `continued` says that a session has the earlier turns.
pub(super) fn input(
    turns: Vec<Turn>,
    continued: bool,
    param: &'static str,
) -> Result<Value, ApiError> {
    let Some(last_user) = turns.iter().rposition(|turn| turn.role == "user") else {
        return Err(ApiError::field(
            param,
            "there is no message of the role `user`",
        ));
    };
    if continued || turns.len() == 1 {
        return turns
            .into_iter()
            .nth(last_user)
            .map(|turn| plain(turn.parts))
            .ok_or_else(|| ApiError::field(param, "no message"));
    }
    if turns
        .iter()
        .flat_map(|turn| &turn.parts)
        .all(|part| part["text"].is_string())
    {
        let texts = turns
            .iter()
            .map(|turn| format!("[{}]\n{}", turn.role, joined(&turn.parts)));
        return Ok(Value::String(texts.collect::<Vec<_>>().join("\n\n")));
    }
    Ok(Value::Array(
        turns.into_iter().flat_map(with_role).collect(),
    ))
}

/// Text where it is nothing but text.
fn plain(parts: Vec<Value>) -> Value {
    if parts.iter().all(|part| part["text"].is_string()) {
        Value::String(joined(&parts))
    } else {
        Value::Array(parts)
    }
}

fn joined(parts: &[Value]) -> String {
    parts
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

fn with_role(turn: Turn) -> impl Iterator<Item = Value> {
    let Turn { role, parts } = turn;
    parts.into_iter().map(move |mut part| {
        part["metadata"] = json!({"role": role});
        part
    })
}

/// Chat Completions' `messages`.
pub(super) fn from_messages(messages: Vec<Value>) -> Result<Vec<Turn>, ApiError> {
    messages
        .into_iter()
        .map(|message| turn(message, "messages"))
        .collect()
}

/// Responses' `input` and `instructions`.
pub(super) fn from_input(
    input: Value,
    instructions: Option<String>,
) -> Result<Vec<Turn>, ApiError> {
    let first = instructions.map(|text| Turn {
        role: "system".into(),
        parts: vec![json!({"text": text})],
    });
    let mut turns: Vec<_> = first.into_iter().collect();
    match input {
        Value::String(text) => turns.push(Turn {
            role: "user".into(),
            parts: vec![json!({"text": text})],
        }),
        Value::Array(items) => {
            for item in items {
                turns.push(turn(item, "input")?);
            }
        }
        _ => return Err(ApiError::field("input", "input is a string or a list")),
    }
    Ok(turns)
}

fn turn(message: Value, param: &'static str) -> Result<Turn, ApiError> {
    if message["type"]
        .as_str()
        .is_some_and(|kind| kind != "message")
    {
        return Err(ApiError::field(
            param,
            format!(
                "items of the type {} are not taken: the agent has its own tools",
                message["type"]
            ),
        ));
    }
    let role = match message["role"].as_str() {
        Some("developer" | "system") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        other => {
            return Err(ApiError::field(
                param,
                format!(
                    "messages of the role {other:?} are not taken: the agent has its own tools"
                ),
            ));
        }
    };
    if message
        .get("tool_calls")
        .is_some_and(|calls| !calls.is_null())
    {
        return Err(ApiError::field(
            param,
            "messages with `tool_calls` are not taken: the agent has its own tools",
        ));
    }
    let parts = match &message["content"] {
        Value::String(text) => vec![json!({"text": text})],
        Value::Array(parts) => parts
            .iter()
            .map(|part| self::part(part, param))
            .collect::<Result<_, _>>()?,
        _ => return Err(ApiError::field(param, "a message has no content")),
    };
    Ok(Turn {
        role: role.to_owned(),
        parts,
    })
}

/// One part of a message's content as an A2A part.
fn part(part: &Value, param: &'static str) -> Result<Value, ApiError> {
    let text = |value: &Value| value.as_str().map(|text| json!({"text": text}));
    let made = match part["type"].as_str() {
        Some("text" | "input_text" | "output_text") => text(&part["text"]),
        Some("refusal") => text(&part["refusal"]),
        Some("image_url") => part["image_url"]["url"]
            .as_str()
            .and_then(|url| link(url, "image/*")),
        Some("input_image") => part["image_url"]
            .as_str()
            .and_then(|url| link(url, "image/*")),
        Some("file") => file(part["file"].as_object()),
        Some("input_file") => file(part.as_object()),
        Some("input_audio") => audio(&part["input_audio"]),
        _ => None,
    };
    made.ok_or_else(|| {
        ApiError::field(
            param,
            format!("a part of the type {} can't be read", part["type"]),
        )
    })
}

/// A `data:` URL becomes its content; any other stays a link.
fn link(url: &str, otherwise: &str) -> Option<Value> {
    let Some(data) = url.strip_prefix("data:") else {
        return Some(json!({"url": url, "mediaType": otherwise}));
    };
    let (head, content) = data.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    Some(json!({"raw": content, "mediaType": media_type}))
}

fn file(file: Option<&Map<String, Value>>) -> Option<Value> {
    let file = file?;
    let place = file
        .get("file_data")
        .or_else(|| file.get("file_url"))?
        .as_str()?;
    let mut part = link(place, "application/octet-stream")?;
    if let Some(name) = file.get("filename") {
        part["filename"] = name.clone();
    }
    Some(part)
}

fn audio(audio: &Value) -> Option<Value> {
    Some(
        json!({"raw": audio["data"].as_str()?, "mediaType": format!("audio/{}", audio["format"].as_str()?)}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(messages: Value, continued: bool) -> Result<Value, ApiError> {
        input(
            from_messages(serde_json::from_value(messages).unwrap())?,
            continued,
            "messages",
        )
    }

    #[test]
    fn a_single_user_message_is_the_input_as_it_stands() {
        assert_eq!(
            chat(json!([{"role": "user", "content": "hi"}]), false).unwrap(),
            "hi"
        );
        assert_eq!(chat(json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]), false).unwrap(), "a\nb");
    }

    #[test]
    fn without_a_session_the_agent_gets_the_whole_conversation_as_text() {
        let messages = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"}]);
        assert_eq!(
            chat(messages, false).unwrap(),
            "[system]\nbe brief\n\n[user]\none\n\n[assistant]\n1\n\n[user]\ntwo"
        );
    }

    #[test]
    fn with_a_session_only_the_last_user_message_is_new() {
        let messages = json!([{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"}]);
        assert_eq!(chat(messages, true).unwrap(), "two");
    }

    #[test]
    fn images_make_parts() {
        let url = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
        let messages =
            json!([{"role": "user", "content": [{"type": "text", "text": "what?"}, url]}]);
        assert_eq!(
            chat(messages, false).unwrap(),
            json!([{"text": "what?"}, {"raw": "AAAA", "mediaType": "image/png"}])
        );
        let both = json!([{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}]}]);
        let parts = chat(both, false).unwrap();
        assert_eq!(
            parts[0],
            json!({"text": "s", "metadata": {"role": "system"}})
        );
        assert_eq!(
            parts[1],
            json!({"url": "https://a.example/x.png", "mediaType": "image/*", "metadata": {"role": "user"}})
        );
    }

    #[test]
    fn responses_take_text_items_and_instructions() {
        assert_eq!(
            input(from_input(json!("hi"), None).unwrap(), false, "input").unwrap(),
            "hi"
        );
        let items = json!([{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]);
        assert_eq!(
            input(from_input(items.clone(), None).unwrap(), false, "input").unwrap(),
            "hi"
        );
        assert_eq!(
            input(
                from_input(items, Some("be brief".into())).unwrap(),
                false,
                "input"
            )
            .unwrap(),
            "[system]\nbe brief\n\n[user]\nhi"
        );
    }

    #[test]
    fn what_can_not_be_carried_over_is_refused_with_its_place() {
        for bad in [
            json!([]),
            json!([{"role": "system", "content": "s"}]),
            json!([{"role": "tool", "content": "x", "tool_call_id": "1"}]),
            json!([{"role": "assistant", "content": "x", "tool_calls": [{}]}]),
            json!([{"role": "user"}]),
            json!([{"role": "user", "content": [{"type": "video"}]}]),
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,xx"}}]}]),
            json!([1]),
        ] {
            let error = chat(bad.clone(), false).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param),
                (400, Some("messages")),
                "{bad}"
            );
        }
        assert!(
            from_input(
                json!([{"type": "function_call_output", "output": "x"}]),
                None
            )
            .is_err()
        );
    }
}
