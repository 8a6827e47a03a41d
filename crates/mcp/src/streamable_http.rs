//! Streamable HTTP: each request is one POST; the answer is JSON or a stream of events.
//!
//! The answer is counted as it comes and given up at its limit, so a result without end costs its
//! own call only. No stream is kept open for what a server might want to say on its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use crate::client::{Bearer, CallError};
use crate::message::{self, Message};
use crate::sse::Events;

const SESSION: &str = "mcp-session-id";
/// The most of an error page that is kept.
const ERROR_BYTES: usize = 4096;
/// What surrounds a result in an answer.
const ENVELOPE_BYTES: usize = 4096;

pub(crate) struct StreamableHttp {
    http: reqwest::Client,
    url: String,
    bearer: Bearer,
    session: Mutex<Option<HeaderValue>>,
    version: OnceLock<String>,
    next_id: AtomicU64,
}

impl StreamableHttp {
    pub(crate) fn new(http: reqwest::Client, url: String, bearer: Bearer) -> Self {
        Self {
            http,
            url,
            bearer,
            session: Mutex::default(),
            version: OnceLock::new(),
            next_id: AtomicU64::new(1),
        }
    }

    /// The revision agreed on, named in every request from now on.
    pub(crate) fn speak(&self, version: &str) {
        self.version.get_or_init(|| version.to_owned());
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        params: &Value,
        timeout: Duration,
        limit_bytes: usize,
    ) -> Result<Value, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = message::write_request(id, method, params);
        let exchange = async {
            let response = self.send(&body, method, params).await?;
            self.read(response, id, limit_bytes).await
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(CallError::TimedOut {
                    seconds: timeout.as_secs_f32(),
                })
            })
    }

    pub(crate) async fn notify(&self, message: &Value) {
        let method = message
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or_default();
        // A notification has no answer; a lost one costs nothing.
        if let Err(error) = self.send(message, method, &Value::Null).await {
            tracing::debug!(%error, "a notification to a tool server was lost");
        }
    }

    async fn send(
        &self,
        body: &Value,
        method: &str,
        params: &Value,
    ) -> Result<reqwest::Response, CallError> {
        let mut request = self
            .http
            .post(&self.url)
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        if let Some(version) = self.version.get() {
            request = request
                .header("mcp-protocol-version", version)
                .header("mcp-method", method);
            let name = params.get("name").and_then(Value::as_str);
            if let Some(name) = name.and_then(|name| HeaderValue::from_str(name).ok()) {
                request = request.header("mcp-name", name);
            }
        }
        if let Some(session) = self.session() {
            request = request.header(SESSION, session);
        }
        if let Some(bearer) = (self.bearer)().map_err(CallError::NotSent)? {
            request = request.bearer_auth(bearer);
        }
        request.send().await.map_err(|error| sending_failed(&error))
    }

    async fn read(
        &self,
        response: reqwest::Response,
        id: u64,
        limit_bytes: usize,
    ) -> Result<Value, CallError> {
        if let Some(session) = response.headers().get(SESSION) {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        }
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(self.status_error(status, response, id).await);
        }
        let kind = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let outcome = match kind.map(|kind| kind.to_ascii_lowercase()) {
            Some(kind) if kind.starts_with("text/event-stream") => {
                read_events(response, id, limit_bytes).await?
            }
            Some(kind) if kind.starts_with("application/json") => {
                let bytes = read_bounded(response, limit_bytes).await?;
                ours(&bytes, id).ok_or_else(|| {
                    CallError::Unreadable("the body is not the answer to the request".into())
                })?
            }
            kind => {
                let kind = kind.unwrap_or_else(|| "no content type".into());
                return Err(CallError::Unreadable(format!(
                    "{} instead of JSON",
                    message::bounded(&kind, 64)
                )));
            }
        };
        outcome.map_err(CallError::Rpc)
    }

    async fn status_error(&self, status: u16, response: reqwest::Response, id: u64) -> CallError {
        let bytes = read_start(response, ERROR_BYTES).await;
        if self.session().is_some() && is_forgotten(status, &bytes) {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return CallError::SessionEnded;
        }
        match ours(&bytes, id) {
            Some(Err(error)) => CallError::Rpc(error),
            _ => CallError::Status {
                status,
                message: message::bounded(String::from_utf8_lossy(&bytes).trim(), 512),
            },
        }
    }

    fn session(&self) -> Option<HeaderValue> {
        self.session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// 404 is the specification's word for a session that is gone; some servers say 400 and explain.
fn is_forgotten(status: u16, body: &[u8]) -> bool {
    let says_so = || {
        String::from_utf8_lossy(body)
            .to_ascii_lowercase()
            .contains("session")
    };
    status == 404 || (status == 400 && says_so())
}

/// Only a connection that was never made proves that nothing arrived.
fn sending_failed(error: &reqwest::Error) -> CallError {
    if error.is_connect() || error.is_builder() {
        CallError::NotSent(root_cause(error))
    } else {
        CallError::Unanswered(root_cause(error))
    }
}

/// The innermost reason: the outer ones name the URL, which may hold what isn't for logs.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

fn ours(bytes: &[u8], id: u64) -> Option<Result<Value, message::RpcError>> {
    match message::read(bytes) {
        Ok(Message::Response {
            id: answered,
            outcome,
        }) if answered.as_u64() == Some(id) => Some(outcome),
        // A server that could not read the request cannot repeat its id.
        Ok(Message::Response {
            id: Value::String(_),
            outcome: Err(error),
        }) => Some(Err(error)),
        _ => null_id_error(bytes),
    }
}

fn null_id_error(bytes: &[u8]) -> Option<Result<Value, message::RpcError>> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let error = value
        .get("error")
        .filter(|_| value.get("id").is_none_or(Value::is_null))?;
    Some(Err(message::RpcError {
        code: error.get("code")?.as_i64()?,
        message: message::bounded(error.get("message")?.as_str()?, 2048),
    }))
}

async fn read_bounded(
    mut response: reqwest::Response,
    limit_bytes: usize,
) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broke_off(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > limit_bytes.saturating_add(ENVELOPE_BYTES) {
            return Err(CallError::TooLarge { limit_bytes });
        }
    }
    Ok(bytes)
}

async fn read_events(
    mut response: reqwest::Response,
    id: u64,
    limit_bytes: usize,
) -> Result<Result<Value, message::RpcError>, CallError> {
    let mut events = Events::default();
    let mut read_bytes = 0_usize;
    while let Some(chunk) = response.chunk().await.map_err(|error| broke_off(&error))? {
        read_bytes += chunk.len();
        if read_bytes > limit_bytes.saturating_mul(2).saturating_add(ENVELOPE_BYTES) {
            return Err(CallError::TooLarge { limit_bytes });
        }
        for data in events.push(&chunk) {
            if data.len() > limit_bytes.saturating_add(ENVELOPE_BYTES) {
                return Err(CallError::TooLarge { limit_bytes });
            }
            // Progress and log messages pass by.
            if let Some(outcome) = ours(&data, id) {
                return Ok(outcome);
            }
        }
    }
    Err(CallError::Unanswered(
        "the stream ended before the answer".into(),
    ))
}

fn broke_off(error: &reqwest::Error) -> CallError {
    CallError::Unanswered(root_cause(error))
}

async fn read_start(mut response: reqwest::Response, most_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= most_bytes {
            bytes.truncate(most_bytes);
            break;
        }
    }
    bytes
}
