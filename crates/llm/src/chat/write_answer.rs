//! Writes a Chat Completions answer, as an agent gets it: chunks of a stream, or a whole body.
//! Reasoning has no place in OpenAI's own format: it goes out as `reasoning_content`, and what vouches for it as
//! `thinking_blocks`, which clients that keep unknown fields send back.

use serde_json::{Map, Value, json};

use crate::answer::{Answer, Block, BlockKind, Delta, Event, StopReason};
use crate::request::{Proof, Reasoning, ToolCall};
use crate::sse;
use crate::usage::Usage;

#[derive(Debug, Clone)]
pub(crate) struct StreamWriter {
    created_unix_s: u64,
    include_usage: bool,
    id: String,
    model: String,
    /// For each block the number it has in its list: calls are numbered apart.
    blocks: Vec<Numbered>,
    calls: usize,
    proofs: usize,
    usage: Option<Usage>,
    finish: Option<&'static str>,
}

#[derive(Debug, Clone)]
enum Numbered {
    Text,
    Refusal,
    Reasoning(Reasoning),
    Call(usize),
}

impl StreamWriter {
    pub(crate) fn new(created_unix_s: u64, include_usage: bool) -> StreamWriter {
        StreamWriter {
            created_unix_s,
            include_usage,
            id: String::new(),
            model: String::new(),
            blocks: Vec::new(),
            calls: 0,
            proofs: 0,
            usage: None,
            finish: None,
        }
    }

    pub(crate) fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                self.id = completion_id(id);
                self.model.clone_from(model);
                self.delta(json!({"role": "assistant", "content": ""}), out);
            }
            Event::BlockStart { block, .. } => self.start_block(block, out),
            Event::Delta { index, delta } => self.grow(*index, delta, out),
            Event::BlockEnd { index } => self.end_block(*index, out),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Stop { reason, .. } => self.finish = Some(finish_reason(reason)),
            Event::End => self.end(out),
        }
    }

    fn start_block(&mut self, block: &BlockKind, out: &mut Vec<u8>) {
        self.blocks.push(match block {
            BlockKind::Text => Numbered::Text,
            BlockKind::Refusal => Numbered::Refusal,
            BlockKind::Reasoning => Numbered::Reasoning(Reasoning::default()),
            BlockKind::ToolCall { id, name } => {
                let number = self.calls;
                self.calls += 1;
                let function = json!({"name": name, "arguments": ""});
                let call =
                    json!({"index": number, "id": id, "type": "function", "function": function});
                self.delta(json!({"tool_calls": [call]}), out);
                Numbered::Call(number)
            }
        });
    }

    fn grow(&mut self, index: usize, delta: &Delta, out: &mut Vec<u8>) {
        let chunk = match (self.blocks.get_mut(index), delta) {
            (Some(Numbered::Text), Delta::Text(more)) => json!({"content": more}),
            (Some(Numbered::Refusal), Delta::Text(more)) => json!({"refusal": more}),
            (Some(Numbered::Reasoning(reasoning)), Delta::Text(more)) => {
                reasoning.text.push_str(more);
                json!({"reasoning_content": more})
            }
            (Some(Numbered::Reasoning(reasoning)), Delta::Proof(proof)) => {
                reasoning.proof = proof.clone();
                return;
            }
            (Some(Numbered::Call(number)), Delta::Arguments(more)) => {
                json!({"tool_calls": [{"index": number, "function": {"arguments": more}}]})
            }
            _ => return,
        };
        self.delta(chunk, out);
    }

    fn end_block(&mut self, index: usize, out: &mut Vec<u8>) {
        if let Some(Numbered::Reasoning(reasoning)) = self.blocks.get(index)
            && let Some(mut block) = thinking_block(reasoning)
        {
            // Clients merge lists of a stream by this number.
            block["index"] = Value::from(self.proofs);
            self.proofs += 1;
            self.delta(json!({"thinking_blocks": [block]}), out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let finish = self.finish.unwrap_or("stop");
        self.chunk(
            json!([{"index": 0, "delta": {}, "finish_reason": finish}]),
            None,
            out,
        );
        if self.include_usage {
            let usage = usage(self.usage.unwrap_or_default());
            self.chunk(json!([]), Some(usage), out);
        }
        sse::write(out, None, "[DONE]");
    }

    fn delta(&self, delta: Value, out: &mut Vec<u8>) {
        self.chunk(
            json!([{"index": 0, "delta": delta, "finish_reason": null}]),
            None,
            out,
        );
    }

    fn chunk(&self, choices: Value, usage: Option<Value>, out: &mut Vec<u8>) {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created_unix_s,
            "model": self.model,
            "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        sse::write(out, None, &chunk.to_string());
    }
}

/// Writes a whole body.
pub(crate) fn body(answer: &Answer, created_unix_s: u64) -> Value {
    let stop = answer.stop.as_ref().unwrap_or(&StopReason::EndTurn);
    json!({
        "id": completion_id(&answer.id),
        "object": "chat.completion",
        "created": created_unix_s,
        "model": answer.model,
        "choices": [{
            "index": 0,
            "message": message(answer),
            "logprobs": null,
            "finish_reason": finish_reason(stop),
        }],
        "usage": usage(answer.usage.unwrap_or_default()),
    })
}

fn message(answer: &Answer) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), Value::from("assistant"));
    let mut reasoning_text = String::new();
    let mut refusal = String::new();
    let mut proofs = Vec::new();
    let mut calls = Vec::new();
    for block in &answer.blocks {
        match block {
            Block::Text(_) => {}
            Block::Refusal(text) => refusal.push_str(text),
            Block::Reasoning(reasoning) => {
                reasoning_text.push_str(&reasoning.text);
                proofs.extend(thinking_block(reasoning));
            }
            Block::ToolCall(call) => calls.push(tool_call(call)),
        }
    }
    let has_text = answer
        .blocks
        .iter()
        .any(|block| matches!(block, Block::Text(_)));
    let mut put = |name: &str, value: Value| message.insert(name.to_owned(), value);
    put(
        "content",
        if has_text {
            Value::from(answer.text())
        } else {
            Value::Null
        },
    );
    put(
        "refusal",
        if refusal.is_empty() {
            Value::Null
        } else {
            Value::from(refusal)
        },
    );
    if !calls.is_empty() {
        put("tool_calls", Value::from(calls));
    }
    if !reasoning_text.is_empty() {
        put("reasoning_content", Value::from(reasoning_text));
    }
    if !proofs.is_empty() {
        put("thinking_blocks", Value::from(proofs));
    }
    Value::Object(message)
}

fn tool_call(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

fn thinking_block(reasoning: &Reasoning) -> Option<Value> {
    match &reasoning.proof {
        Proof::Signature(signature) => Some(json!({
            "type": "thinking", "thinking": reasoning.text, "signature": signature
        })),
        Proof::Redacted(data) => Some(json!({"type": "redacted_thinking", "data": data})),
        Proof::None | Proof::OpenAi { .. } => None,
    }
}

fn completion_id(id: &str) -> String {
    if id.starts_with("chatcmpl") {
        id.to_owned()
    } else {
        format!("chatcmpl-{id}")
    }
}

fn finish_reason(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::ToolUse => "tool_calls",
        StopReason::MaxTokens | StopReason::ContextWindow => "length",
        StopReason::Refusal => "content_filter",
        StopReason::EndTurn | StopReason::StopSequence | StopReason::Other(_) => "stop",
    }
}

pub(crate) fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens(),
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}
