//! Answers in OpenAI's Chat Completions.

use serde_json::{Value, json};

use super::call::Call;
use super::reply::{CREATED, INPUT_TOKENS, OUTPUT_TOKENS, event, id, words};

pub(super) fn whole(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Value {
    let mut message = json!({"role": "assistant", "content": text});
    if !tools.is_empty() {
        message["tool_calls"] = tool_calls(call, tools).into();
    }
    json!({
        "id": id("chatcmpl", call, 0), "object": "chat.completion", "created": CREATED,
        "model": call.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason(tools)}],
        "usage": usage(),
    })
}

pub(super) fn events(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Vec<String> {
    let mut events = vec![chunk(
        call,
        json!({"role": "assistant", "content": ""}),
        None,
    )];
    for word in words(text.unwrap_or_default()) {
        events.push(chunk(call, json!({"content": word}), None));
    }
    for (index, tool) in tool_calls(call, tools).iter().enumerate() {
        let mut start = tool.clone();
        start["index"] = index.into();
        start["function"]["arguments"] = "".into();
        events.push(chunk(call, json!({"tool_calls": [start]}), None));
        let arguments = tool["function"]["arguments"].as_str().unwrap_or_default();
        // Two halves: arguments arrive in pieces.
        let (left, right) = arguments.split_at(arguments.len() / 2);
        for part in [left, right] {
            let delta = json!({"index": index, "function": {"arguments": part}});
            events.push(chunk(call, json!({"tool_calls": [delta]}), None));
        }
    }
    events.push(chunk(call, json!({}), Some(reason(tools))));
    if call.body["stream_options"]["include_usage"] == true {
        let mut last = frame(call);
        last["choices"] = json!([]);
        last["usage"] = usage();
        events.push(event(None, &last));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn frame(call: &Call) -> Value {
    json!({"id": id("chatcmpl", call, 0), "object": "chat.completion.chunk", "created": CREATED,
        "model": call.model})
}

fn chunk(call: &Call, delta: Value, finish: Option<&str>) -> String {
    let mut chunk = frame(call);
    chunk["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    event(None, &chunk)
}

fn tool_calls(call: &Call, tools: &[(String, Value)]) -> Vec<Value> {
    let calls = tools.iter().enumerate().map(|(index, (name, arguments))| {
        json!({"id": id("call", call, index), "type": "function",
            "function": {"name": name, "arguments": arguments.to_string()}})
    });
    calls.collect()
}

fn reason(tools: &[(String, Value)]) -> &'static str {
    if tools.is_empty() {
        "stop"
    } else {
        "tool_calls"
    }
}

fn usage() -> Value {
    json!({"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS})
}
