//! One message model, the three dialects that agents and providers speak (OpenAI Chat Completions, OpenAI Responses,
//! Anthropic Messages), both sides of each, and prices.
//!
//! A call's way through here: [`parse`] the agent's body; if provider and agent share a dialect send [`forward`]'s
//! body, else [`render_request`]'s; feed the answer's bytes to a [`Relay`] and send what it gives; settle with its
//! [`Outcome`]. Beside it: what a journal match is decided on ([`canonical`], [`mask_times`], [`request_marks`]), and
//! errors in every dialect's shape.
//!
//! This crate does no I/O and has no clock and no randomness: bytes, times and ids come in as arguments. It must stay
//! so, because replay and the simulator depend on it.

mod answer;
mod anthropic;
mod balance;
mod canonical;
mod chat;
mod dialect;
mod error;
mod estimate;
mod fields;
mod marks;
mod mask;
mod prices;
mod refusal;
mod relay;
mod render_answer;
mod request;
mod responses;
mod sse;
mod usage;

pub use answer::{Answer, Block, BlockKind, Delta, Event, StopReason};
pub use canonical::{canonical, canonical_bytes, join, split};
pub use dialect::Dialect;
pub use error::{
    ErrorKind, ProviderError, UpstreamError, parse_error, render_error, render_refusal,
};
pub use estimate::estimate_input_tokens;
pub use marks::{Mark, answer_marks, request_marks};
pub use mask::{TimeWindow, mask_times};
pub use prices::{ModelFacts, PRICES_AS_OF, lookup};
pub use refusal::Refusal;
pub use relay::{ANSWER_LIMIT_BYTES, Outcome, Piece, Relay, RelayOptions};
pub use render_answer::{AnswerHead, TextStream, render_text_answer, scripted_answer};
pub use request::{
    AssistantPart, OutputFormat, Part, Proof, Reasoning, Request, Sampling, Source, Thinking, Tool,
    ToolCall, ToolChoice, ToolResult, Turn, forward, parse, render_request,
};
pub use usage::{LongPrice, Price, Usage, embeddings_usage};
