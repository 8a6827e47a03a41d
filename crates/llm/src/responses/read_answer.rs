//! Reads a Responses answer, as a provider sends it: events of a stream, or a whole body.

use std::collections::HashMap;

use serde_json::Value;

use crate::answer::{Block, BlockKind, Delta, Event, StopReason, push_block};
use crate::chat::read_answer::BLOCK_LIMIT;
use crate::dialect::Dialect;
use crate::error::{UpstreamError, reported};
use crate::fields::{count, items, text};
use crate::request::ToolCall;
use crate::responses::parse_request::read_reasoning;
use crate::usage::Usage;

/// Calls of the agent's own tools that this model has no words for.
const FOREIGN_CALLS: &[&str] = &[
    "custom_tool_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
];

#[derive(Debug, Clone, Default)]
pub(crate) struct StreamReader {
    /// Open blocks by output index and, within a message, content index.
    blocks: HashMap<(u64, u64), OpenBlock>,
    next: usize,
    calls: usize,
    /// A call of a client tool that this model has no words for is complete: the answer must be held from here.
    pub(crate) foreign_call_done: bool,
    ended: bool,
}

#[derive(Debug, Clone)]
struct OpenBlock {
    index: usize,
    /// Whether any delta came: what the closing event repeats is only used if none did.
    grown: bool,
}

impl StreamReader {
    pub(crate) fn is_done(&self) -> bool {
        self.ended
    }

    pub(crate) fn read(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), UpstreamError> {
        // Some compatible servers end with chat's sentinel; it says nothing here.
        if data.trim() == "[DONE]" {
            return Ok(());
        }
        let event: Value = serde_json::from_str(data)
            .map_err(|_| UpstreamError::Unreadable("an event is not JSON".to_owned()))?;
        let kind = text(&event, "type");
        let at = (
            count(&event, "output_index"),
            count(&event, "content_index"),
        );
        match kind {
            "response.created" => out.push(start(response(&event))),
            "response.output_item.added" => self.start_item(at.0, item(&event), out)?,
            "response.output_item.done" => self.end_item(at.0, item(&event), out),
            "response.content_part.added" => self.start_part(at, &event, out)?,
            "response.output_text.delta" | "response.refusal.delta" => {
                self.grow(at, Delta::Text(text(&event, "delta").to_owned()), out);
            }
            "response.output_text.done" => self.end_part(at, text(&event, "text"), out),
            "response.refusal.done" => self.end_part(at, text(&event, "refusal"), out),
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                self.grow(
                    (at.0, 0),
                    Delta::Text(text(&event, "delta").to_owned()),
                    out,
                );
            }
            "response.function_call_arguments.delta" => {
                self.grow(
                    (at.0, 0),
                    Delta::Arguments(text(&event, "delta").to_owned()),
                    out,
                );
            }
            "response.completed" | "response.incomplete" => self.end(response(&event), out),
            "response.failed" => return Err(failed(response(&event))),
            _ => {
                if let Some(error) = reported(Dialect::OpenAiResponses, 200, &event) {
                    return Err(UpstreamError::Reported(error));
                }
            }
        }
        Ok(())
    }

    fn start_item(
        &mut self,
        at: u64,
        item: &Value,
        out: &mut Vec<Event>,
    ) -> Result<(), UpstreamError> {
        match text(item, "type") {
            "function_call" => {
                self.calls += 1;
                let kind = BlockKind::ToolCall {
                    id: text(item, "call_id").to_owned(),
                    name: text(item, "name").to_owned(),
                };
                self.open((at, 0), kind, out)
            }
            kind if FOREIGN_CALLS.contains(&kind) => {
                self.calls += 1;
                Ok(())
            }
            "reasoning" => self.open((at, 0), BlockKind::Reasoning, out),
            _ => Ok(()),
        }
    }

    fn start_part(
        &mut self,
        at: (u64, u64),
        event: &Value,
        out: &mut Vec<Event>,
    ) -> Result<(), UpstreamError> {
        match text(event.get("part").unwrap_or(&Value::Null), "type") {
            "output_text" => self.open(at, BlockKind::Text, out),
            "refusal" => self.open(at, BlockKind::Refusal, out),
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        at: (u64, u64),
        block: BlockKind,
        out: &mut Vec<Event>,
    ) -> Result<(), UpstreamError> {
        if self.next >= BLOCK_LIMIT {
            return Err(UpstreamError::Unreadable(format!(
                "more than {BLOCK_LIMIT} blocks"
            )));
        }
        let index = self.next;
        self.next += 1;
        self.blocks.insert(
            at,
            OpenBlock {
                index,
                grown: false,
            },
        );
        out.push(Event::BlockStart { index, block });
        Ok(())
    }

    fn grow(&mut self, at: (u64, u64), delta: Delta, out: &mut Vec<Event>) {
        if let Some(block) = self.blocks.get_mut(&at) {
            block.grown = true;
            out.push(Event::Delta {
                index: block.index,
                delta,
            });
        }
    }

    fn end_part(&mut self, at: (u64, u64), whole: &str, out: &mut Vec<Event>) {
        if let Some(block) = self.blocks.remove(&at) {
            let index = block.index;
            if !block.grown && !whole.is_empty() {
                out.push(Event::Delta {
                    index,
                    delta: Delta::Text(whole.to_owned()),
                });
            }
            out.push(Event::BlockEnd { index });
        }
    }

    fn end_item(&mut self, at: u64, item: &Value, out: &mut Vec<Event>) {
        match text(item, "type") {
            "function_call" => {
                if let Some(block) = self.blocks.remove(&(at, 0)) {
                    let arguments = text(item, "arguments");
                    if !block.grown && !arguments.is_empty() {
                        let delta = Delta::Arguments(arguments.to_owned());
                        out.push(Event::Delta {
                            index: block.index,
                            delta,
                        });
                    }
                    out.push(Event::BlockEnd { index: block.index });
                }
            }
            "reasoning" => {
                if let Some(block) = self.blocks.remove(&(at, 0)) {
                    let index = block.index;
                    let reasoning = read_reasoning(item);
                    if !block.grown && !reasoning.text.is_empty() {
                        out.push(Event::Delta {
                            index,
                            delta: Delta::Text(reasoning.text),
                        });
                    }
                    out.push(Event::Delta {
                        index,
                        delta: Delta::Proof(reasoning.proof),
                    });
                    out.push(Event::BlockEnd { index });
                }
            }
            kind if FOREIGN_CALLS.contains(&kind) => self.foreign_call_done = true,
            _ => {}
        }
    }

    fn end(&mut self, response: &Value, out: &mut Vec<Event>) {
        let mut open: Vec<usize> = self.blocks.drain().map(|(_, block)| block.index).collect();
        open.sort_unstable();
        out.extend(open.into_iter().map(|index| Event::BlockEnd { index }));
        // A server that streams nothing but the end says all of it there.
        if self.next == 0 {
            let blocks = items(response.get("output")).iter().flat_map(read_item);
            for (index, block) in blocks.take(BLOCK_LIMIT).enumerate() {
                self.calls += usize::from(matches!(block, Block::ToolCall(_)));
                push_block(out, index, &block);
            }
        }
        out.extend(response.get("usage").and_then(usage).map(Event::Usage));
        let reason = stop_reason(response, self.calls > 0);
        out.push(Event::Stop {
            reason,
            sequence: None,
        });
        self.ended = true;
        out.push(Event::End);
    }
}

fn response(event: &Value) -> &Value {
    event.get("response").unwrap_or(&Value::Null)
}

fn item(event: &Value) -> &Value {
    event.get("item").unwrap_or(&Value::Null)
}

fn start(response: &Value) -> Event {
    Event::Start {
        id: text(response, "id").to_owned(),
        model: text(response, "model").to_owned(),
    }
}

fn failed(response: &Value) -> UpstreamError {
    match reported(Dialect::OpenAiResponses, 200, response) {
        Some(error) => UpstreamError::Reported(error),
        None => UpstreamError::Unreadable("the response failed without an error".to_owned()),
    }
}

/// Reads a whole body.
pub(crate) fn read_body(body: &Value) -> Result<Vec<Event>, UpstreamError> {
    if !body.get("output").is_some_and(Value::is_array) {
        return Err(UpstreamError::Unreadable("not a response".to_owned()));
    }
    match text(body, "status") {
        // Compatible servers may leave the status out.
        "completed" | "incomplete" | "" => {}
        "failed" | "cancelled" => return Err(failed(body)),
        _ => return Err(UpstreamError::Incomplete),
    }
    let mut events = vec![start(body)];
    let mut has_calls = false;
    let mut index = 0;
    for item in items(body.get("output")) {
        has_calls |= text(item, "type").ends_with("_call");
        for block in read_item(item) {
            push_block(&mut events, index, &block);
            index += 1;
        }
    }
    events.extend(body.get("usage").and_then(usage).map(Event::Usage));
    events.push(Event::Stop {
        reason: stop_reason(body, has_calls),
        sequence: None,
    });
    events.push(Event::End);
    Ok(events)
}

fn read_item(item: &Value) -> Vec<Block> {
    match text(item, "type") {
        "message" => {
            let parts =
                items(item.get("content"))
                    .iter()
                    .filter_map(|part| match text(part, "type") {
                        "output_text" => Some(Block::Text(text(part, "text").to_owned())),
                        "refusal" => Some(Block::Refusal(text(part, "refusal").to_owned())),
                        _ => None,
                    });
            parts.collect()
        }
        "function_call" => vec![Block::ToolCall(ToolCall {
            id: text(item, "call_id").to_owned(),
            name: text(item, "name").to_owned(),
            arguments: text(item, "arguments").to_owned(),
        })],
        "reasoning" => vec![Block::Reasoning(read_reasoning(item))],
        _ => Vec::new(),
    }
}

fn stop_reason(response: &Value, has_calls: bool) -> StopReason {
    let details = response.get("incomplete_details").unwrap_or(&Value::Null);
    match (text(response, "status"), text(details, "reason")) {
        ("incomplete", "content_filter") => StopReason::Refusal,
        ("incomplete", "max_output_tokens" | "") => StopReason::MaxTokens,
        ("incomplete", other) => StopReason::Other(other.to_owned()),
        _ if has_calls => StopReason::ToolUse,
        _ => StopReason::EndTurn,
    }
}

/// `input_tokens` includes cached ones.
fn usage(usage: &Value) -> Option<Usage> {
    let input_tokens = usage.get("input_tokens")?.as_u64()?;
    let read = usage.get("input_tokens_details").unwrap_or(&Value::Null);
    let written = usage.get("output_tokens_details").unwrap_or(&Value::Null);
    Some(Usage {
        input_tokens,
        output_tokens: count(usage, "output_tokens"),
        cache_read_tokens: count(read, "cached_tokens"),
        cache_write_tokens: count(read, "cache_write_tokens"),
        reasoning_tokens: count(written, "reasoning_tokens"),
        estimated: false,
    })
}
