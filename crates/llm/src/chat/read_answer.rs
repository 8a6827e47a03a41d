//! Reads a Chat Completions answer, as a provider sends it: chunks of a stream, or a whole body.
//! Chunks don't say where a block ends, so ends are derived: text ends when a call begins, a call when its JSON is
//! balanced and another begins, all of them at the finish reason.

use serde_json::Value;

use crate::answer::{Block, BlockKind, Delta, Event, StopReason, push_block};
use crate::balance::Balance;
use crate::dialect::Dialect;
use crate::error::{UpstreamError, reported};
use crate::fields::{count, items, text};
use crate::request::{Proof, Reasoning, ToolCall};
use crate::usage::Usage;

/// The most parallel calls and blocks that one answer may have.
pub(crate) const BLOCK_LIMIT: usize = 4096;

#[derive(Debug, Clone, Default)]
pub(crate) struct StreamReader {
    started: bool,
    blocks: usize,
    /// The open block of text, refusal or reasoning.
    open: Option<(usize, BlockKind)>,
    calls: Vec<Call>,
    stopped: bool,
    ended: bool,
    /// The chunk read last had no choices: it carries usage alone.
    pub(crate) bare: bool,
}

/// A tool call in the stream. `key` is (choice, index in the choice).
#[derive(Debug, Clone)]
struct Call {
    key: (u64, u64),
    block: usize,
    balance: Balance,
    /// A custom tool's input is free text: it is complete when another call begins.
    custom: bool,
    open: bool,
}

impl StreamReader {
    pub(crate) fn is_done(&self) -> bool {
        self.stopped && self.ended
    }

    /// Every choice gave its finish reason; some compatible servers end the stream here without `[DONE]`.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn read(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), UpstreamError> {
        if data.trim() == "[DONE]" {
            self.ended = true;
            self.bare = false;
            if self.stopped {
                out.push(Event::End);
            }
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data)
            .map_err(|_| UpstreamError::Unreadable("an event is not JSON".to_owned()))?;
        if let Some(error) = reported(Dialect::OpenAiChat, 200, &chunk) {
            return Err(UpstreamError::Reported(error));
        }
        // Some servers begin with a chunk without choices, id and model.
        if !self.started && !items(chunk.get("choices")).is_empty() {
            self.started = true;
            out.push(Event::Start {
                id: text(&chunk, "id").to_owned(),
                model: text(&chunk, "model").to_owned(),
            });
        }
        let choices = items(chunk.get("choices"));
        self.bare = choices.is_empty() && chunk.get("usage").is_some_and(Value::is_object);
        for choice in choices {
            self.read_choice(choice, out)?;
        }
        out.extend(chunk.get("usage").and_then(usage).map(Event::Usage));
        Ok(())
    }

    fn read_choice(&mut self, choice: &Value, out: &mut Vec<Event>) -> Result<(), UpstreamError> {
        let number = count(choice, "index");
        let delta = choice.get("delta").unwrap_or(&Value::Null);
        // With `n` above 1 the answers interleave; the first is the one that is followed.
        if number == 0 {
            self.grow(BlockKind::Reasoning, reasoning(delta), out)?;
            self.grow(BlockKind::Text, text(delta, "content"), out)?;
            self.grow(BlockKind::Refusal, text(delta, "refusal"), out)?;
        }
        if let Some(call) = delta.get("function_call").filter(|call| call.is_object()) {
            // The old form of one call: it holds the answer like the new one.
            let call = serde_json::json!({"index": u64::MAX, "function": call});
            self.read_call(number, &call, out)?;
        }
        for call in items(delta.get("tool_calls")) {
            self.read_call(number, call, out)?;
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.stop(reason, out);
        }
        Ok(())
    }

    fn grow(
        &mut self,
        kind: BlockKind,
        more: &str,
        out: &mut Vec<Event>,
    ) -> Result<(), UpstreamError> {
        if more.is_empty() {
            return Ok(());
        }
        let index = match &self.open {
            Some((index, open)) if *open == kind => *index,
            _ => {
                self.close_open(out);
                let index = self.next_block()?;
                out.push(Event::BlockStart {
                    index,
                    block: kind.clone(),
                });
                self.open = Some((index, kind));
                index
            }
        };
        out.push(Event::Delta {
            index,
            delta: Delta::Text(more.to_owned()),
        });
        Ok(())
    }

    fn read_call(
        &mut self,
        choice: u64,
        call: &Value,
        out: &mut Vec<Event>,
    ) -> Result<(), UpstreamError> {
        let custom = call.get("custom");
        let function = call.get("function").or(custom).unwrap_or(&Value::Null);
        let key = (choice, count(call, "index"));
        let id = text(call, "id");
        let known = self.calls.iter().rposition(|known| known.key == key);
        // Some servers number every call 0: an id that comes with a name begins another call.
        let fresh = !id.is_empty()
            && !text(function, "name").is_empty()
            && known.is_some_and(|at| self.calls[at].balance.is_complete());
        let at = match known {
            Some(at) if !fresh => at,
            _ => {
                let at = self.start_call(key, id, text(function, "name"), out)?;
                self.calls[at].custom = custom.is_some();
                at
            }
        };
        let more = text(
            function,
            if custom.is_some() {
                "input"
            } else {
                "arguments"
            },
        );
        if !more.is_empty() {
            let call = &mut self.calls[at];
            call.balance.push(more);
            out.push(Event::Delta {
                index: call.block,
                delta: Delta::Arguments(more.to_owned()),
            });
        }
        Ok(())
    }

    fn start_call(
        &mut self,
        key: (u64, u64),
        id: &str,
        name: &str,
        out: &mut Vec<Event>,
    ) -> Result<usize, UpstreamError> {
        self.close_open(out);
        for call in &mut self.calls {
            if call.open && (call.custom || call.balance.is_complete()) {
                call.open = false;
                out.push(Event::BlockEnd { index: call.block });
            }
        }
        let block = self.next_block()?;
        let id = if id.is_empty() {
            format!("call_{block}")
        } else {
            id.to_owned()
        };
        let kind = BlockKind::ToolCall {
            id,
            name: name.to_owned(),
        };
        out.push(Event::BlockStart {
            index: block,
            block: kind,
        });
        self.calls.push(Call {
            key,
            block,
            balance: Balance::default(),
            custom: false,
            open: true,
        });
        Ok(self.calls.len() - 1)
    }

    fn next_block(&mut self) -> Result<usize, UpstreamError> {
        if self.blocks >= BLOCK_LIMIT {
            return Err(UpstreamError::Unreadable(format!(
                "more than {BLOCK_LIMIT} blocks"
            )));
        }
        self.blocks += 1;
        Ok(self.blocks - 1)
    }

    fn close_open(&mut self, out: &mut Vec<Event>) {
        if let Some((index, _)) = self.open.take() {
            out.push(Event::BlockEnd { index });
        }
    }

    fn stop(&mut self, reason: &str, out: &mut Vec<Event>) {
        self.close_open(out);
        for call in self.calls.iter_mut().filter(|call| call.open) {
            call.open = false;
            out.push(Event::BlockEnd { index: call.block });
        }
        self.stopped = true;
        let reason = stop_reason(reason, !self.calls.is_empty());
        out.push(Event::Stop {
            reason,
            sequence: None,
        });
    }
}

/// Reads a whole body.
pub(crate) fn read_body(body: &Value) -> Result<Vec<Event>, UpstreamError> {
    let unreadable = |what: &str| UpstreamError::Unreadable(what.to_owned());
    let choices = items(body.get("choices"));
    let choice = choices.first().ok_or_else(|| unreadable("no choices"))?;
    let message = choice
        .get("message")
        .ok_or_else(|| unreadable("no message"))?;
    let reason = choice
        .get("finish_reason")
        .and_then(Value::as_str)
        .ok_or(UpstreamError::Incomplete)?;
    let mut events = vec![Event::Start {
        id: text(body, "id").to_owned(),
        model: text(body, "model").to_owned(),
    }];
    let mut blocks = message_blocks(message);
    for other in &choices[1..] {
        let message = other.get("message").unwrap_or(&Value::Null);
        blocks.extend(calls(message).map(Block::ToolCall));
    }
    let has_calls = blocks
        .iter()
        .any(|block| matches!(block, Block::ToolCall(_)));
    for (index, block) in blocks.iter().enumerate() {
        push_block(&mut events, index, block);
    }
    events.extend(body.get("usage").and_then(usage).map(Event::Usage));
    events.push(Event::Stop {
        reason: stop_reason(reason, has_calls),
        sequence: None,
    });
    events.push(Event::End);
    Ok(events)
}

/// An open model's reasoning, under either name; servers that send both mean one.
fn reasoning(message: &Value) -> &str {
    match text(message, "reasoning_content") {
        "" => text(message, "reasoning"),
        reasoning => reasoning,
    }
}

fn message_blocks(message: &Value) -> Vec<Block> {
    let mut blocks = Vec::new();
    let reasoning = reasoning(message);
    if !reasoning.is_empty() {
        blocks.push(Block::Reasoning(Reasoning {
            text: reasoning.to_owned(),
            proof: Proof::None,
        }));
    }
    if !text(message, "content").is_empty() {
        blocks.push(Block::Text(text(message, "content").to_owned()));
    }
    if !text(message, "refusal").is_empty() {
        blocks.push(Block::Refusal(text(message, "refusal").to_owned()));
    }
    blocks.extend(calls(message).map(Block::ToolCall));
    blocks
}

fn calls(message: &Value) -> impl Iterator<Item = ToolCall> {
    items(message.get("tool_calls"))
        .iter()
        .enumerate()
        .map(|(at, call)| {
            let function = call.get("function").unwrap_or(&Value::Null);
            let id = match text(call, "id") {
                "" => format!("call_{at}"),
                id => id.to_owned(),
            };
            ToolCall {
                id,
                name: text(function, "name").to_owned(),
                arguments: text(function, "arguments").to_owned(),
            }
        })
}

fn stop_reason(reason: &str, has_calls: bool) -> StopReason {
    match reason {
        // Some servers finish a turn of tool calls with "stop".
        "stop" if has_calls => StopReason::ToolUse,
        "stop" => StopReason::EndTurn,
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "length" => StopReason::MaxTokens,
        "content_filter" => StopReason::Refusal,
        other => StopReason::Other(other.to_owned()),
    }
}

/// `prompt_tokens` includes cached ones; `null` usage is none.
pub(crate) fn usage(usage: &Value) -> Option<Usage> {
    let input_tokens = usage.get("prompt_tokens")?.as_u64()?;
    let read = usage.get("prompt_tokens_details").unwrap_or(&Value::Null);
    let written = usage
        .get("completion_tokens_details")
        .unwrap_or(&Value::Null);
    Some(Usage {
        input_tokens,
        output_tokens: count(usage, "completion_tokens"),
        cache_read_tokens: count(read, "cached_tokens"),
        cache_write_tokens: count(read, "cache_write_tokens"),
        reasoning_tokens: count(written, "reasoning_tokens"),
        estimated: false,
    })
}
