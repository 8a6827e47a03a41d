//! One attempt at a model call: room within the provider's limits, the request in its dialect,
//! and its answer handed to [`super::reading`].
//!
//! The credential is read anew for each attempt and stands in no log and no error.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::fleet::{Credential, Provider, ProviderKind};
use llm::{Dialect, Relay, RelayOptions};
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::time::Instant;

use super::feed::Sink;
use super::limits::Gauges;
use super::outcome::{Answered, Failed, Reason};
use super::reading::{Reading, read_whole, send, too_large};
use super::{Candidate, ModelCall, feed_of};
use crate::call::ModelWire;
use crate::outgoing::Outgoing;
use crate::{clock, script};

/// Anthropic's version when the agent doesn't speak its dialect.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Reads a secret now.
pub type Secret = Arc<dyn Fn(&Credential) -> Result<String, String> + Send + Sync>;

/// The way to all providers.
pub struct Upstreams {
    http: Outgoing,
    secret: Secret,
    gauges: Gauges,
    transcripts: script::Transcripts,
    /// Servers that know no Responses API, by base URL: they are asked in Chat Completions.
    chat_only: Mutex<HashSet<String>>,
}

impl Upstreams {
    #[must_use]
    pub(crate) fn new(http: Outgoing, secret: Secret) -> Self {
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
        let provider = &candidate.provider;
        let named = |failed: Failed| Failed {
            model: Some(Box::new(candidate.model.clone())),
            ..failed.said_of(&provider.name)
        };
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
        let deadline = Instant::now() + Duration::from_millis(provider.limits.timeout_ms);
        let making = self.make(call, candidate, attempt, deadline, sink);
        let made = tokio::time::timeout_at(deadline, making).await;
        let answered = made.unwrap_or_else(|_| Err(Failed::timed_out(provider)));
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
        deadline: Instant,
        sink: &mut S,
    ) -> Result<Answered, Failed> {
        match (&call.request, candidate.provider.kind) {
            (Some(request), ProviderKind::Script) => {
                let transcript = self.transcripts.of(&candidate.provider)?;
                script::play(&transcript, call, request, candidate, attempt, sink).await
            }
            (Some(request), _) => {
                self.converse(call, request, candidate, deadline, sink)
                    .await
            }
            (None, _) => self.embed(call, candidate, sink).await,
        }
    }

    async fn converse<S: Sink>(
        &self,
        call: &ModelCall,
        request: &llm::Request,
        candidate: &Candidate,
        deadline: Instant,
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
        let reading = Reading {
            response,
            relay,
            streamed: request.stream,
            deadline,
        };
        reading.relay(provider, sink).await
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
            .client(provider)?
            .post(format!("{}{path}", provider.base_url))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        self.with_key(post, provider)
    }

    /// The question that costs nothing: which models there are.
    pub(crate) fn models(&self, provider: &Provider) -> Result<reqwest::RequestBuilder, Failed> {
        let (base, http) = (&provider.base_url, self.client(provider)?);
        let get = match provider.kind {
            ProviderKind::Anthropic => http
                .get(format!("{base}/v1/models?limit=1"))
                .header("anthropic-version", ANTHROPIC_VERSION),
            ProviderKind::Openai | ProviderKind::Script => http.get(format!("{base}/models")),
        };
        self.with_key(get, provider)
    }

    fn client(&self, provider: &Provider) -> Result<&reqwest::Client, Failed> {
        self.http.to(&provider.base_url).map_err(|refused| {
            let message = format!("provider {} can't be reached: {refused}", provider.name);
            Failed::of(Reason::Connection, 502, message)
        })
    }

    fn with_key(
        &self,
        request: reqwest::RequestBuilder,
        provider: &Provider,
    ) -> Result<reqwest::RequestBuilder, Failed> {
        let Some(credential) = &provider.credential else {
            return Ok(request);
        };
        let secret = (self.secret)(credential).map_err(|why| {
            let message = format!(
                "the credential of provider {} can't be read: {why}",
                provider.name
            );
            Failed::of(Reason::NoSecret, 401, message)
        })?;
        Ok(match provider.kind {
            ProviderKind::Anthropic => request.header("x-api-key", sensitive(&secret)?),
            ProviderKind::Openai | ProviderKind::Script => request.bearer_auth(secret.trim()),
        })
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
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

/// Can the request be said in this candidate's dialect?
pub fn check(
    request: &llm::Request,
    agents: &Value,
    candidate: &Candidate,
) -> Result<(), llm::Refusal> {
    let (provider, model) = (&candidate.provider, &candidate.model.model);
    let dialect = dialect_of(provider, request.dialect);
    if dialect == request.dialect {
        return Ok(());
    }
    body(request, agents, provider, model, dialect).map(|_| ())
}
