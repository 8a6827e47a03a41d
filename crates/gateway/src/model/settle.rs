//! How a model call's end is written down: tokens, money, and what later requests will show of it.

use api::fleet::Credential;
use bytes::Bytes;
use hub::step::{Failure, Settled};
use llm::{Mark, ToolCall};
use mainstay_core::usage::{Cost, Usage};
use serde_json::Value;

use super::failover::Served;
use super::outcome::Failed;
use super::{Candidate, ModelCall};
use crate::reply::error_body;
use crate::tools;

/// The text that stands for a mark; the hub digests it under the task's key.
pub(super) fn mark_text(mark: &Mark) -> String {
    String::from_utf8_lossy(&mark.to_bytes()).into_owned()
}

/// What a tool call's step will be matched by, if the agent makes the call.
pub(super) fn proposal(call: &ToolCall) -> Vec<u8> {
    let arguments = match call.arguments.trim() {
        "" => Ok(Value::Object(serde_json::Map::new())),
        text => serde_json::from_str(text),
    };
    tools::canonical(
        &call.name,
        &arguments.unwrap_or_else(|_| Value::String(call.arguments.clone())),
    )
}

pub(super) fn finished(served: &Served) -> Settled {
    let answered = &served.answered;
    Settled {
        usage: usage(answered.usage),
        cost: cost(&served.candidate, answered.usage),
        model: Some(served.candidate.model.to_string()),
        marks: answered.marks.clone(),
        proposals: answered.proposals.clone(),
        is_error: false,
    }
}

/// The failure in the agent's own dialect. A provider's message is bounded and cleaned by `llm`.
pub(super) fn failure(call: &ModelCall, failed: &Failed, has_left: bool) -> Failure {
    let body = error_body(
        call.wire.tongue(),
        failed.status,
        failed.code(),
        &failed.message,
    );
    let paid = failed.usage.as_deref().copied().unwrap_or_default();
    let candidate = call
        .candidates
        .iter()
        .find(|candidate| failed.model.as_deref() == Some(&candidate.model));
    Failure {
        status: failed.status,
        content_type: "application/json".into(),
        body: Bytes::from(body.to_string()),
        broken: has_left,
        usage: usage(paid),
        cost: match candidate {
            Some(candidate) if failed.usage.is_some() => cost(candidate, paid),
            _ => Cost::default(),
        },
        retry_after: failed.retry_after,
        credential: failed
            .is_credential()
            .then(|| replace_credential(candidate, &failed.message)),
    }
}

/// What a person reads of a credential that is refused or missing: whose, where it comes from, and
/// how it is replaced.
fn replace_credential(candidate: Option<&Candidate>, said: &str) -> String {
    let Some(candidate) = candidate else {
        return said.to_owned();
    };
    let provider = &candidate.provider;
    let (source, mend) = match &provider.credential {
        Some(Credential::SecretRef(secret)) => {
            let name = format!("{}/{}", secret.name, secret.key);
            let mend = format!("`mainstay secret set {name}`");
            (format!("secret {name}"), mend)
        }
        Some(Credential::Env { name }) => (
            format!("{name} of `mainstay up`'s environment"),
            format!("set {name} and start `mainstay up` again"),
        ),
        Some(Credential::File { path }) => (
            format!("file {path}"),
            "put another one into the file".to_owned(),
        ),
        None => (
            "no `spec.credential`".to_owned(),
            "write one into the provider's manifest".to_owned(),
        ),
    };
    format!(
        "provider {} takes no call with its credential ({source}): {said}; replace it: {mend}, then `mainstay task retry`",
        provider.name
    )
}

fn cost(candidate: &Candidate, usage: llm::Usage) -> Cost {
    Cost::from_usd(candidate.price.map(|price| price.cost_usd(usage)))
}

fn usage(usage: llm::Usage) -> Usage {
    Usage {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_read_tokens: usage.cache_read_tokens,
        cache_write_tokens: usage.cache_write_tokens,
        estimated: usage.estimated,
    }
}
