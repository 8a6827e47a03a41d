//! Reads an Anthropic Messages answer, as a provider sends it: events of a stream, or a whole body.
//! Usage comes in two parts (input at the start, output at the end, each cumulative); unknown events are passed over,
//! as Anthropic's versioning asks.

use std::collections::HashMap;

use serde_json::Value;

use crate::answer::{Block, BlockKind, Delta, Event, StopReason, push_block};
use crate::anthropic::parse_request::read_proof;
use crate::chat::read_answer::BLOCK_LIMIT;
use crate::dialect::Dialect;
use crate::error::{UpstreamError, reported};
use crate::fields::{count, items, text};
use crate::request::{Proof, Reasoning, ToolCall};
use crate::usage::Usage;

#[derive(Debug, Clone, Default)]
pub(crate) struct StreamReader {
    /// The provider's block numbers that are of interest, and ours.
    blocks: HashMap<u64, OpenBlock>,
    next: usize,
    usage: Value,
    stopped: bool,
    ended: bool,
}

#[derive(Debug, Clone)]
struct OpenBlock {
    index: usize,
    is_call: bool,
    /// The input that came whole with the start of the block; used if no delta follows.
    whole_input: Option<String>,
}

impl StreamReader {
    pub(crate) fn is_done(&self) -> bool {
        self.stopped && self.ended
    }

    pub(crate) fn read(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), UpstreamError> {
        let event: Value = serde_json::from_str(data)
            .map_err(|_| UpstreamError::Unreadable("an event is not JSON".to_owned()))?;
        match text(&event, "type") {
            "message_start" => self.start(event.get("message").unwrap_or(&Value::Null), out),
            "content_block_start" => self.start_block(&event, out)?,
            "content_block_delta" => self.grow(&event, out),
            "content_block_stop" => self.end_block(count(&event, "index"), out),
            "message_delta" => self.delta(&event, out),
            "message_stop" => {
                self.ended = true;
                if self.stopped {
                    out.push(Event::End);
                }
            }
            _ => {
                if let Some(error) = reported(Dialect::Anthropic, 200, &event) {
                    return Err(UpstreamError::Reported(error));
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, message: &Value, out: &mut Vec<Event>) {
        out.push(Event::Start {
            id: text(message, "id").to_owned(),
            model: text(message, "model").to_owned(),
        });
        self.merge_usage(message.get("usage"));
    }

    fn start_block(&mut self, event: &Value, out: &mut Vec<Event>) -> Result<(), UpstreamError> {
        let block = event.get("content_block").unwrap_or(&Value::Null);
        let kind = match text(block, "type") {
            "text" => BlockKind::Text,
            "thinking" | "redacted_thinking" => BlockKind::Reasoning,
            "tool_use" => BlockKind::ToolCall {
                id: text(block, "id").to_owned(),
                name: text(block, "name").to_owned(),
            },
            // What provider-executed tools produce: those were refused with the request.
            _ => return Ok(()),
        };
        if self.next >= BLOCK_LIMIT {
            return Err(UpstreamError::Unreadable(format!(
                "more than {BLOCK_LIMIT} blocks"
            )));
        }
        let index = self.next;
        self.next += 1;
        let is_call = matches!(kind, BlockKind::ToolCall { .. });
        out.push(Event::BlockStart { index, block: kind });
        let first = match text(block, "type") {
            "redacted_thinking" => Some(Delta::Proof(Proof::Redacted(
                text(block, "data").to_owned(),
            ))),
            "text" => some_text(text(block, "text")),
            "thinking" => some_text(text(block, "thinking")),
            _ => None,
        };
        out.extend(first.map(|delta| Event::Delta { index, delta }));
        let whole_input = block.get("input").filter(|_| is_call);
        let whole_input =
            whole_input.filter(|input| input.as_object().is_some_and(|input| !input.is_empty()));
        let whole_input = whole_input.map(Value::to_string);
        self.blocks.insert(
            count(event, "index"),
            OpenBlock {
                index,
                is_call,
                whole_input,
            },
        );
        Ok(())
    }

    fn grow(&mut self, event: &Value, out: &mut Vec<Event>) {
        let Some(block) = self.blocks.get_mut(&count(event, "index")) else {
            return;
        };
        let delta = event.get("delta").unwrap_or(&Value::Null);
        let delta = match text(delta, "type") {
            "text_delta" => some_text(text(delta, "text")),
            "thinking_delta" => some_text(text(delta, "thinking")),
            "signature_delta" => Some(Delta::Proof(read_proof(text(delta, "signature")))),
            "input_json_delta" => {
                let more = text(delta, "partial_json");
                if !more.is_empty() {
                    block.whole_input = None;
                }
                (!more.is_empty()).then(|| Delta::Arguments(more.to_owned()))
            }
            _ => None,
        };
        let index = block.index;
        out.extend(delta.map(|delta| Event::Delta { index, delta }));
    }

    fn end_block(&mut self, number: u64, out: &mut Vec<Event>) {
        let Some(block) = self.blocks.remove(&number) else {
            return;
        };
        if block.is_call
            && let Some(input) = block.whole_input
        {
            out.push(Event::Delta {
                index: block.index,
                delta: Delta::Arguments(input),
            });
        }
        out.push(Event::BlockEnd { index: block.index });
    }

    fn delta(&mut self, event: &Value, out: &mut Vec<Event>) {
        self.merge_usage(event.get("usage"));
        out.extend(usage(&self.usage).map(Event::Usage));
        let delta = event.get("delta").unwrap_or(&Value::Null);
        if let Some(reason) = delta.get("stop_reason").and_then(Value::as_str) {
            self.stopped = true;
            let sequence = delta.get("stop_sequence").and_then(Value::as_str);
            out.push(Event::Stop {
                reason: stop_reason(reason),
                sequence: sequence.map(str::to_owned),
            });
        }
    }

    /// Later counts replace earlier ones: they are cumulative.
    fn merge_usage(&mut self, usage: Option<&Value>) {
        for (name, value) in usage.and_then(Value::as_object).into_iter().flatten() {
            if !value.is_null() {
                if !self.usage.is_object() {
                    self.usage = serde_json::json!({});
                }
                self.usage[name] = value.clone();
            }
        }
    }
}

fn some_text(text: &str) -> Option<Delta> {
    (!text.is_empty()).then(|| Delta::Text(text.to_owned()))
}

/// Reads a whole body.
pub(crate) fn read_body(body: &Value) -> Result<Vec<Event>, UpstreamError> {
    if text(body, "type") != "message" || !body.get("content").is_some_and(Value::is_array) {
        return Err(UpstreamError::Unreadable("not a message".to_owned()));
    }
    let reason = body
        .get("stop_reason")
        .and_then(Value::as_str)
        .ok_or(UpstreamError::Incomplete)?;
    let mut events = vec![Event::Start {
        id: text(body, "id").to_owned(),
        model: text(body, "model").to_owned(),
    }];
    let blocks = items(body.get("content")).iter().filter_map(read_block);
    for (index, block) in blocks.enumerate() {
        push_block(&mut events, index, &block);
    }
    events.extend(body.get("usage").and_then(usage).map(Event::Usage));
    let sequence = body.get("stop_sequence").and_then(Value::as_str);
    events.push(Event::Stop {
        reason: stop_reason(reason),
        sequence: sequence.map(str::to_owned),
    });
    events.push(Event::End);
    Ok(events)
}

fn read_block(block: &Value) -> Option<Block> {
    match text(block, "type") {
        "text" => Some(Block::Text(text(block, "text").to_owned())),
        "thinking" => Some(Block::Reasoning(Reasoning {
            text: text(block, "thinking").to_owned(),
            proof: read_proof(text(block, "signature")),
        })),
        "redacted_thinking" => Some(Block::Reasoning(Reasoning {
            text: String::new(),
            proof: Proof::Redacted(text(block, "data").to_owned()),
        })),
        "tool_use" => Some(Block::ToolCall(ToolCall {
            id: text(block, "id").to_owned(),
            name: text(block, "name").to_owned(),
            arguments: block.get("input").unwrap_or(&Value::Null).to_string(),
        })),
        _ => None,
    }
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "end_turn" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence,
        "refusal" => StopReason::Refusal,
        "model_context_window_exceeded" => StopReason::ContextWindow,
        other => StopReason::Other(other.to_owned()),
    }
}

/// `input_tokens` leaves out what was read from or written to the cache; ours includes it.
fn usage(usage: &Value) -> Option<Usage> {
    let uncached = usage.get("input_tokens")?.as_u64()?;
    let cache_read_tokens = count(usage, "cache_read_input_tokens");
    let cache_write_tokens = count(usage, "cache_creation_input_tokens");
    let details = usage.get("output_tokens_details").unwrap_or(&Value::Null);
    Some(Usage {
        input_tokens: uncached
            .saturating_add(cache_read_tokens)
            .saturating_add(cache_write_tokens),
        output_tokens: count(usage, "output_tokens"),
        cache_read_tokens,
        cache_write_tokens,
        reasoning_tokens: count(details, "thinking_tokens"),
        estimated: false,
    })
}
