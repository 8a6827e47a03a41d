//! What providers send, written by hand: for each dialect and each case a stream and a body with the same content.

use llm::{Dialect, Outcome, Proof, Request, StopReason, ToolCall, Usage};
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Text,
    /// Text, then two parallel calls whose arguments come in pieces.
    Tools,
    /// Reasoning, then text.
    Reasoning,
    MaxTokens,
    Refusal,
    /// The provider gives no usage.
    NoUsage,
}

impl Case {
    pub const ALL: [Case; 6] = [
        Case::Text,
        Case::Tools,
        Case::Reasoning,
        Case::MaxTokens,
        Case::Refusal,
        Case::NoUsage,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Case::Tools => "Let me look.",
            _ => "Hello, wörld \"quoted\"\n✓",
        }
    }

    pub fn calls(self) -> Vec<ToolCall> {
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        match self {
            Case::Tools => vec![
                call(
                    "call_a",
                    "weather",
                    r#"{"city":"Rome","note":"a } and a \" "}"#,
                ),
                call("call_b", "time", r#"{"zone":"UTC"}"#),
            ],
            _ => Vec::new(),
        }
    }

    pub fn stop(self) -> StopReason {
        match self {
            Case::Tools => StopReason::ToolUse,
            Case::MaxTokens => StopReason::MaxTokens,
            Case::Refusal => StopReason::Refusal,
            _ => StopReason::EndTurn,
        }
    }

    pub fn usage(self) -> Usage {
        Usage {
            input_tokens: 100,
            output_tokens: 20,
            cache_read_tokens: 60,
            cache_write_tokens: 10,
            reasoning_tokens: if self == Case::Reasoning { 7 } else { 0 },
            estimated: false,
        }
    }
}

/// The outcome that every dialect's fixture of a case must come to.
pub fn check_outcome(case: Case, outcome: &Outcome, context: &str) {
    assert_eq!(outcome.text, case.text(), "text: {context}");
    assert_eq!(outcome.tool_calls, case.calls(), "calls: {context}");
    assert_eq!(outcome.stop, Some(case.stop()), "stop: {context}");
    assert_eq!(outcome.model, "model-1", "model: {context}");
    if case == Case::NoUsage {
        assert!(
            outcome.usage.estimated && outcome.usage.output_tokens > 0,
            "usage: {context}"
        );
    } else {
        assert_eq!(outcome.usage, case.usage(), "usage: {context}");
    }
}

/// A request of `agent` that asks for a stream or not.
pub fn request(agent: Dialect, streamed: bool) -> Request {
    let messages = json!([{"role": "user", "content": "Hi there, what is the weather?"}]);
    let body = match agent {
        Dialect::OpenAiChat => json!({
            "model": "m", "messages": messages, "stream": streamed, "stream_options": {"include_usage": true}
        }),
        Dialect::OpenAiResponses => json!({"model": "m", "input": messages, "stream": streamed}),
        Dialect::Anthropic => {
            json!({"model": "m", "max_tokens": 9, "messages": messages, "stream": streamed})
        }
    };
    llm::parse(agent, &body).unwrap()
}

pub const THOUGHT: &str = "First, think.";

/// What vouches for the reasoning of the case in each provider's dialect.
pub fn proof(provider: Dialect) -> Proof {
    match provider {
        Dialect::OpenAiChat => Proof::None,
        Dialect::OpenAiResponses => Proof::OpenAi {
            id: "rs_1".to_owned(),
            encrypted: Some("gAAAA".to_owned()),
        },
        Dialect::Anthropic => Proof::Signature("EqQB".to_owned()),
    }
}

/// The stream's events, each as its whole text.
pub fn stream(provider: Dialect, case: Case) -> Vec<String> {
    match provider {
        Dialect::OpenAiChat => chat_stream(case),
        Dialect::OpenAiResponses => responses_stream(case),
        Dialect::Anthropic => anthropic_stream(case),
    }
}

pub fn body(provider: Dialect, case: Case) -> Value {
    match provider {
        Dialect::OpenAiChat => chat_body(case),
        Dialect::OpenAiResponses => responses_body(case),
        Dialect::Anthropic => anthropic_body(case),
    }
}

/// Cuts a text in three, at char boundaries.
fn thirds(text: &str) -> [String; 3] {
    let chars: Vec<char> = text.chars().collect();
    let third = chars.len() / 3;
    [
        &chars[..third],
        &chars[third..2 * third],
        &chars[2 * third..],
    ]
    .map(|part| part.iter().collect())
}

fn chat_usage(case: Case) -> Value {
    json!({
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": case.usage().reasoning_tokens},
    })
}

fn chat_finish(case: Case) -> &'static str {
    match case {
        Case::Tools => "tool_calls",
        Case::MaxTokens => "length",
        Case::Refusal => "content_filter",
        _ => "stop",
    }
}

fn chat_stream(case: Case) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "model-1",
            "choices": choices, "usage": usage, "system_fingerprint": "fp",
        });
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: Value| {
        chunk(
            json!([{"index": 0, "delta": delta, "finish_reason": null}]),
            Value::Null,
        )
    };
    let mut events = vec![delta(
        json!({"role": "assistant", "content": "", "refusal": null}),
    )];
    if case == Case::Reasoning {
        events.extend(thirds(THOUGHT).map(|part| delta(json!({"reasoning_content": part}))));
    }
    events.extend(thirds(case.text()).map(|part| delta(json!({"content": part}))));
    for (index, call) in case.calls().into_iter().enumerate() {
        events.push(delta(json!({"tool_calls": [{
            "index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}
        }]})));
        for part in thirds(&call.arguments) {
            let function = json!({"arguments": part});
            events.push(delta(
                json!({"tool_calls": [{"index": index, "function": function}]}),
            ));
        }
    }
    let finish = chat_finish(case);
    events.push(chunk(
        json!([{"index": 0, "delta": {}, "finish_reason": finish}]),
        Value::Null,
    ));
    if case != Case::NoUsage {
        events.push(chunk(json!([]), chat_usage(case)));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn chat_body(case: Case) -> Value {
    let mut message = json!({"role": "assistant", "content": case.text(), "refusal": null});
    if case == Case::Reasoning {
        message["reasoning_content"] = json!(THOUGHT);
    }
    let calls = case.calls().into_iter().map(|call| {
        json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
    });
    let calls: Vec<Value> = calls.collect();
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let mut body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "model-1",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": chat_finish(case)}],
    });
    if case != Case::NoUsage {
        body["usage"] = chat_usage(case);
    }
    body
}

fn anthropic_usage(case: Case) -> Value {
    json!({
        "input_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10, "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": case.usage().reasoning_tokens},
    })
}

fn anthropic_stop(case: Case) -> &'static str {
    match case {
        Case::Tools => "tool_use",
        Case::MaxTokens => "max_tokens",
        Case::Refusal => "refusal",
        _ => "end_turn",
    }
}

fn anthropic_stream(case: Case) -> Vec<String> {
    let event = |event: Value| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
    };
    let has_usage = case != Case::NoUsage;
    let mut message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "model-1", "content": [],
        "stop_reason": null, "stop_sequence": null,
    });
    if has_usage {
        message["usage"] = json!({
            "input_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10, "output_tokens": 1
        });
    }
    let mut events = vec![event(json!({"type": "message_start", "message": message}))];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        events.push(event(
            json!({"type": "content_block_start", "index": index, "content_block": start}),
        ));
        events.push(event(json!({"type": "ping"})));
        for delta in deltas {
            events.push(event(
                json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ));
        }
        events.push(event(json!({"type": "content_block_stop", "index": index})));
        index += 1;
    };
    if case == Case::Reasoning {
        let mut deltas = thirds(THOUGHT)
            .map(|part| json!({"type": "thinking_delta", "thinking": part}))
            .to_vec();
        deltas.push(json!({"type": "signature_delta", "signature": "EqQB"}));
        block(
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
        );
    }
    let deltas = thirds(case.text()).map(|part| json!({"type": "text_delta", "text": part}));
    block(json!({"type": "text", "text": ""}), deltas.to_vec());
    for call in case.calls() {
        let mut deltas = vec![json!({"type": "input_json_delta", "partial_json": ""})];
        deltas.extend(
            thirds(&call.arguments)
                .map(|part| json!({"type": "input_json_delta", "partial_json": part})),
        );
        block(
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}),
            deltas,
        );
    }
    let mut delta = json!({"type": "message_delta", "delta": {"stop_reason": anthropic_stop(case), "stop_sequence": null}});
    if has_usage {
        delta["usage"] = json!({
            "output_tokens": 20, "output_tokens_details": {"thinking_tokens": case.usage().reasoning_tokens}
        });
    }
    events.push(event(delta));
    events.push(event(json!({"type": "message_stop"})));
    events
}

fn anthropic_body(case: Case) -> Value {
    let mut content = Vec::new();
    if case == Case::Reasoning {
        content.push(json!({"type": "thinking", "thinking": THOUGHT, "signature": "EqQB"}));
    }
    content.push(json!({"type": "text", "text": case.text()}));
    for call in case.calls() {
        let input: Value = serde_json::from_str(&call.arguments).unwrap();
        content.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
    }
    let mut body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "model-1", "content": content,
        "stop_reason": anthropic_stop(case), "stop_sequence": null,
    });
    if case != Case::NoUsage {
        body["usage"] = anthropic_usage(case);
    }
    body
}

fn responses_items(case: Case) -> Vec<Value> {
    let mut items = Vec::new();
    if case == Case::Reasoning {
        items.push(json!({
            "id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}],
            "encrypted_content": "gAAAA",
        }));
    }
    items.push(json!({
        "id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": case.text(), "annotations": [], "logprobs": []}],
    }));
    for call in case.calls() {
        items.push(json!({
            "id": format!("fc_{}", call.id), "type": "function_call", "status": "completed",
            "call_id": call.id, "name": call.name, "arguments": call.arguments,
        }));
    }
    items
}

fn responses_body(case: Case) -> Value {
    let (status, reason) = match case {
        Case::MaxTokens => ("incomplete", json!({"reason": "max_output_tokens"})),
        Case::Refusal => ("incomplete", json!({"reason": "content_filter"})),
        _ => ("completed", Value::Null),
    };
    let mut body = json!({
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": null,
        "incomplete_details": reason, "model": "model-1", "output": responses_items(case), "usage": null,
    });
    if case != Case::NoUsage {
        body["usage"] = json!({
            "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
            "output_tokens": 20, "total_tokens": 120,
            "output_tokens_details": {"reasoning_tokens": case.usage().reasoning_tokens},
        });
    }
    body
}

fn responses_stream(case: Case) -> Vec<String> {
    let mut events = Vec::new();
    let mut send = |name: &str, mut fields: Value| {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(events.len());
        events.push(format!("event: {name}\ndata: {fields}\n\n"));
    };
    let body = responses_body(case);
    let mut created = body.clone();
    created["status"] = json!("in_progress");
    created["output"] = json!([]);
    send("response.created", json!({"response": created}));
    send("response.in_progress", json!({"response": created}));
    for (at, item) in responses_items(case).into_iter().enumerate() {
        let id = item["id"].clone();
        let mut begun = item.clone();
        match item["type"].as_str().unwrap() {
            "message" => {
                begun["content"] = json!([]);
                send(
                    "response.output_item.added",
                    json!({"output_index": at, "item": begun}),
                );
                let part = json!({"type": "output_text", "text": "", "annotations": []});
                let place =
                    json!({"item_id": id, "output_index": at, "content_index": 0, "part": part});
                send("response.content_part.added", place);
                for part in thirds(case.text()) {
                    let delta = json!({"item_id": id, "output_index": at, "content_index": 0, "delta": part});
                    send("response.output_text.delta", delta);
                }
                let done = json!({"item_id": id, "output_index": at, "content_index": 0, "text": case.text()});
                send("response.output_text.done", done);
                let part = item["content"][0].clone();
                let done =
                    json!({"item_id": id, "output_index": at, "content_index": 0, "part": part});
                send("response.content_part.done", done);
            }
            "function_call" => {
                begun["arguments"] = json!("");
                send(
                    "response.output_item.added",
                    json!({"output_index": at, "item": begun}),
                );
                for part in thirds(item["arguments"].as_str().unwrap()) {
                    let delta = json!({"item_id": id, "output_index": at, "delta": part});
                    send("response.function_call_arguments.delta", delta);
                }
                let done =
                    json!({"item_id": id, "output_index": at, "arguments": item["arguments"]});
                send("response.function_call_arguments.done", done);
            }
            _ => {
                begun["summary"] = json!([]);
                begun["encrypted_content"] = Value::Null;
                send(
                    "response.output_item.added",
                    json!({"output_index": at, "item": begun}),
                );
                let place = json!({"item_id": id, "output_index": at, "summary_index": 0});
                send("response.reasoning_summary_part.added", place);
                for part in thirds(THOUGHT) {
                    let delta = json!({"item_id": id, "output_index": at, "summary_index": 0, "delta": part});
                    send("response.reasoning_summary_text.delta", delta);
                }
            }
        }
        send(
            "response.output_item.done",
            json!({"output_index": at, "item": item}),
        );
    }
    let status = body["status"].as_str().unwrap();
    send(&format!("response.{status}"), json!({"response": body}));
    events
}
