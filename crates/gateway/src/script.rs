//! The provider of type `script`: it plays a transcript instead of asking a model, and says so in
//! the model's name of every answer. `docs/reference/script.md` describes the format.
//!
//! Which rule answers depends on the conversation alone, so a replayed task gets what it got
//! before. No state is kept between calls.

mod conversation;
mod template;
pub mod transcript;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::fleet::Provider;
use llm::{AnswerHead, Dialect, Piece, Usage};
use serde_json::json;

use crate::clock;
use crate::model::outcome::{Answered, Failed, Reason};
use crate::model::{Candidate, ModelCall, Sink, feed_of};
use conversation::Conversation;
use transcript::{Reply, Transcript};

/// What is wrong with a transcript, as a fragment with its place.
pub fn check(text: &str) -> Result<(), String> {
    Transcript::parse(text).map(|_| ())
}

/// Parsed transcripts, by provider.
#[derive(Debug, Default)]
pub struct Transcripts {
    by_provider: Mutex<HashMap<String, (String, Arc<Transcript>)>>,
}

impl Transcripts {
    pub(crate) fn of(&self, provider: &Provider) -> Result<Arc<Transcript>, Failed> {
        let text = provider.script.as_deref().unwrap_or_default();
        let mut by_provider = self
            .by_provider
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known, transcript)) = by_provider.get(&provider.name)
            && known == text
        {
            return Ok(transcript.clone());
        }
        let transcript = Transcript::parse(text).map_err(|why| {
            Failed::of(
                Reason::Carry,
                400,
                format!(
                    "the transcript of provider {} is wrong: {why}",
                    provider.name
                ),
            )
        })?;
        let transcript = Arc::new(transcript);
        by_provider.insert(provider.name.clone(), (text.to_owned(), transcript.clone()));
        Ok(transcript)
    }
}

/// Answers a request from the transcript; `attempt` counts this call's attempts from 1.
pub(crate) async fn play<S: Sink>(
    transcript: &Transcript,
    call: &ModelCall,
    request: &llm::Request,
    candidate: &Candidate,
    attempt: u32,
    sink: &mut S,
) -> Result<Answered, Failed> {
    let conversation = Conversation::read(request, &candidate.model.model, attempt);
    let Some(reply) = transcript.answer(&conversation) else {
        let said = mcp::message::bounded(&conversation.input, 80);
        let message = format!(
            "no rule of the transcript of provider {} fits: turn {}, user said `{said}`",
            candidate.provider.name, conversation.turn
        );
        return Err(failed(request.dialect, 400, &message, None));
    };
    tokio::time::sleep(Duration::from_millis(reply.delay_ms)).await;
    if let Some(error) = &reply.error {
        return Err(failed(
            request.dialect,
            error.status,
            &error.message,
            error.retry_after,
        ));
    }
    let text = template::fill(&reply.text, &conversation);
    let calls = reply.calls(&conversation);
    let usage = Usage {
        input_tokens: call.estimated_input_tokens,
        output_tokens: written_bytes(&text, &calls).div_ceil(4),
        estimated: true,
        ..Usage::default()
    };
    let head = AnswerHead {
        id: format!("script-{:016x}", conversation.fingerprint),
        model: format!("script/{}", candidate.model.model),
        created_unix_s: clock::unix_s(),
        include_usage: request.include_usage,
    };
    let pieces = llm::scripted_answer(request.dialect, request.stream, &head, &text, &calls, usage);
    speak(reply, request.stream, pieces, sink).await?;
    let outcome = llm::Outcome {
        usage,
        stop: None,
        text,
        tool_calls: calls,
        model: head.model,
    };
    Ok(Answered::of(&outcome))
}

/// Sends the pieces at the transcript's pace, and breaks off where it says so.
async fn speak<S: Sink>(
    reply: &Reply,
    streamed: bool,
    pieces: Vec<Piece>,
    sink: &mut S,
) -> Result<(), Failed> {
    let too_large = |error: hub::answer::TooLarge| Failed::of(Reason::Unreadable, 502, error);
    let mut feed = feed_of(sink, streamed);
    for (index, piece) in pieces.into_iter().enumerate() {
        if reply.break_after.is_some_and(|after| index >= after) {
            return Err(Failed::of(
                Reason::Unreadable,
                502,
                "the transcript breaks off here",
            ));
        }
        if reply.pace_ms > 0 && streamed {
            tokio::time::sleep(Duration::from_millis(reply.pace_ms)).await;
        }
        feed.take(vec![piece]).map_err(too_large)?;
    }
    feed.complete().map_err(too_large)
}

fn written_bytes(text: &str, calls: &[llm::ToolCall]) -> u64 {
    let calls: usize = calls
        .iter()
        .map(|call| call.name.len() + call.arguments.len())
        .sum();
    (text.len() + calls) as u64
}

/// An error as a provider would have said it.
fn failed(dialect: Dialect, status: u16, message: &str, retry_after: Option<u32>) -> Failed {
    let body = json!({"error": {"message": message}}).to_string();
    let retry_after = retry_after.map(|seconds| seconds.to_string());
    Failed::provider(&llm::parse_error(
        dialect,
        status,
        body.as_bytes(),
        retry_after.as_deref(),
    ))
}
