//! Answers that no provider gave: the facade's (a task's output as a completion) and the script provider's.
//! They are written by the same writers as translated ones, so every dialect has one shape.

use crate::answer::{Answer, Block, BlockKind, Delta, Event, StopReason};
use crate::dialect::Dialect;
use crate::relay::{Piece, Writer, write_body};
use crate::request::ToolCall;
use crate::usage::Usage;

/// What an answer says about itself. There is no clock here: the time comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerHead {
    /// Unique; each dialect puts its own prefix before it.
    pub id: String,
    pub model: String,
    pub created_unix_s: u64,
    /// Chat streams: the agent asked for the usage chunk.
    pub include_usage: bool,
}

/// A text answer that is written as it comes.
#[derive(Debug)]
pub struct TextStream {
    writer: Writer,
}

impl TextStream {
    /// The stream and its first bytes.
    pub fn start(dialect: Dialect, head: &AnswerHead) -> (TextStream, Vec<u8>) {
        let mut stream = TextStream {
            writer: Writer::new(dialect, head.created_unix_s, head.include_usage),
        };
        let start = Event::Start {
            id: head.id.clone(),
            model: head.model.clone(),
        };
        let block = Event::BlockStart {
            index: 0,
            block: BlockKind::Text,
        };
        let bytes = stream.write(&[start, block]);
        (stream, bytes)
    }

    pub fn delta(&mut self, text: &str) -> Vec<u8> {
        self.write(&[Event::Delta {
            index: 0,
            delta: Delta::Text(text.to_owned()),
        }])
    }

    /// The last bytes. A stream that is dropped without them is incomplete, as it should be.
    pub fn end(mut self, stop: StopReason, usage: Usage) -> Vec<u8> {
        let stop = Event::Stop {
            reason: stop,
            sequence: None,
        };
        self.write(&[
            Event::BlockEnd { index: 0 },
            Event::Usage(usage),
            stop,
            Event::End,
        ])
    }

    fn write(&mut self, events: &[Event]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for event in events {
            self.writer.write(event, &mut bytes);
        }
        bytes
    }
}

/// A finished text as a whole answer in `dialect`: a body, or all of a stream.
pub fn render_text_answer(
    dialect: Dialect,
    head: &AnswerHead,
    text: &str,
    usage: Usage,
    streamed: bool,
) -> Vec<u8> {
    let pieces = scripted_answer(dialect, streamed, head, text, &[], usage);
    pieces.into_iter().flat_map(|piece| piece.bytes).collect()
}

/// A made-up answer in the agent's dialect: one held piece, or a stream with a piece for each word and each part of a
/// tool call, held by the same rules as a provider's.
///
/// `tool_calls` whose arguments are not a JSON object are the caller's mistake; an Anthropic body says `{}` for them.
pub fn scripted_answer(
    agent: Dialect,
    streamed: bool,
    head: &AnswerHead,
    text: &str,
    tool_calls: &[ToolCall],
    usage: Usage,
) -> Vec<Piece> {
    let answer = whole(head, text, tool_calls, usage);
    if !streamed {
        let bytes = write_body(agent, &answer, head.created_unix_s).unwrap_or_default();
        let text_delta = (!text.is_empty()).then(|| text.to_owned());
        return vec![Piece {
            bytes,
            hold: true,
            text_delta,
        }];
    }
    let mut writer = Writer::new(agent, head.created_unix_s, head.include_usage);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut hold = false;
    for event in by_words(&answer) {
        let mut piece = Piece::default();
        writer.write(&event, &mut piece.bytes);
        // A call's arguments come in one delta, so that delta completes it.
        hold |= matches!(
            event,
            Event::Delta {
                delta: Delta::Arguments(_),
                ..
            } | Event::Stop { .. }
                | Event::End
        );
        piece.hold = hold;
        if let Event::Delta {
            delta: Delta::Text(more),
            ..
        } = event
        {
            piece.text_delta = Some(more);
        }
        if !piece.bytes.is_empty() {
            pieces.push(piece);
        }
    }
    pieces
}

fn whole(head: &AnswerHead, text: &str, tool_calls: &[ToolCall], usage: Usage) -> Answer {
    let mut blocks = Vec::new();
    if !text.is_empty() || tool_calls.is_empty() {
        blocks.push(Block::Text(text.to_owned()));
    }
    for call in tool_calls {
        let mut call = call.clone();
        if serde_json::from_str::<serde_json::Map<_, _>>(&call.arguments).is_err() {
            "{}".clone_into(&mut call.arguments);
        }
        blocks.push(Block::ToolCall(call));
    }
    let stop = if tool_calls.is_empty() {
        StopReason::EndTurn
    } else {
        StopReason::ToolUse
    };
    Answer {
        id: head.id.clone(),
        model: head.model.clone(),
        blocks,
        usage: Some(usage),
        stop: Some(stop),
        stop_sequence: None,
        ended: true,
    }
}

/// The answer's events, with text cut after each run of spaces.
fn by_words(answer: &Answer) -> Vec<Event> {
    let mut events = Vec::new();
    for event in answer.events() {
        match event {
            Event::Delta {
                index,
                delta: Delta::Text(text),
            } => {
                for word in text.split_inclusive(' ') {
                    events.push(Event::Delta {
                        index,
                        delta: Delta::Text(word.to_owned()),
                    });
                }
            }
            event => events.push(event),
        }
    }
    events
}
