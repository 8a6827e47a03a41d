//! One model call's answer on its way from the provider to the agent: bytes in, bytes out, incremental and bounded.
//! Where both speak one dialect the bytes pass unchanged and are only read on the side; else they become events and
//! are written anew. From the first completed tool call on, and always for the terminal event, pieces are held: no
//! agent may act on an answer that isn't recorded. An answer that breaks off is an error, never a short answer.

use std::collections::HashMap;

use serde_json::Value;

use crate::answer::{Answer, BlockKind, Delta, Event, StopReason};
use crate::balance::Balance;
use crate::dialect::Dialect;
use crate::error::{UpstreamError, reported};
use crate::marks::{Mark, answer_marks};
use crate::request::{Request, ToolCall};
use crate::sse::{SseDecoder, SseEvent};
use crate::usage::Usage;
use crate::{anthropic, chat, estimate, responses};

/// The largest answer that is read.
pub const ANSWER_LIMIT_BYTES: usize = 32 * 1024 * 1024;

/// What a relay needs from outside, having no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayOptions {
    /// Written into answers of dialects that have a time in them.
    pub created_unix_s: u64,
    pub limit_bytes: usize,
}

impl RelayOptions {
    pub fn at(created_unix_s: u64) -> RelayOptions {
        RelayOptions {
            created_unix_s,
            limit_bytes: ANSWER_LIMIT_BYTES,
        }
    }
}

/// Bytes for the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    pub bytes: Vec<u8>,
    /// Must not leave before the step's result is committed. Once true, true for all that follow.
    pub hold: bool,
    /// What the assistant says in this piece, if it says anything.
    pub text_delta: Option<String>,
}

/// What an answer came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub usage: Usage,
    /// `None` while the answer isn't complete.
    pub stop: Option<StopReason>,
    /// What the assistant said, without reasoning.
    pub text: String,
    pub tool_calls: Vec<ToolCall>,
    /// The model that the provider says it used, else the one asked for.
    pub model: String,
}

impl Outcome {
    /// What a later request will contain if it contains this answer.
    pub fn marks(&self) -> Vec<Mark> {
        answer_marks(self)
    }
}

/// One model call's answer on its way. A clone is a second reading from here on.
#[derive(Debug, Clone)]
pub struct Relay {
    agent: Dialect,
    provider: Dialect,
    streamed: bool,
    options: RelayOptions,
    /// The agent didn't ask for the usage chunk that was asked for on its behalf.
    hides_usage: bool,
    requested_model: String,
    estimated_input_tokens: u64,
    received_bytes: usize,
    decoder: SseDecoder,
    body: Vec<u8>,
    reader: Reader,
    writer: Writer,
    answer: Answer,
    calls: HashMap<usize, Balance>,
    hold: bool,
    failure: Option<UpstreamError>,
}

impl Relay {
    /// `streamed` says how upstream is called, which is how the agent asked. `requested_model` names the model in the
    /// outcome if the provider doesn't.
    pub fn new(
        agent: Dialect,
        provider: Dialect,
        streamed: bool,
        request: &Request,
        requested_model: &str,
        options: RelayOptions,
    ) -> Relay {
        Relay {
            agent,
            provider,
            streamed,
            options,
            hides_usage: agent == Dialect::OpenAiChat && !request.include_usage,
            requested_model: requested_model.to_owned(),
            estimated_input_tokens: request.estimated_input_tokens,
            received_bytes: 0,
            decoder: SseDecoder::default(),
            body: Vec::new(),
            reader: Reader::new(provider),
            writer: Writer::new(agent, options.created_unix_s, request.include_usage),
            answer: Answer::default(),
            calls: HashMap::new(),
            hold: false,
            failure: None,
        }
    }

    /// Takes bytes from upstream, in any split. After an error every call gives that error.
    pub fn push(&mut self, upstream: &[u8]) -> Result<Vec<Piece>, UpstreamError> {
        self.remember(|relay| relay.take(upstream))
    }

    /// Upstream has ended. An answer without its terminal event is [`UpstreamError::Incomplete`].
    pub fn finish(&mut self) -> Result<Vec<Piece>, UpstreamError> {
        self.remember(|relay| {
            if relay.streamed {
                relay.finish_stream()
            } else {
                relay.finish_body()
            }
        })
    }

    /// What the answer came to so far. Usage is estimated if the provider gave none.
    pub fn outcome(&self) -> Outcome {
        let estimated = || estimate::usage(self.estimated_input_tokens, &self.answer);
        let model = match self.answer.model.as_str() {
            "" => &self.requested_model,
            model => model,
        };
        Outcome {
            usage: self.answer.usage.unwrap_or_else(estimated),
            stop: self.answer.stop.clone().filter(|_| self.answer.ended),
            text: self.answer.text(),
            tool_calls: self.answer.tool_calls(),
            model: model.to_owned(),
        }
    }

    /// The answer as far as it has come, reasoning included.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    fn remember(
        &mut self,
        work: impl FnOnce(&mut Relay) -> Result<Vec<Piece>, UpstreamError>,
    ) -> Result<Vec<Piece>, UpstreamError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = work(self);
        self.failure = result.as_ref().err().cloned();
        result
    }

    fn take(&mut self, upstream: &[u8]) -> Result<Vec<Piece>, UpstreamError> {
        self.received_bytes = self.received_bytes.saturating_add(upstream.len());
        if self.received_bytes > self.options.limit_bytes {
            return Err(UpstreamError::TooLarge {
                limit_bytes: self.options.limit_bytes,
            });
        }
        if !self.streamed {
            self.body.extend_from_slice(upstream);
            return Ok(Vec::new());
        }
        let mut pieces = Vec::new();
        for event in self.decoder.push(upstream)? {
            pieces.extend(self.relay_event(event)?);
        }
        Ok(pieces)
    }

    fn finish_stream(&mut self) -> Result<Vec<Piece>, UpstreamError> {
        let mut pieces = Vec::new();
        let rest = self.decoder.finish();
        let rest = rest.and_then(|event| event.map_or(Ok(None), |event| self.relay_event(event)));
        match rest {
            // What was cut off can't be read; that it was cut off is the better word for it.
            Err(UpstreamError::Unreadable(_)) => return Err(UpstreamError::Incomplete),
            rest => pieces.extend(rest?),
        }
        if !self.reader.is_done() && self.reader.is_stopped() {
            // The answer is whole; the agent's SDK still waits for the marker.
            let done = SseEvent {
                name: None,
                data: Some("[DONE]".to_owned()),
                raw: b"data: [DONE]\n\n".to_vec(),
            };
            pieces.extend(self.relay_event(done)?);
        }
        if self.reader.is_done() {
            Ok(pieces)
        } else {
            Err(UpstreamError::Incomplete)
        }
    }

    fn relay_event(&mut self, event: SseEvent) -> Result<Option<Piece>, UpstreamError> {
        let mut events = Vec::new();
        if let Some(data) = &event.data {
            self.reader.read(data, &mut events)?;
        }
        self.hold |= self.reader.foreign_call_done();
        let mut piece = Piece::default();
        for event in self.with_usage(events) {
            self.follow(&event)?;
            self.collect_text(&event, &mut piece);
            if self.agent != self.provider {
                self.writer.write(&event, &mut piece.bytes);
            }
        }
        if self.agent == self.provider && !(self.hides_usage && self.reader.is_bare_usage()) {
            piece.bytes = event.raw;
        }
        piece.hold = self.hold;
        Ok((!piece.bytes.is_empty()).then_some(piece))
    }

    /// Puts estimated usage before the end of an answer that came without.
    fn with_usage(&self, mut events: Vec<Event>) -> Vec<Event> {
        let has_usage = self.answer.usage.is_some()
            || events.iter().any(|event| matches!(event, Event::Usage(_)));
        if let (false, Some(Event::End)) = (has_usage, events.last()) {
            let mut answer = self.answer.clone();
            for event in &events {
                answer.apply(event);
            }
            let usage = estimate::usage(self.estimated_input_tokens, &answer);
            events.insert(events.len() - 1, Event::Usage(usage));
        }
        events
    }

    /// Applies an event to the answer and decides whether the agent could act on it.
    fn follow(&mut self, event: &Event) -> Result<(), UpstreamError> {
        self.answer.apply(event);
        match event {
            Event::BlockStart {
                index,
                block: BlockKind::ToolCall { .. },
            } => {
                self.calls.insert(*index, Balance::default());
            }
            Event::Delta {
                index,
                delta: Delta::Arguments(more),
            } => {
                if let Some(balance) = self.calls.get_mut(index) {
                    balance.push(more);
                    self.hold |= balance.is_complete();
                }
            }
            Event::BlockEnd { index } => self.hold |= self.calls.contains_key(index),
            Event::Stop { .. } => {
                self.hold = true;
                self.check_arguments()?;
            }
            Event::End => self.hold = true,
            Event::Start { .. }
            | Event::BlockStart { .. }
            | Event::Delta { .. }
            | Event::Usage(_) => {}
        }
        Ok(())
    }

    /// Anthropic's clients parse arguments as they come: a call that isn't an object would break them. One that was cut
    /// off by the token limit is told by the stop reason.
    fn check_arguments(&self) -> Result<(), UpstreamError> {
        let cut = matches!(
            self.answer.stop,
            Some(StopReason::MaxTokens | StopReason::ContextWindow)
        );
        if self.agent != Dialect::Anthropic
            || self.provider == Dialect::Anthropic
            || cut
            || !self.streamed
        {
            return Ok(());
        }
        for call in self.answer.tool_calls() {
            let empty = call.arguments.trim().is_empty();
            let parsed: Result<serde_json::Map<String, Value>, _> =
                serde_json::from_str(&call.arguments);
            if !empty && parsed.is_err() {
                return Err(UpstreamError::Unreadable(format!(
                    "the arguments of tool call {} are not a JSON object",
                    crate::error::clean(&call.id)
                )));
            }
        }
        Ok(())
    }

    fn collect_text(&self, event: &Event, piece: &mut Piece) {
        if let Event::Delta {
            index,
            delta: Delta::Text(more),
        } = event
            && matches!(
                self.answer.blocks.get(*index),
                Some(crate::answer::Block::Text(_))
            )
            && !more.is_empty()
        {
            piece.text_delta.get_or_insert_default().push_str(more);
        }
    }

    fn finish_body(&mut self) -> Result<Vec<Piece>, UpstreamError> {
        let body: Value = serde_json::from_slice(&self.body)
            .map_err(|error| UpstreamError::Unreadable(no_json(&self.body, &error)))?;
        if let Some(error) = reported(self.provider, 200, &body) {
            return Err(UpstreamError::Reported(error));
        }
        let events = read_body(self.provider, &body)?;
        for event in self.with_usage(events) {
            self.follow(&event)?;
        }
        let bytes = if self.agent == self.provider {
            std::mem::take(&mut self.body)
        } else {
            write_body(self.agent, &self.answer, self.options.created_unix_s)?
        };
        let text = self.answer.text();
        Ok(vec![Piece {
            bytes,
            hold: true,
            text_delta: (!text.is_empty()).then_some(text),
        }])
    }
}

fn read_body(provider: Dialect, body: &Value) -> Result<Vec<Event>, UpstreamError> {
    match provider {
        Dialect::OpenAiChat => chat::read_answer::read_body(body),
        Dialect::OpenAiResponses => responses::read_answer::read_body(body),
        Dialect::Anthropic => anthropic::read_answer::read_body(body),
    }
}

pub(crate) fn write_body(
    agent: Dialect,
    answer: &Answer,
    created_unix_s: u64,
) -> Result<Vec<u8>, UpstreamError> {
    let body = match agent {
        Dialect::OpenAiChat => chat::write_answer::body(answer, created_unix_s),
        Dialect::OpenAiResponses => responses::write_answer::body(answer, created_unix_s),
        Dialect::Anthropic => {
            anthropic::write_answer::body(answer).map_err(UpstreamError::Unreadable)?
        }
    };
    Ok(body.to_string().into_bytes())
}

/// Reads a provider's stream.
#[derive(Debug, Clone)]
enum Reader {
    Chat(chat::read_answer::StreamReader),
    Responses(responses::read_answer::StreamReader),
    Anthropic(anthropic::read_answer::StreamReader),
}

impl Reader {
    fn new(provider: Dialect) -> Reader {
        match provider {
            Dialect::OpenAiChat => Reader::Chat(Default::default()),
            Dialect::OpenAiResponses => Reader::Responses(Default::default()),
            Dialect::Anthropic => Reader::Anthropic(Default::default()),
        }
    }

    fn read(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), UpstreamError> {
        match self {
            Reader::Chat(reader) => reader.read(data, out),
            Reader::Responses(reader) => reader.read(data, out),
            Reader::Anthropic(reader) => reader.read(data, out),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Reader::Chat(reader) => reader.is_done(),
            Reader::Responses(reader) => reader.is_done(),
            Reader::Anthropic(reader) => reader.is_done(),
        }
    }

    /// Nothing but the end marker may be missing.
    fn is_stopped(&self) -> bool {
        matches!(self, Reader::Chat(reader) if reader.is_stopped())
    }

    fn is_bare_usage(&self) -> bool {
        matches!(self, Reader::Chat(reader) if reader.bare)
    }

    fn foreign_call_done(&self) -> bool {
        matches!(self, Reader::Responses(reader) if reader.foreign_call_done)
    }
}

/// Why a body can't be read as JSON.
fn no_json(body: &[u8], error: &serde_json::Error) -> String {
    if body.trim_ascii_start().starts_with(b"<") {
        return crate::sse::PAGE.to_owned();
    }
    format!("not JSON: {error}")
}

/// Writes an agent's stream.
#[derive(Debug, Clone)]
pub(crate) enum Writer {
    Chat(chat::write_answer::StreamWriter),
    Responses(Box<responses::write_answer::StreamWriter>),
    Anthropic(anthropic::write_answer::StreamWriter),
}

impl Writer {
    pub(crate) fn new(agent: Dialect, created_unix_s: u64, include_usage: bool) -> Writer {
        match agent {
            Dialect::OpenAiChat => Writer::Chat(chat::write_answer::StreamWriter::new(
                created_unix_s,
                include_usage,
            )),
            Dialect::OpenAiResponses => Writer::Responses(Box::new(
                responses::write_answer::StreamWriter::new(created_unix_s),
            )),
            Dialect::Anthropic => Writer::Anthropic(Default::default()),
        }
    }

    pub(crate) fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Writer::Chat(writer) => writer.write(event, out),
            Writer::Responses(writer) => writer.write(event, out),
            Writer::Anthropic(writer) => writer.write(event, out),
        }
    }
}
