//! Answers in Anthropic's Messages.

use serde_json::{Value, json};

use super::call::Call;
use super::reply::{INPUT_TOKENS, OUTPUT_TOKENS, event, id, words};

pub(super) fn whole(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Value {
    let mut message = message(call);
    message["content"] = content(call, text, tools).into();
    message["stop_reason"] = reason(tools).into();
    message["usage"]["output_tokens"] = OUTPUT_TOKENS.into();
    message
}

pub(super) fn events(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Vec<String> {
    let mut events = vec![named("message_start", json!({"message": message(call)}))];
    for (index, block) in content(call, text, tools).into_iter().enumerate() {
        let mut begun = block.clone();
        let deltas: Vec<Value> = if block["type"] == "text" {
            begun["text"] = "".into();
            let words = words(text.unwrap_or_default()).into_iter();
            words
                .map(|word| json!({"type": "text_delta", "text": word}))
                .collect()
        } else {
            begun["input"] = json!({});
            let arguments = block["input"].to_string();
            let (left, right) = arguments.split_at(arguments.len() / 2);
            let parts = [left, right].into_iter();
            parts
                .map(|part| json!({"type": "input_json_delta", "partial_json": part}))
                .collect()
        };
        let start = json!({"index": index, "content_block": begun});
        events.push(named("content_block_start", start));
        for delta in deltas {
            let data = json!({"index": index, "delta": delta});
            events.push(named("content_block_delta", data));
        }
        events.push(named("content_block_stop", json!({"index": index})));
    }
    let end = json!({"delta": {"stop_reason": reason(tools), "stop_sequence": null},
        "usage": {"output_tokens": OUTPUT_TOKENS}});
    events.push(named("message_delta", end));
    events.push(named("message_stop", json!({})));
    events
}

fn named(name: &str, mut data: Value) -> String {
    data["type"] = name.into();
    event(Some(name), &data)
}

fn message(call: &Call) -> Value {
    json!({
        "id": id("msg", call, 0), "type": "message", "role": "assistant", "model": call.model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    })
}

fn content(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Vec<Value> {
    let text = text.map(|text| json!({"type": "text", "text": text}));
    let calls = tools.iter().enumerate().map(|(index, (name, arguments))| {
        json!({"type": "tool_use", "id": id("toolu", call, index), "name": name, "input": arguments})
    });
    text.into_iter().chain(calls).collect()
}

fn reason(tools: &[(String, Value)]) -> &'static str {
    if tools.is_empty() {
        "end_turn"
    } else {
        "tool_use"
    }
}
