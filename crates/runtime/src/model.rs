//! The conversation with the model and one call of it, streamed and collected.
//!
//! The body of a request is a function of the conversation alone, byte for byte.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use llm::{
    Answer, Dialect, OutputFormat, Relay, RelayOptions, Request, Sampling, Thinking, Tool, Turn,
    UpstreamError,
};

use crate::assignment::{Assignment, Speech};
use crate::door::{Doors, Tries, Trouble, broken, send};
use crate::failure::Failure;

const ANTHROPIC_VERSION: &str = "2023-06-01";

/// All that was said so far.
#[derive(Debug)]
pub(crate) struct Conversation {
    request: Request,
}

impl Conversation {
    pub(crate) fn new(assignment: &Assignment, tools: Vec<Tool>) -> Result<Self, Failure> {
        let request = Request {
            dialect: dialect(assignment.dialect),
            model: assignment.model.clone(),
            stream: true,
            include_usage: true,
            turns: assignment.turns()?,
            tools,
            tool_choice: None,
            parallel_tools: None,
            max_output_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            format: OutputFormat::Text,
            thinking: Thinking::default(),
            choices: 1,
            native_only: Vec::new(),
            estimated_input_tokens: 0,
        };
        Ok(Self { request })
    }

    pub(crate) fn push(&mut self, turn: Turn) {
        self.request.turns.push(turn);
    }

    fn body(&self) -> Result<Bytes, Failure> {
        let body = llm::render_request(&self.request, self.request.dialect, &self.request.model)?;
        Ok(Bytes::from(body.to_string()))
    }

    /// Asks until a whole answer has come.
    pub(crate) async fn ask(&self, doors: &Doors) -> Result<Answer, Failure> {
        let body = self.body()?;
        let mut tries = Tries::new(format!("model {}", self.request.model));
        loop {
            match once(doors, &self.request, body.clone(), tries.retries()).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => tries.after(trouble).await?,
            }
        }
    }
}

fn dialect(speech: Speech) -> Dialect {
    match speech {
        Speech::Openai => Dialect::OpenAiChat,
        Speech::Anthropic => Dialect::Anthropic,
    }
}

/// The token, as every gateway edge but Anthropic's takes it.
pub(crate) fn bearer(headers: &mut HeaderMap, token: &str) {
    if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
}

fn headers(doors: &Doors) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::ACCEPT,
        HeaderValue::from_static("text/event-stream"),
    );
    match doors.speech {
        Speech::Openai => bearer(&mut headers, &doors.token),
        Speech::Anthropic => {
            headers.insert(
                "anthropic-version",
                HeaderValue::from_static(ANTHROPIC_VERSION),
            );
            if let Ok(mut key) = HeaderValue::from_str(&doors.token) {
                key.set_sensitive(true);
                headers.insert("x-api-key", key);
            }
        }
    }
    headers
}

async fn once(
    doors: &Doors,
    request: &Request,
    body: Bytes,
    retries: u32,
) -> Result<Answer, Trouble> {
    let mut stream = send(&doors.models, &headers(doors), body, retries).await?;
    // Read on the side only: both ends speak one dialect, and no time is written.
    let options = RelayOptions::at(0);
    let mut relay = Relay::new(
        request.dialect,
        request.dialect,
        true,
        request,
        &request.model,
        options,
    );
    while let Some(data) = stream.next().await? {
        relay.push(&data).map_err(unusable)?;
    }
    relay.finish().map_err(unusable)?;
    Ok(relay.answer().clone())
}

/// An answer that began well and can't be used: the gateway tries it again under the same step.
fn unusable(error: UpstreamError) -> Trouble {
    match error {
        UpstreamError::Reported(error) => {
            let after = error.retry_after;
            Trouble::Busy {
                status: error.status,
                message: error.message,
                after,
            }
        }
        other => broken(&other),
    }
}
