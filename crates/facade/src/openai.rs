//! OpenAI's protocols for clients: `model` is an agent, a call is a task.
//!
//! **What the agent gets.** A request with one user message and nothing else: that message. A
//! request with more and no `Mainstay-Session`: the whole conversation, because nobody else has
//! it; as one text with a heading per role where all of it is text (an agent that expects text
//! keeps getting text), else as parts. A request with `Mainstay-Session`: the last user message
//! only, because the session has the rest.
//! **What is refused.** What would change the answer and can't be honoured (`tools`, `n` above 1,
//! a response format, stored conversations), by name. Sampling parameters are hints to a model the
//! client doesn't choose here; they are left aside.
//! **Streams.** Text can't be taken back in these protocols: if a new attempt begins after text was
//! sent, or the task fails, the client gets an error and the stream is reset, never ended cleanly.
//! Every answer names its session in `Mainstay-Session` and its task in `Mainstay-Task`.

mod call;
mod chat;
mod conversation;
mod error;
mod models;
mod progress;
mod responses;
mod stream;

use axum::Router;
use axum::routing::{get, post};

pub(crate) use error::ApiError;

use crate::door::Door;

pub(crate) fn router() -> Router<Door> {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::show))
}
