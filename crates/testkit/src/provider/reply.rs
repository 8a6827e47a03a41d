//! What a script answers, and how it is put on the wire in the caller's dialect.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};

use super::call::{Call, Dialect};
use super::{chat, messages, responses};

/// Every answer's time of creation, so that equal answers are equal bytes.
pub(super) const CREATED: u64 = 1_700_000_000;
/// Every answer's usage.
pub const INPUT_TOKENS: u64 = 100;
/// Every answer's usage.
pub const OUTPUT_TOKENS: u64 = 10;

/// What to answer.
#[derive(Clone, Debug)]
pub enum Kind {
    Text(String),
    /// Names and arguments of tool calls, in parallel.
    Tools(Vec<(String, Value)>),
    /// An error in the dialect's own shape.
    Error(u16),
    /// Anything: HTML, garbage.
    Raw {
        status: u16,
        content_type: String,
        body: String,
    },
    /// Never answers.
    Stall,
    /// Streams that many events of the text, then resets the connection.
    BreakOff(String, usize),
    /// Streams that many events of the text, then ends as if that were all.
    EndEarly(String, usize),
}

/// An answer and its pace.
#[derive(Clone, Debug)]
pub struct Reply {
    pub kind: Kind,
    /// Before the first byte.
    pub delay: Duration,
    /// Before each event of a stream.
    pub pace: Duration,
}

impl From<Kind> for Reply {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            delay: Duration::ZERO,
            pace: Duration::ZERO,
        }
    }
}

impl Reply {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Kind::Text(text.to_owned()).into()
    }

    /// One tool call.
    #[must_use]
    pub fn tool(name: &str, arguments: Value) -> Self {
        Kind::Tools(vec![(name.to_owned(), arguments)]).into()
    }

    /// An error of that status.
    #[must_use]
    pub fn error(status: u16) -> Self {
        Kind::Error(status).into()
    }

    /// A page of HTML, as a proxy in between would send.
    #[must_use]
    pub fn html(status: u16) -> Self {
        Self::from(Kind::Raw {
            status,
            content_type: "text/html".to_owned(),
            body: "<html><body><h1>It works!</h1></body></html>".to_owned(),
        })
    }

    /// The same after a while.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same with a pause before each event.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    pub(super) async fn render(self, call: &Call) -> Response {
        // A timer of no time takes a millisecond, which measurements would see.
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if call.dialect == Dialect::Embeddings {
            return embeddings(call);
        }
        match &self.kind {
            Kind::Stall => std::future::pending().await,
            Kind::Error(status) => refuse(*status, "the script says so"),
            Kind::Raw {
                status,
                content_type,
                body,
            } => send(*status, content_type, Body::from(body.clone())),
            Kind::Text(text) => self.finished(call, Some(text), &[]),
            Kind::Tools(tools) => self.finished(call, None, tools),
            Kind::BreakOff(text, events) => self.cut(call, text, *events, true),
            Kind::EndEarly(text, events) => self.cut(call, text, *events, false),
        }
    }

    fn finished(&self, call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Response {
        if call.stream {
            let events = events(call, text, tools);
            return streamed(events, self.pace, false);
        }
        let body = match call.dialect {
            Dialect::Chat => chat::whole(call, text, tools),
            Dialect::Responses => responses::whole(call, text, tools),
            Dialect::Messages | Dialect::Embeddings => messages::whole(call, text, tools),
        };
        send(200, "application/json", Body::from(body.to_string()))
    }

    fn cut(&self, call: &Call, text: &str, count: usize, broken: bool) -> Response {
        let mut events = events(call, Some(text), &[]);
        events.truncate(count);
        streamed(events, self.pace, broken)
    }
}

fn events(call: &Call, text: Option<&str>, tools: &[(String, Value)]) -> Vec<String> {
    match call.dialect {
        Dialect::Chat => chat::events(call, text, tools),
        Dialect::Responses => responses::events(call, text, tools),
        Dialect::Messages | Dialect::Embeddings => messages::events(call, text, tools),
    }
}

fn streamed(events: Vec<String>, pace: Duration, broken: bool) -> Response {
    let end = broken.then(|| Err(std::io::Error::other("broken off on purpose")));
    let events = stream::iter(events).then(move |event| async move {
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        Ok::<_, std::io::Error>(Bytes::from(event))
    });
    let body = Body::from_stream(events.chain(stream::iter(end)));
    send(200, "text/event-stream", body)
}

fn embeddings(call: &Call) -> Response {
    let body = json!({
        "object": "list", "model": call.model,
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 1.0]}],
        "usage": {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS},
    });
    send(200, "application/json", Body::from(body.to_string()))
}

/// An error that OpenAI's and Anthropic's clients both read.
pub(super) fn refuse(status: u16, message: &str) -> Response {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        400 => "invalid_request_error",
        _ => "api_error",
    };
    let body = json!({"type": "error", "error": {"type": kind, "message": message, "code": kind}});
    send(status, "application/json", Body::from(body.to_string()))
}

fn send(status: u16, content_type: &str, body: Body) -> Response {
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-type", content_type)
        .body(body)
        .unwrap()
}

/// One server-sent event, named if the dialect names them.
pub(super) fn event(name: Option<&str>, data: &Value) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// Words of a text with their spaces, as a model would stream them.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// An id that depends on nothing but the question.
pub(super) fn id(prefix: &str, call: &Call, index: usize) -> String {
    format!("{prefix}_{:016x}_{index}", call.fingerprint)
}
