//! Writes an Anthropic Messages answer, as an agent gets it: events of a stream, or a whole body.

use serde_json::{Value, json};

use crate::answer::{Answer, Block, BlockKind, Delta, Event, StopReason};
use crate::anthropic::OPENAI_PROOF;
use crate::request::{Proof, Reasoning};
use crate::sse;
use crate::usage::Usage;

#[derive(Debug, Clone, Default)]
pub(crate) struct StreamWriter {
    /// How far each block is written: reasoning waits for what decides its type.
    blocks: Vec<Written>,
    usage: Option<Usage>,
    stop: Option<StopReason>,
    sequence: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Waiting,
    Thinking,
    Begun,
    Ended,
}

impl StreamWriter {
    pub(crate) fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                let message = json!({
                    "id": message_id(id), "type": "message", "role": "assistant", "model": model,
                    "content": [], "stop_reason": null, "stop_sequence": null,
                    "usage": usage(Usage::default()),
                });
                send(json!({"type": "message_start", "message": message}), out);
            }
            Event::BlockStart { index, block } => self.start_block(*index, block, out),
            Event::Delta { index, delta } => self.grow(*index, delta, out),
            Event::BlockEnd { index } => self.end_block(*index, out),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Stop { reason, sequence } => {
                self.stop = Some(reason.clone());
                self.sequence.clone_from(sequence);
            }
            Event::End => self.end(out),
        }
    }

    fn start_block(&mut self, index: usize, block: &BlockKind, out: &mut Vec<u8>) {
        let block = match block {
            BlockKind::Reasoning => {
                self.blocks.push(Written::Waiting);
                return;
            }
            BlockKind::Text | BlockKind::Refusal => json!({"type": "text", "text": ""}),
            BlockKind::ToolCall { id, name } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
        };
        self.blocks.push(Written::Begun);
        send(
            json!({"type": "content_block_start", "index": index, "content_block": block}),
            out,
        );
    }

    fn grow(&mut self, index: usize, delta: &Delta, out: &mut Vec<u8>) {
        let Some(written) = self.blocks.get_mut(index) else {
            return;
        };
        if matches!(delta, Delta::Text(more) if more.is_empty()) {
            return;
        }
        let waiting = *written == Written::Waiting;
        if let (true, Delta::Proof(Proof::Redacted(data))) = (waiting, delta) {
            *written = Written::Begun;
            let block = json!({"type": "redacted_thinking", "data": data});
            send(
                json!({"type": "content_block_start", "index": index, "content_block": block}),
                out,
            );
            return;
        }
        let thinks = waiting || *written == Written::Thinking;
        self.begin_thinking(index, out);
        let delta = match delta {
            Delta::Text(more) if thinks => json!({"type": "thinking_delta", "thinking": more}),
            Delta::Text(more) => json!({"type": "text_delta", "text": more}),
            Delta::Arguments(more) => json!({"type": "input_json_delta", "partial_json": more}),
            Delta::Proof(proof) => match signature(proof) {
                Some(signature) => json!({"type": "signature_delta", "signature": signature}),
                None => return,
            },
        };
        send(
            json!({"type": "content_block_delta", "index": index, "delta": delta}),
            out,
        );
    }

    fn begin_thinking(&mut self, index: usize, out: &mut Vec<u8>) {
        if let Some(written @ Written::Waiting) = self.blocks.get_mut(index) {
            *written = Written::Thinking;
            let block = json!({"type": "thinking", "thinking": "", "signature": ""});
            send(
                json!({"type": "content_block_start", "index": index, "content_block": block}),
                out,
            );
        }
    }

    fn end_block(&mut self, index: usize, out: &mut Vec<u8>) {
        self.begin_thinking(index, out);
        if let Some(written @ (Written::Begun | Written::Thinking)) = self.blocks.get_mut(index) {
            *written = Written::Ended;
            send(json!({"type": "content_block_stop", "index": index}), out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let reason = stop_reason(self.stop.as_ref());
        let delta = json!({"stop_reason": reason, "stop_sequence": self.sequence});
        let usage = usage(self.usage.unwrap_or_default());
        send(
            json!({"type": "message_delta", "delta": delta, "usage": usage}),
            out,
        );
        send(json!({"type": "message_stop"}), out);
    }
}

fn send(event: Value, out: &mut Vec<u8>) {
    let name = event
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    sse::write(out, Some(&name), &event.to_string());
}

/// Writes a whole body. A call whose arguments were cut off by the token limit is left out, as the stop reason says;
/// any other call must have an object. `Err` names the call.
pub(crate) fn body(answer: &Answer) -> Result<Value, String> {
    let cut = matches!(
        answer.stop,
        Some(StopReason::MaxTokens | StopReason::ContextWindow)
    );
    let mut content = Vec::new();
    for block in &answer.blocks {
        match block {
            Block::Text(text) | Block::Refusal(text) => {
                content.push(json!({"type": "text", "text": text}));
            }
            Block::Reasoning(reasoning) => content.push(thinking(reasoning)),
            Block::ToolCall(call) => match input(&call.arguments) {
                Some(input) => content.push(
                    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}),
                ),
                None if cut => {}
                None => {
                    return Err(format!(
                        "the arguments of tool call {} are not a JSON object",
                        call.id
                    ));
                }
            },
        }
    }
    Ok(json!({
        "id": message_id(&answer.id),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop_reason(answer.stop.as_ref()),
        "stop_sequence": answer.stop_sequence,
        "usage": usage(answer.usage.unwrap_or_default()),
    }))
}

fn input(arguments: &str) -> Option<Value> {
    if arguments.trim().is_empty() {
        return Some(json!({}));
    }
    serde_json::from_str(arguments)
        .ok()
        .filter(Value::is_object)
}

fn thinking(reasoning: &Reasoning) -> Value {
    match &reasoning.proof {
        Proof::Redacted(data) => json!({"type": "redacted_thinking", "data": data}),
        proof => json!({
            "type": "thinking",
            "thinking": reasoning.text,
            "signature": signature(proof).unwrap_or_default(),
        }),
    }
}

/// What [`crate::anthropic::parse_request::read_proof`] reads back.
fn signature(proof: &Proof) -> Option<String> {
    match proof {
        Proof::Signature(signature) => Some(signature.clone()),
        Proof::OpenAi { id, encrypted } => {
            let encrypted = encrypted.as_deref().unwrap_or_default();
            Some(format!("{OPENAI_PROOF}{id}:{encrypted}"))
        }
        Proof::None | Proof::Redacted(_) => None,
    }
}

fn message_id(id: &str) -> String {
    if id.starts_with("msg_") {
        id.to_owned()
    } else {
        format!("msg_{id}")
    }
}

fn stop_reason(reason: Option<&StopReason>) -> &'static str {
    match reason {
        Some(StopReason::ToolUse) => "tool_use",
        Some(StopReason::MaxTokens) => "max_tokens",
        Some(StopReason::StopSequence) => "stop_sequence",
        Some(StopReason::Refusal) => "refusal",
        Some(StopReason::ContextWindow) => "model_context_window_exceeded",
        Some(StopReason::EndTurn | StopReason::Other(_)) | None => "end_turn",
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.uncached_input_tokens(),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    })
}
