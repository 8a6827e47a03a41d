//! Answers in OpenAI's Responses.

use serde_json::{Value, json};

use super::call::Call;
use super::reply::{CREATED, INPUT_TOKENS, OUTPUT_TOKENS, event, id, words};

pub(super) fn whole(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Value {
    response(call, "completed", output(call, text, tools))
}

pub(super) fn events(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Vec<String> {
    let mut writer = Writer::default();
    let begun = response(call, "in_progress", Vec::new());
    writer.push("response.created", json!({"response": begun}));
    writer.push("response.in_progress", json!({"response": begun}));
    let output = output(call, text, tools);
    for (index, item) in output.iter().enumerate() {
        if item["type"] == "message" {
            message(&mut writer, index, item, text.unwrap_or_default());
        } else {
            function_call(&mut writer, index, item);
        }
    }
    let done = response(call, "completed", output);
    writer.push("response.completed", json!({"response": done}));
    writer.events
}

#[derive(Default)]
struct Writer {
    events: Vec<String>,
}

impl Writer {
    fn push(&mut self, name: &str, mut data: Value) {
        data["type"] = name.into();
        data["sequence_number"] = self.events.len().into();
        self.events.push(event(Some(name), &data));
    }
}

fn message(writer: &mut Writer, index: usize, item: &Value, text: &str) {
    let mut begun = item.clone();
    begun["status"] = "in_progress".into();
    begun["content"] = json!([]);
    let at = json!({"output_index": index, "item_id": item["id"], "content_index": 0});
    let with = |field: &str, value: Value| {
        let mut data = at.clone();
        data[field] = value;
        data
    };
    let part = json!({"type": "output_text", "text": "", "annotations": []});
    let item_at = |item: &Value| json!({"output_index": index, "item": item});
    writer.push("response.output_item.added", item_at(&begun));
    writer.push("response.content_part.added", with("part", part));
    for word in words(text) {
        let mut data = with("delta", word.into());
        data["logprobs"] = json!([]);
        writer.push("response.output_text.delta", data);
    }
    let mut data = with("text", text.into());
    data["logprobs"] = json!([]);
    writer.push("response.output_text.done", data);
    writer.push(
        "response.content_part.done",
        with("part", item["content"][0].clone()),
    );
    writer.push("response.output_item.done", item_at(item));
}

fn function_call(writer: &mut Writer, index: usize, item: &Value) {
    let mut begun = item.clone();
    begun["status"] = "in_progress".into();
    begun["arguments"] = "".into();
    let at = json!({"output_index": index, "item_id": item["id"]});
    let arguments = item["arguments"].as_str().unwrap_or_default();
    writer.push(
        "response.output_item.added",
        json!({"output_index": index, "item": begun}),
    );
    let (left, right) = arguments.split_at(arguments.len() / 2);
    for part in [left, right] {
        let mut data = at.clone();
        data["delta"] = part.into();
        writer.push("response.function_call_arguments.delta", data);
    }
    let mut data = at;
    data["arguments"] = arguments.into();
    data["name"] = item["name"].clone();
    writer.push("response.function_call_arguments.done", data);
    writer.push(
        "response.output_item.done",
        json!({"output_index": index, "item": item}),
    );
}

fn output(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Vec<Value> {
    let text = text.map(|text| {
        json!({"type": "message", "id": id("msg", call, 0), "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]})
    });
    let calls = tools.iter().enumerate().map(|(index, (name, arguments))| {
        json!({"type": "function_call", "id": id("fc", call, index), "status": "completed",
            "call_id": id("call", call, index), "name": name, "arguments": arguments.to_string()})
    });
    text.into_iter().chain(calls).collect()
}

fn response(call: &Call, status: &str, output: Vec<Value>) -> Value {
    let mut response = json!({
        "id": id("resp", call, 0), "object": "response", "created_at": CREATED, "status": status,
        "model": call.model, "output": output, "error": null, "incomplete_details": null,
        "instructions": call.body["instructions"], "metadata": {}, "parallel_tool_calls": true,
        "temperature": 1.0, "tool_choice": "auto", "tools": call.body.get("tools").cloned().unwrap_or_else(|| json!([])),
        "top_p": 1.0,
    });
    if status == "completed" {
        response["usage"] = json!({
            "input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        });
    }
    response
}
