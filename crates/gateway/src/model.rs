//! A model call: what the agent asks for, who may serve it, and how its result is settled.
//!
//! The way out is in three files that say what they do: [`failover`] goes through the models that
//! may serve, [`retry`] tries one of them again, [`upstream`] makes one attempt.

mod choice;
pub mod failover;
mod feed;
pub mod limits;
pub mod outcome;
mod reading;
pub mod retry;
mod settle;
pub mod upstream;

pub use feed::Sink;

use std::sync::Arc;

use api::fleet::{Mask, ModelRef, Provider};
use http::HeaderMap;
use hub::caller::Caller;
use hub::step::{Effect, Request, Reserve, StepAsk, StepKind, StepRun};
use hub::{Code, HubError, Refusal};
use llm::{Dialect, TimeWindow};
use serde_json::Value;

use crate::call::{ModelWire, Performed};
use crate::{Gateway, clock};

/// What an answer is reserved at when the agent names no limit: little, so that a small budget is
/// used up rather than refused at the first call.
const DEFAULT_OUTPUT_TOKENS: u64 = 256;
/// Clocks of agent and hub may differ, and agents round: times this far outside count as now.
const MASK_GRACE_MS: i64 = 120_000;

/// A model that may serve, with its provider as it is reached today.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub model: ModelRef,
    pub provider: Provider,
    pub price: Option<llm::Price>,
}

/// A model call that may be made.
#[derive(Debug)]
pub struct ModelCall {
    pub wire: ModelWire,
    pub body: Value,
    /// `None` for embeddings, which are passed on unread.
    pub request: Option<llm::Request>,
    /// The model as the agent named it; empty if it named none.
    pub asked: String,
    /// At least one; the first serves unless it fails.
    pub candidates: Vec<Candidate>,
    pub anthropic: AnthropicHeaders,
    pub estimated_input_tokens: u64,
}

/// Headers that are part of a request in Anthropic's dialect.
#[derive(Clone, Debug, Default)]
pub struct AnthropicHeaders {
    pub version: Option<String>,
    pub beta: Option<String>,
}

impl ModelCall {
    /// Reads the request. What can't be carried to the model that serves is refused here, before
    /// anything is journaled.
    pub fn prepare(
        wire: ModelWire,
        body: Value,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let invalid = |refusal: &llm::Refusal| HubError::new(Code::Invalid, refusal.to_string());
        let request = match wire {
            ModelWire::Dialect(dialect) => {
                Some(llm::parse(dialect, &body).map_err(|refusal| invalid(&refusal))?)
            }
            ModelWire::Embeddings => None,
        };
        let asked = body
            .get("model")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let chosen = choice::choose(&caller.agent, &asked)?;
        let mut candidates = choice::candidates(caller, chosen);
        if wire == ModelWire::Embeddings {
            candidates
                .retain(|candidate| candidate.provider.kind == api::fleet::ProviderKind::Openai);
        }
        let first = candidates.first().ok_or_else(|| {
            HubError::new(
                Code::Invalid,
                format!("no provider of {chosen} can serve this request"),
            )
        })?;
        if let Some(request) = &request {
            upstream::check(request, &body, first).map_err(|refusal| invalid(&refusal))?;
        }
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let estimated_input_tokens = request.as_ref().map_or_else(
            || body.to_string().len() as u64 / 4,
            llm::estimate_input_tokens,
        );
        Ok(Self {
            wire,
            anthropic: AnthropicHeaders {
                version: header("anthropic-version"),
                beta: header("anthropic-beta"),
            },
            body,
            request,
            asked,
            candidates,
            estimated_input_tokens,
        })
    }

    /// The call as the journal sees it.
    #[must_use]
    pub fn ask(&self, caller: &Caller, retry: bool) -> StepAsk {
        let (canonical, masked) = self.keys(caller);
        let name = if self.asked.is_empty() {
            self.candidates[0].model.to_string()
        } else {
            self.asked.clone()
        };
        StepAsk {
            kind: StepKind::Model,
            name,
            canonical,
            masked,
            effect: Effect::Pure,
            retry,
            marks: self.earlier_answers(),
            request: self.parts(),
            reserve: self.reserve(),
        }
    }

    /// What the match key is made of, and the same with the present masked if that changes it.
    fn keys(&self, caller: &Caller) -> (Vec<u8>, Option<Vec<u8>>) {
        let ModelWire::Dialect(dialect) = self.wire else {
            let canonical = llm::canonical_bytes(Dialect::OpenAiChat, &self.body);
            return (key("openai-embeddings", "/embeddings", &canonical), None);
        };
        let canonical = llm::canonical(dialect, &self.body);
        let bytes = |value: &Value| {
            key(
                dialect.as_str(),
                dialect.path(),
                value.to_string().as_bytes(),
            )
        };
        let uuids = caller.agent.mask.contains(&Mask::Uuid);
        if caller.ambient || !(uuids || caller.agent.mask.contains(&Mask::Now)) {
            return (bytes(&canonical), None);
        }
        let window = TimeWindow {
            from_unix_ms: caller.attempt_started_ms.saturating_sub(MASK_GRACE_MS),
            to_unix_ms: clock::unix_ms().saturating_add(MASK_GRACE_MS),
        };
        let keep = |value: &str| caller.input_text.contains(value);
        let masked = llm::mask_times(&canonical, dialect, window, &keep, uuids);
        let masked = (masked != canonical).then(|| bytes(&masked));
        (bytes(&canonical), masked)
    }

    fn earlier_answers(&self) -> Vec<String> {
        match self.wire {
            ModelWire::Dialect(dialect) => llm::request_marks(dialect, &self.body)
                .iter()
                .map(settle::mark_text)
                .collect(),
            ModelWire::Embeddings => Vec::new(),
        }
    }

    fn parts(&self) -> Request {
        let dialect = match self.wire {
            ModelWire::Dialect(dialect) => dialect,
            ModelWire::Embeddings => Dialect::OpenAiChat,
        };
        let (envelope, messages) = llm::split(dialect, &self.body);
        Request {
            envelope: envelope.to_string().into_bytes(),
            messages: messages
                .into_iter()
                .map(|message| message.to_string().into_bytes())
                .collect(),
        }
    }

    /// What it may take at most, as far as one can tell: the price is that of the model that serves first.
    fn reserve(&self) -> Reserve {
        let output = match &self.request {
            Some(request) => request.max_output_tokens.unwrap_or(DEFAULT_OUTPUT_TOKENS),
            None => 0,
        };
        let usage = llm::Usage {
            input_tokens: self.estimated_input_tokens,
            output_tokens: output,
            ..llm::Usage::default()
        };
        let usd = self.candidates[0].price.map(|price| price.cost_usd(usage));
        Reserve {
            tokens: usage.total_tokens(),
            usd,
        }
    }

    /// Makes the call and says how it is settled.
    pub async fn perform(&self, gateway: &Arc<Gateway>, run: &mut StepRun) -> Performed {
        match failover::call(&gateway.upstreams, self, run).await {
            Ok(served) => Performed::Finished(settle::finished(&served)),
            Err(failed) => Performed::Failed(settle::failure(self, &failed, run.has_left())),
        }
    }
}

/// An answer's way to the agent.
pub(crate) fn feed_of<S: Sink>(sink: &mut S, streamed: bool) -> feed::Feed<'_, S> {
    feed::Feed::new(
        sink,
        if streamed {
            "text/event-stream"
        } else {
            "application/json"
        },
    )
}

/// Dialect, path and canonical body, told apart by bytes that occur in none of them.
fn key(dialect: &str, path: &str, canonical: &[u8]) -> Vec<u8> {
    [dialect.as_bytes(), b"\0", path.as_bytes(), b"\0", canonical].concat()
}
