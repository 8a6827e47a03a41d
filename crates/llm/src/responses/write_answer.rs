//! Writes a Responses answer, as an agent gets it: events of a stream, or a whole body.
//! Every block is an item of its own: a message with one part, a function call, or a reasoning item whose encrypted
//! content carries what vouches for it.

use serde_json::{Value, json};

use crate::answer::{Answer, Block, Delta, Event, StopReason};
use crate::request::{Proof, Reasoning, ToolCall};
use crate::responses::{PLAIN_PROOF, REDACTED_PROOF, SIGNATURE_PROOF};
use crate::sse;
use crate::usage::Usage;

#[derive(Debug, Clone)]
pub(crate) struct StreamWriter {
    created_unix_s: u64,
    sequence: u64,
    answer: Answer,
    begun_summaries: Vec<usize>,
}

impl StreamWriter {
    pub(crate) fn new(created_unix_s: u64) -> StreamWriter {
        StreamWriter {
            created_unix_s,
            sequence: 0,
            answer: Answer::default(),
            begun_summaries: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.answer.apply(event);
        match event {
            Event::Start { .. } => {
                let response = self.response("in_progress", &[]);
                self.send("response.created", json!({"response": response}), out);
                self.send("response.in_progress", json!({"response": response}), out);
            }
            Event::BlockStart { index, .. } => self.start_block(*index, out),
            Event::Delta { index, delta } => self.grow(*index, delta, out),
            Event::BlockEnd { index } => self.end_block(*index, out),
            Event::Usage(_) | Event::Stop { .. } => {}
            Event::End => {
                let (status, _) = status(self.answer.stop.as_ref());
                let response = self.response(status, &self.answer.blocks);
                self.send(
                    &format!("response.{status}"),
                    json!({"response": response}),
                    out,
                );
            }
        }
    }

    fn start_block(&mut self, index: usize, out: &mut Vec<u8>) {
        let Some(block) = self.answer.blocks.get(index) else {
            return;
        };
        let is_message = matches!(block, Block::Text(_) | Block::Refusal(_));
        let part = part(block);
        let mut item = item(&self.answer.id, index, block, "in_progress");
        if is_message {
            item["content"] = json!([]);
        }
        self.send(
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
            out,
        );
        if is_message {
            let fields = json!({"item_id": item["id"], "output_index": index, "content_index": 0, "part": part});
            self.send("response.content_part.added", fields, out);
        }
    }

    fn grow(&mut self, index: usize, delta: &Delta, out: &mut Vec<u8>) {
        let Some(block) = self.answer.blocks.get(index) else {
            return;
        };
        let item_id = item_id(&self.answer.id, index, block);
        let mut fields = json!({"item_id": item_id, "output_index": index});
        let name = match (block, delta) {
            (_, Delta::Text(more)) if more.is_empty() => return,
            (Block::Text(_), Delta::Text(more)) => {
                fields["content_index"] = Value::from(0);
                fields["delta"] = Value::from(more.as_str());
                fields["logprobs"] = json!([]);
                "response.output_text.delta"
            }
            (Block::Refusal(_), Delta::Text(more)) => {
                fields["content_index"] = Value::from(0);
                fields["delta"] = Value::from(more.as_str());
                "response.refusal.delta"
            }
            (Block::Reasoning(_), Delta::Text(more)) => {
                self.begin_summary(index, &item_id, out);
                fields["summary_index"] = Value::from(0);
                fields["delta"] = Value::from(more.as_str());
                "response.reasoning_summary_text.delta"
            }
            (Block::ToolCall(_), Delta::Arguments(more)) => {
                fields["delta"] = Value::from(more.as_str());
                "response.function_call_arguments.delta"
            }
            _ => return,
        };
        self.send(name, fields, out);
    }

    fn begin_summary(&mut self, index: usize, item_id: &str, out: &mut Vec<u8>) {
        if !self.begun_summaries.contains(&index) {
            self.begun_summaries.push(index);
            let part = json!({"type": "summary_text", "text": ""});
            let fields = json!({"item_id": item_id, "output_index": index, "summary_index": 0, "part": part});
            self.send("response.reasoning_summary_part.added", fields, out);
        }
    }

    fn end_block(&mut self, index: usize, out: &mut Vec<u8>) {
        let Some(block) = self.answer.blocks.get(index).cloned() else {
            return;
        };
        let item_id = item_id(&self.answer.id, index, &block);
        let place = json!({"item_id": item_id, "output_index": index});
        match &block {
            Block::Text(text) => {
                let fields = with(
                    &place,
                    json!({"content_index": 0, "text": text, "logprobs": []}),
                );
                self.send("response.output_text.done", fields, out);
            }
            Block::Refusal(text) => {
                let fields = with(&place, json!({"content_index": 0, "refusal": text}));
                self.send("response.refusal.done", fields, out);
            }
            Block::ToolCall(call) => {
                let fields = with(
                    &place,
                    json!({"arguments": call.arguments, "name": call.name}),
                );
                self.send("response.function_call_arguments.done", fields, out);
            }
            Block::Reasoning(reasoning) => self.end_summary(index, reasoning, &place, out),
        }
        if matches!(block, Block::Text(_) | Block::Refusal(_)) {
            let fields = with(&place, json!({"content_index": 0, "part": part(&block)}));
            self.send("response.content_part.done", fields, out);
        }
        let item = item(&self.answer.id, index, &block, "completed");
        self.send(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
            out,
        );
    }

    fn end_summary(
        &mut self,
        index: usize,
        reasoning: &Reasoning,
        place: &Value,
        out: &mut Vec<u8>,
    ) {
        if self.begun_summaries.contains(&index) {
            let text = reasoning.text.as_str();
            let fields = with(place, json!({"summary_index": 0, "text": text}));
            self.send("response.reasoning_summary_text.done", fields, out);
            let part = json!({"type": "summary_text", "text": text});
            let fields = with(place, json!({"summary_index": 0, "part": part}));
            self.send("response.reasoning_summary_part.done", fields, out);
        }
    }

    fn response(&self, status: &str, blocks: &[Block]) -> Value {
        response(&self.answer, status, blocks, self.created_unix_s)
    }

    fn send(&mut self, name: &str, fields: Value, out: &mut Vec<u8>) {
        let event = with(
            &json!({"type": name, "sequence_number": self.sequence}),
            fields,
        );
        self.sequence += 1;
        sse::write(out, Some(name), &event.to_string());
    }
}

fn with(base: &Value, more: Value) -> Value {
    let mut merged = base.clone();
    if let (Some(merged), Value::Object(more)) = (merged.as_object_mut(), more) {
        merged.extend(more);
    }
    merged
}

/// Writes a whole body.
pub(crate) fn body(answer: &Answer, created_unix_s: u64) -> Value {
    let (status, _) = status(answer.stop.as_ref());
    response(answer, status, &answer.blocks, created_unix_s)
}

fn response(answer: &Answer, status_now: &str, blocks: &[Block], created_unix_s: u64) -> Value {
    let ended = status_now != "in_progress";
    let (_, incomplete) = status(answer.stop.as_ref());
    let output = blocks.iter().enumerate();
    let output: Vec<Value> = output
        .map(|(index, block)| item(&answer.id, index, block, "completed"))
        .collect();
    json!({
        "id": response_id(&answer.id),
        "object": "response",
        "created_at": created_unix_s,
        "status": status_now,
        "background": false,
        "error": null,
        "incomplete_details": incomplete.filter(|_| ended).map(|reason| json!({"reason": reason})),
        "instructions": null,
        "metadata": {},
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "store": false,
        "temperature": null,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
        "truncation": "disabled",
        "usage": ended.then(|| usage(answer.usage.unwrap_or_default())),
    })
}

/// The status of a finished response and, if it is incomplete, why.
fn status(stop: Option<&StopReason>) -> (&'static str, Option<&'static str>) {
    match stop {
        Some(StopReason::MaxTokens | StopReason::ContextWindow) => {
            ("incomplete", Some("max_output_tokens"))
        }
        Some(StopReason::Refusal) => ("incomplete", Some("content_filter")),
        _ => ("completed", None),
    }
}

fn response_id(id: &str) -> String {
    if id.starts_with("resp_") {
        id.to_owned()
    } else {
        format!("resp_{id}")
    }
}

fn item_id(answer_id: &str, index: usize, block: &Block) -> String {
    let prefix = match block {
        Block::Text(_) | Block::Refusal(_) => "msg",
        Block::ToolCall(_) => "fc",
        // An OpenAI item keeps its own id. It becomes known with the proof, at the item's end.
        Block::Reasoning(Reasoning {
            proof: Proof::OpenAi { id, .. },
            ..
        }) if !id.is_empty() => {
            return id.clone();
        }
        Block::Reasoning(_) => "rs",
    };
    format!("{prefix}_{answer_id}_{index}")
}

fn item(answer_id: &str, index: usize, block: &Block, status: &str) -> Value {
    let id = item_id(answer_id, index, block);
    match block {
        Block::Text(_) | Block::Refusal(_) => json!({
            "type": "message", "id": id, "status": status, "role": "assistant", "content": [part(block)]
        }),
        Block::ToolCall(call) => function_call(&id, call, status),
        Block::Reasoning(reasoning) => reasoning_item(&id, reasoning),
    }
}

fn part(block: &Block) -> Value {
    match block {
        Block::Refusal(text) => json!({"type": "refusal", "refusal": text}),
        Block::Text(text) => {
            json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
        }
        Block::ToolCall(_) | Block::Reasoning(_) => Value::Null,
    }
}

fn function_call(id: &str, call: &ToolCall, status: &str) -> Value {
    json!({
        "type": "function_call",
        "id": id,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    })
}

fn reasoning_item(id: &str, reasoning: &Reasoning) -> Value {
    let summary = match reasoning.text.as_str() {
        "" => json!([]),
        text => json!([{"type": "summary_text", "text": text}]),
    };
    let encrypted = match &reasoning.proof {
        Proof::None => Some(PLAIN_PROOF.to_owned()),
        Proof::Signature(signature) => Some(format!("{SIGNATURE_PROOF}{signature}")),
        Proof::Redacted(data) => Some(format!("{REDACTED_PROOF}{data}")),
        Proof::OpenAi { encrypted, .. } => encrypted.clone(),
    };
    json!({"type": "reasoning", "id": id, "summary": summary, "encrypted_content": encrypted})
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens(),
    })
}
