//! One attempt at a model call: a request to a provider, its answer read to the end while its
//! pieces go to the agent, and a word for whatever can go wrong.
//!
//! The credential is read anew for each attempt and stands in no log and no error.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::fleet::{Credential, ModelRef, Provider, ProviderKind};
use llm::{Dialect, ErrorKind, Relay, RelayOptions, UpstreamError};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::Value;

use super::feed::Sink;
use super::limits::Gauges;
use super::{Candidate, ModelCall, feed_of, settle};
use crate::call::ModelWire;
use crate::{clock, script};

/// A stream that says nothing for so long is taken for dead. Models that think send nothing for minutes.
const IDLE: Duration = Duration::from_secs(300);
/// After its last event a provider has so long to end the stream; then it counts as ended.
const TAIL: Duration = Duration::from_secs(2);
/// The most of an error answer that is read.
const ERROR_BYTES: usize = 64 * 1024;
/// Anthropic's version when the agent doesn't speak its dialect.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Reads a secret now.
pub type Secret = Arc<dyn Fn(&Credential) -> Result<String, String> + Send + Sync>;

/// What a whole answer came to.
#[derive(Debug)]
pub struct Answered {
    pub usage: llm::Usage,
    pub marks: Vec<String>,
    pub proposals: Vec<Vec<u8>>,
}

impl Answered {
    pub(crate) fn of(outcome: &llm::Outcome) -> Self {
        Self {
            usage: outcome.usage,
            marks: outcome.marks().iter().map(settle::mark_text).collect(),
            proposals: outcome.tool_calls.iter().map(settle::proposal).collect(),
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// No connection, or it broke before the answer was whole.
    Connection,
    TimedOut,
    /// HTML, garbage, or a stream without its end.
    Unreadable,
    /// The provider said so.
    Provider(ErrorKind),
    /// The secret can't be read here.
    NoSecret,
    /// The request can't be said in the provider's dialect.
    Carry,
    /// `limits` left no room in time.
    NoRoom,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    pub reason: Reason,
    /// For the agent.
    pub status: u16,
    /// For the agent; bounded, without anything secret.
    pub message: String,
    pub retry_after: Option<Duration>,
    /// What the part that came is estimated at, if any came.
    pub usage: Option<Box<llm::Usage>>,
    /// Which model failed, once that is known.
    pub model: Option<Box<ModelRef>>,
}

impl Failed {
    pub(crate) fn of(reason: Reason, status: u16, message: impl fmt::Display) -> Self {
        Self {
            reason,
            status,
            message: message.to_string(),
            retry_after: None,
            usage: None,
            model: None,
        }
    }

    pub(super) fn nobody() -> Self {
        Self::of(Reason::Connection, 502, "no model can serve this call")
    }

    fn upstream(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::Reported(error) => Self::provider(error),
            error => Self::of(Reason::Unreadable, 502, error),
        }
    }

    pub(crate) fn provider(error: &llm::ProviderError) -> Self {
        Self {
            retry_after: error.retry_after,
            ..Self::of(Reason::Provider(error.kind), error.status, &error.message)
        }
    }

    /// A stable word.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.reason {
            Reason::Connection => "upstream_unreachable",
            Reason::TimedOut => "upstream_timeout",
            Reason::Unreadable => "upstream_unreadable",
            Reason::Provider(kind) => kind.as_str(),
            Reason::NoSecret => "no_secret",
            Reason::Carry => "invalid",
            Reason::NoRoom => "rate_limited",
        }
    }

    /// The same call to the same provider may succeed soon.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.reason {
            Reason::Connection => true,
            // What a time-out took was long enough.
            Reason::Provider(kind) => kind != ErrorKind::Timeout && kind.is_retryable(),
            _ => false,
        }
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.reason == Reason::Unreadable
    }

    pub(super) fn is_carry(&self) -> bool {
        self.reason == Reason::Carry
    }

    /// Another model may serve instead.
    #[must_use]
    pub fn falls_over(&self) -> bool {
        match self.reason {
            Reason::Provider(kind) => {
                matches!(kind, ErrorKind::Auth | ErrorKind::Quota) || kind.is_retryable()
            }
            _ => true,
        }
    }

    /// The credential is missing or was refused.
    #[must_use]
    pub fn is_credential(&self) -> bool {
        matches!(
            self.reason,
            Reason::NoSecret | Reason::Provider(ErrorKind::Auth)
        )
    }
}

/// The way to all providers.
pub struct Upstreams {
    http: reqwest::Client,
    secret: Secret,
    gauges: Gauges,
    transcripts: script::Transcripts,
    /// Servers that know no Responses API, by base URL: they are asked in Chat Completions.
    chat_only: Mutex<HashSet<String>>,
}

impl Upstreams {
    /// `http` must follow no redirects: the credential would follow with them.
    #[must_use]
    pub fn new(http: reqwest::Client, secret: Secret) -> Self {
        Self {
            http,
            secret,
            gauges: Gauges::default(),
            transcripts: script::Transcripts::default(),
            chat_only: Mutex::default(),
        }
    }

    /// Makes one attempt; `attempt` counts from 1.
    pub async fn attempt<S: Sink>(
        &self,
        call: &ModelCall,
        candidate: &Candidate,
        attempt: u32,
        sink: &mut S,
    ) -> Result<Answered, Failed> {
        let named = |failed: Failed| Failed {
            model: Some(Box::new(candidate.model.clone())),
            ..failed
        };
        let provider = &candidate.provider;
        let Some(slot) = self
            .gauges
            .enter(provider, call.estimated_input_tokens)
            .await
        else {
            let message = format!(
                "the limits of provider {} left no room in time",
                provider.name
            );
            return Err(named(Failed::of(Reason::NoRoom, 429, message)));
        };
        let time_out = Duration::from_millis(provider.limits.timeout_ms);
        let made = tokio::time::timeout(time_out, self.make(call, candidate, attempt, sink)).await;
        let answered = made.unwrap_or_else(|_| {
            let message = format!(
                "provider {} did not finish within {} s",
                provider.name,
                time_out.as_secs_f32()
            );
            Err(Failed::of(Reason::TimedOut, 504, message))
        });
        if let Ok(answered) = &answered {
            slot.used(answered.usage.total_tokens());
        }
        answered.map_err(named)
    }

    async fn make<S: Sink>(
        &self,
        call: &ModelCall,
        candidate: &Candidate,
        attempt: u32,
        sink: &mut S,
    ) -> Result<Answered, Failed> {
        match (&call.request, candidate.provider.kind) {
            (Some(request), ProviderKind::Script) => {
                let transcript = self.transcripts.of(&candidate.provider)?;
                script::play(&transcript, call, request, candidate, attempt, sink).await
            }
            (Some(request), _) => self.converse(call, request, candidate, sink).await,
            (None, _) => self.embed(call, candidate, sink).await,
        }
    }

    async fn converse<S: Sink>(
        &self,
        call: &ModelCall,
        request: &llm::Request,
        candidate: &Candidate,
        sink: &mut S,
    ) -> Result<Answered, Failed> {
        let provider = &candidate.provider;
        let mut dialect = dialect_of(provider, request.dialect);
        if dialect == Dialect::OpenAiResponses && self.is_chat_only(provider) {
            dialect = Dialect::OpenAiChat;
        }
        let asked = self.ask(call, request, candidate, dialect).await;
        let response = match asked {
            Err(failed) if dialect == Dialect::OpenAiResponses && failed.is_no_such_route() => {
                dialect = Dialect::OpenAiChat;
                let response = self.ask(call, request, candidate, dialect).await?;
                self.chat_only
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(provider.base_url.clone());
                response
            }
            asked => asked?,
        };
        let options = RelayOptions::at(clock::unix_s());
        let relay = Relay::new(
            request.dialect,
            dialect,
            request.stream,
            request,
            &candidate.model.model,
            options,
        );
        relay_answer(response, relay, request.stream, sink).await
    }

    fn is_chat_only(&self, provider: &Provider) -> bool {
        self.chat_only
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&provider.base_url)
    }

    async fn ask(
        &self,
        call: &ModelCall,
        request: &llm::Request,
        candidate: &Candidate,
        dialect: Dialect,
    ) -> Result<reqwest::Response, Failed> {
        let provider = &candidate.provider;
        let body = body(
            request,
            &call.body,
            provider,
            &candidate.model.model,
            dialect,
        )
        .map_err(|refusal| Failed::of(Reason::Carry, 400, refusal))?;
        let mut post = self.post(provider, dialect.path(), &body)?;
        if dialect == Dialect::Anthropic {
            let own = call.wire == ModelWire::Dialect(Dialect::Anthropic);
            let version = call
                .anthropic
                .version
                .as_deref()
                .filter(|_| own)
                .unwrap_or(ANTHROPIC_VERSION);
            post = post.header("anthropic-version", version);
            if let Some(beta) = call.anthropic.beta.as_deref().filter(|_| own) {
                post = post.header("anthropic-beta", beta);
            }
        }
        send(post, provider, dialect).await
    }

    async fn embed<S: Sink>(
        &self,
        call: &ModelCall,
        candidate: &Candidate,
        sink: &mut S,
    ) -> Result<Answered, Failed> {
        let mut body = call.body.clone();
        body["model"] = Value::from(candidate.model.model.as_str());
        let post = self.post(&candidate.provider, "/embeddings", &body)?;
        let response = send(post, &candidate.provider, Dialect::OpenAiChat).await?;
        let bytes = read_whole(response).await?;
        let answer: Value = serde_json::from_slice(&bytes)
            .ok()
            .filter(|answer: &Value| answer.get("data").is_some_and(Value::is_array))
            .ok_or_else(|| {
                Failed::of(
                    Reason::Unreadable,
                    502,
                    "the provider's answer holds no embeddings",
                )
            })?;
        let estimated = llm::Usage {
            input_tokens: call.estimated_input_tokens,
            estimated: true,
            ..llm::Usage::default()
        };
        let usage = llm::embeddings_usage(&answer).unwrap_or(estimated);
        let mut feed = feed_of(sink, false);
        let piece = llm::Piece {
            bytes,
            hold: true,
            text_delta: None,
        };
        feed.take(vec![piece])
            .and_then(|()| feed.complete())
            .map_err(too_large)?;
        Ok(Answered {
            usage,
            marks: Vec::new(),
            proposals: Vec::new(),
        })
    }

    fn post(
        &self,
        provider: &Provider,
        path: &str,
        body: &Value,
    ) -> Result<reqwest::RequestBuilder, Failed> {
        let post = self
            .http
            .post(format!("{}{path}", provider.base_url))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        let Some(credential) = &provider.credential else {
            return Ok(post);
        };
        let secret = (self.secret)(credential).map_err(|why| {
            let message = format!(
                "the credential of provider {} can't be read: {why}",
                provider.name
            );
            Failed::of(Reason::NoSecret, 401, message)
        })?;
        Ok(match provider.kind {
            ProviderKind::Anthropic => post.header("x-api-key", sensitive(&secret)?),
            ProviderKind::Openai | ProviderKind::Script => post.bearer_auth(secret.trim()),
        })
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

impl Failed {
    /// The server has no such path (as opposed to no such model, which it says in its own words).
    fn is_no_such_route(&self) -> bool {
        matches!(self.status, 404 | 405 | 501)
    }
}

fn sensitive(secret: &str) -> Result<http::HeaderValue, Failed> {
    let mut value = http::HeaderValue::from_str(secret.trim()).map_err(|_| {
        Failed::of(
            Reason::NoSecret,
            401,
            "the credential holds characters that no header can carry",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Which dialect the provider is spoken to in, when the agent speaks `agent`.
#[must_use]
pub fn dialect_of(provider: &Provider, agent: Dialect) -> Dialect {
    match (provider.kind, agent) {
        (ProviderKind::Anthropic, _) => Dialect::Anthropic,
        (ProviderKind::Script, agent) => agent,
        (ProviderKind::Openai, Dialect::OpenAiResponses) => Dialect::OpenAiResponses,
        (ProviderKind::Openai, _) => Dialect::OpenAiChat,
    }
}

/// The body that is sent: the agent's own where both speak one dialect, else its translation.
pub fn body(
    request: &llm::Request,
    body: &Value,
    provider: &Provider,
    model: &str,
    dialect: Dialect,
) -> Result<Value, llm::Refusal> {
    if provider.kind == ProviderKind::Script || request.dialect == dialect {
        return Ok(llm::forward(dialect, body, model));
    }
    llm::render_request(request, dialect, model)
}

async fn send(
    post: reqwest::RequestBuilder,
    provider: &Provider,
    dialect: Dialect,
) -> Result<reqwest::Response, Failed> {
    let response = post.send().await.map_err(|error| broke(provider, &error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status.is_redirection() || status.is_informational() {
        let message = format!(
            "provider {} answered with status {status}; redirects are not followed",
            provider.name
        );
        return Err(Failed::of(Reason::Unreadable, 502, message));
    }
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let body = read_start(response).await;
    Err(Failed::provider(&llm::parse_error(
        dialect,
        status.as_u16(),
        &body,
        retry_after.as_deref(),
    )))
}

/// The innermost reason only: the outer ones name the URL.
fn broke(provider: &Provider, error: &reqwest::Error) -> Failed {
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    Failed::of(
        Reason::Connection,
        502,
        format!("provider {} can't be reached: {cause}", provider.name),
    )
}

async fn relay_answer<S: Sink>(
    mut response: reqwest::Response,
    mut relay: Relay,
    streamed: bool,
    sink: &mut S,
) -> Result<Answered, Failed> {
    let mut feed = feed_of(sink, streamed);
    let mut patience = IDLE;
    let mut came = false;
    loop {
        let chunk = match tokio::time::timeout(patience, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            // Ended, broken off or silent: whether the answer is whole is for the relay to say.
            Ok(Ok(None) | Err(_)) | Err(_) => break,
        };
        came = true;
        let pieces = relay
            .push(&chunk)
            .map_err(|error| partial(&relay, &error))?;
        feed.take(pieces).map_err(too_large)?;
        if streamed && may_be_the_last(&chunk) && relay.outcome().stop.is_some() {
            patience = TAIL;
        }
    }
    if !came {
        return Err(Failed::of(
            Reason::Unreadable,
            502,
            "the provider's answer is empty",
        ));
    }
    let pieces = relay.finish().map_err(|error| partial(&relay, &error))?;
    feed.take(pieces)
        .and_then(|()| feed.complete())
        .map_err(too_large)?;
    Ok(Answered::of(&relay.outcome()))
}

/// A cheap look before the costly one.
fn may_be_the_last(chunk: &[u8]) -> bool {
    let tail = &chunk[chunk.len().saturating_sub(4096)..];
    let has = |word: &[u8]| tail.windows(word.len()).any(|window| window == word);
    has(b"[DONE]") || has(b"message_stop") || has(b"response.completed")
}

/// What came of a broken answer is paid for.
fn partial(relay: &Relay, error: &UpstreamError) -> Failed {
    let usage = relay.outcome().usage;
    let usage = (usage.output_tokens > 0).then(|| Box::new(usage));
    Failed {
        usage,
        ..Failed::upstream(error)
    }
}

fn too_large(error: hub::answer::TooLarge) -> Failed {
    Failed::of(Reason::Unreadable, 502, format!("the provider's {error}"))
}

async fn read_whole(mut response: reqwest::Response) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|_| Failed::of(Reason::Connection, 502, "the provider's answer broke off"))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > hub::answer::MAX_ANSWER_BYTES {
            return Err(too_large(hub::answer::TooLarge));
        }
    }
    Ok(bytes)
}

async fn read_start(mut response: reqwest::Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= ERROR_BYTES {
            bytes.truncate(ERROR_BYTES);
            break;
        }
    }
    bytes
}
