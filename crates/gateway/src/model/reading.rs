//! A provider's answer, read to its end: its pieces go on as they come, and what is no answer is
//! told apart. Everything is bounded, in bytes and in time.

use std::time::Duration;

use api::fleet::Provider;
use llm::{Dialect, Relay, UpstreamError};
use reqwest::header::RETRY_AFTER;
use tokio::time::Instant;

use super::feed::Sink;
use super::feed_of;
use super::outcome::{Answered, Failed, Reason};

/// A stream that says nothing for so long is taken for dead. Models that think send nothing for minutes.
const IDLE: Duration = Duration::from_secs(300);
/// After its last event a provider has so long to end the stream; then it counts as ended.
const TAIL: Duration = Duration::from_secs(2);
/// The most of an error answer that is read.
const ERROR_BYTES: usize = 64 * 1024;

pub(super) async fn send(
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

/// An answer on its way in.
pub(super) struct Reading {
    pub(super) response: reqwest::Response,
    pub(super) relay: Relay,
    pub(super) streamed: bool,
    /// When the provider's time is up.
    pub(super) deadline: Instant,
}

impl Reading {
    pub(super) async fn relay<S: Sink>(
        mut self,
        provider: &Provider,
        sink: &mut S,
    ) -> Result<Answered, Failed> {
        let mut feed = feed_of(sink, self.streamed);
        let mut patience = IDLE;
        let mut came = false;
        loop {
            let until = self.deadline.min(Instant::now() + patience);
            let chunk = match tokio::time::timeout_at(until, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Err(_) if until == self.deadline => return Err(self.timed_out(provider)),
                // Ended, broken off or silent: whether the answer is whole is for the relay to say.
                Ok(Ok(None) | Err(_)) | Err(_) => break,
            };
            came = true;
            let pieces = self
                .relay
                .push(&chunk)
                .map_err(|error| self.partial(&error))?;
            feed.take(pieces).map_err(too_large)?;
            if self.streamed && may_be_the_last(&chunk) && self.relay.outcome().stop.is_some() {
                patience = TAIL;
            }
        }
        if !came {
            let message = "the provider's answer is empty";
            return Err(Failed::of(Reason::Unreadable, 502, message));
        }
        let pieces = self.relay.finish().map_err(|error| self.partial(&error))?;
        feed.take(pieces)
            .and_then(|()| feed.complete())
            .map_err(too_large)?;
        Ok(Answered::of(&self.relay.outcome()))
    }

    fn partial(&self, error: &UpstreamError) -> Failed {
        self.paid(Failed::upstream(error))
    }

    fn timed_out(&self, provider: &Provider) -> Failed {
        self.paid(Failed::timed_out(provider))
    }

    /// What came of a broken answer is paid for.
    fn paid(&self, failed: Failed) -> Failed {
        let usage = self.relay.outcome().usage;
        let usage = (usage.output_tokens > 0).then(|| Box::new(usage));
        Failed { usage, ..failed }
    }
}

/// A cheap look before the costly one.
fn may_be_the_last(chunk: &[u8]) -> bool {
    let tail = &chunk[chunk.len().saturating_sub(4096)..];
    let has = |word: &[u8]| tail.windows(word.len()).any(|window| window == word);
    has(b"[DONE]") || has(b"message_stop") || has(b"response.completed")
}

pub(super) fn too_large(error: hub::answer::TooLarge) -> Failed {
    Failed::of(Reason::Unreadable, 502, format!("the provider's {error}"))
}

pub(super) async fn read_whole(mut response: reqwest::Response) -> Result<Vec<u8>, Failed> {
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
