//! The one answer model: a stream of events that every provider dialect is read into and every agent dialect is
//! written from, and the whole answer they add up to.
//! A body that wasn't streamed becomes the same events at once, so there is one path through this room.

use crate::request::{Proof, Reasoning, ToolCall};
use crate::usage::Usage;

/// One thing that happened in an answer. Blocks are numbered from 0 in order of their start; several may be open.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Start {
        id: String,
        model: String,
    },
    BlockStart {
        index: usize,
        block: BlockKind,
    },
    Delta {
        index: usize,
        delta: Delta,
    },
    BlockEnd {
        index: usize,
    },
    Usage(Usage),
    Stop {
        reason: StopReason,
        /// The stop sequence that was hit, if one was.
        sequence: Option<String>,
    },
    /// The provider's own terminal event: without it the answer is incomplete.
    End,
}

/// What a block will hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockKind {
    Text,
    Refusal,
    Reasoning,
    ToolCall { id: String, name: String },
}

/// A growth of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    Text(String),
    /// Sets what vouches for a reasoning block.
    Proof(Proof),
    /// Tool arguments, as JSON text.
    Arguments(String),
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    EndTurn,
    ToolUse,
    MaxTokens,
    StopSequence,
    /// The model or a filter refused.
    Refusal,
    ContextWindow,
    Other(String),
}

impl StopReason {
    /// The name used in records and telemetry.
    pub fn as_str(&self) -> &str {
        match self {
            StopReason::EndTurn => "end_turn",
            StopReason::ToolUse => "tool_use",
            StopReason::MaxTokens => "max_tokens",
            StopReason::StopSequence => "stop_sequence",
            StopReason::Refusal => "refusal",
            StopReason::ContextWindow => "context_window",
            StopReason::Other(other) => other,
        }
    }
}

/// A finished or growing block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    Text(String),
    Refusal(String),
    Reasoning(Reasoning),
    ToolCall(ToolCall),
}

/// An answer as far as it has come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub id: String,
    pub model: String,
    pub blocks: Vec<Block>,
    pub usage: Option<Usage>,
    pub stop: Option<StopReason>,
    pub stop_sequence: Option<String>,
    pub ended: bool,
}

impl Answer {
    /// Adds an event. Deltas for blocks that were never started are ignored.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Start { id, model } => {
                self.id.clone_from(id);
                self.model.clone_from(model);
            }
            Event::BlockStart { block, .. } => self.blocks.push(match block {
                BlockKind::Text => Block::Text(String::new()),
                BlockKind::Refusal => Block::Refusal(String::new()),
                BlockKind::Reasoning => Block::Reasoning(Reasoning::default()),
                BlockKind::ToolCall { id, name } => Block::ToolCall(ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                }),
            }),
            Event::Delta { index, delta } => self.grow(*index, delta),
            Event::BlockEnd { .. } => {}
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Stop { reason, sequence } => {
                self.stop = Some(reason.clone());
                self.stop_sequence.clone_from(sequence);
            }
            Event::End => self.ended = true,
        }
    }

    fn grow(&mut self, index: usize, delta: &Delta) {
        match (self.blocks.get_mut(index), delta) {
            (Some(Block::Text(text) | Block::Refusal(text)), Delta::Text(more)) => {
                text.push_str(more);
            }
            (Some(Block::Reasoning(reasoning)), Delta::Text(more)) => reasoning.text.push_str(more),
            (Some(Block::Reasoning(reasoning)), Delta::Proof(proof)) => {
                reasoning.proof = proof.clone();
            }
            (Some(Block::ToolCall(call)), Delta::Arguments(more)) => call.arguments.push_str(more),
            _ => {}
        }
    }

    /// What the assistant said, without reasoning and tool calls.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            if let Block::Text(more) = block {
                text.push_str(more);
            }
        }
        text
    }

    pub fn tool_calls(&self) -> Vec<ToolCall> {
        let calls = self.blocks.iter().filter_map(|block| match block {
            Block::ToolCall(call) => Some(call.clone()),
            _ => None,
        });
        calls.collect()
    }

    /// Bytes of everything the model wrote, for estimates.
    pub fn bytes(&self) -> usize {
        let sizes = self.blocks.iter().map(|block| match block {
            Block::Text(text) | Block::Refusal(text) => text.len(),
            Block::Reasoning(reasoning) => reasoning.text.len(),
            Block::ToolCall(call) => call.name.len() + call.arguments.len(),
        });
        sizes.sum()
    }

    /// The events that make this answer, each block in one delta.
    pub fn events(&self) -> Vec<Event> {
        let mut events = vec![Event::Start {
            id: self.id.clone(),
            model: self.model.clone(),
        }];
        for (index, block) in self.blocks.iter().enumerate() {
            push_block(&mut events, index, block);
        }
        events.extend(self.usage.map(Event::Usage));
        if let Some(reason) = &self.stop {
            events.push(Event::Stop {
                reason: reason.clone(),
                sequence: self.stop_sequence.clone(),
            });
        }
        if self.ended {
            events.push(Event::End);
        }
        events
    }
}

/// Appends the events of one whole block.
pub(crate) fn push_block(events: &mut Vec<Event>, index: usize, block: &Block) {
    let (kind, deltas) = match block {
        Block::Text(text) => (BlockKind::Text, vec![Delta::Text(text.clone())]),
        Block::Refusal(text) => (BlockKind::Refusal, vec![Delta::Text(text.clone())]),
        Block::Reasoning(reasoning) => (
            BlockKind::Reasoning,
            vec![
                Delta::Text(reasoning.text.clone()),
                Delta::Proof(reasoning.proof.clone()),
            ],
        ),
        Block::ToolCall(call) => (
            BlockKind::ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
            },
            vec![Delta::Arguments(call.arguments.clone())],
        ),
    };
    events.push(Event::BlockStart { index, block: kind });
    for delta in deltas {
        events.push(Event::Delta { index, delta });
    }
    events.push(Event::BlockEnd { index });
}
