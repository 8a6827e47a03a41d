//! Errors of providers, read from any dialect and written in any other.
//! A provider's words are bounded and stripped of anything that looks like a key before an agent sees them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::dialect::Dialect;

/// The most of a provider's message that is kept.
const MESSAGE_LIMIT_BYTES: usize = 2048;

/// Why an upstream answer with status 200 could not be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UpstreamError {
    #[error("the provider's answer is not readable: {0}")]
    Unreadable(String),
    /// The terminal event never came.
    #[error("the provider's answer ended before it was complete")]
    Incomplete,
    #[error("the provider's answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    /// The provider reported an error inside its answer.
    #[error("the provider reported: {}", .0.message)]
    Reported(ProviderError),
}

/// An error that a provider reported.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderError {
    pub kind: ErrorKind,
    /// The HTTP status, or the one that the reported error stands for.
    pub status: u16,
    pub message: String,
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    RateLimited,
    /// Money or quota is used up: trying again won't help.
    Quota,
    Overloaded,
    Auth,
    BadRequest,
    NotFound,
    ContextLength,
    TooLarge,
    Timeout,
    Server,
}

impl ErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::RateLimited => "rate_limited",
            ErrorKind::Quota => "quota",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Auth => "auth",
            ErrorKind::BadRequest => "bad_request",
            ErrorKind::NotFound => "not_found",
            ErrorKind::ContextLength => "context_length",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Server => "server",
        }
    }

    /// The same call to the same provider may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorKind::RateLimited | ErrorKind::Overloaded | ErrorKind::Timeout | ErrorKind::Server
        )
    }
}

/// Reads an answer whose status is not 2xx. `retry_after` is the header's value (seconds; a date is ignored).
pub fn parse_error(
    provider: Dialect,
    status: u16,
    body: &[u8],
    retry_after: Option<&str>,
) -> ProviderError {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let mut error = match parsed
        .as_ref()
        .and_then(|body| reported(provider, status, body))
    {
        Some(error) => error,
        None => unstructured(status, body),
    };
    error.retry_after = retry_after.and_then(seconds);
    error
}

/// Reads the error object that a body or a stream event carries, if there is one. `status` 200 is replaced by the
/// status that the error's type stands for.
pub(crate) fn reported(provider: Dialect, status: u16, body: &Value) -> Option<ProviderError> {
    let error = match body.get("error") {
        Some(error) if !error.is_null() => error,
        // The Responses stream's own error event carries its fields at the top.
        _ if body.get("type").and_then(Value::as_str) == Some("error") => body,
        // Some compatible servers answer `{"detail": …}` or `{"message": …}`.
        _ if status >= 400 => body,
        _ => return None,
    };
    let text = |field: &str| error.get(field).and_then(Value::as_str);
    let message = text("message")
        .or_else(|| error.as_str())
        .or_else(|| text("detail"))
        .unwrap_or("the provider gave no message");
    let code = text("code").unwrap_or_default();
    let kind_name = text("type").unwrap_or_default();
    let numeric = error.get("code").and_then(Value::as_u64);
    let kind = classify(provider, status, kind_name, code, numeric, message);
    Some(ProviderError {
        kind,
        status: if status < 400 {
            status_of(kind)
        } else {
            status
        },
        message: clean(message),
        retry_after: None,
    })
}

fn unstructured(status: u16, body: &[u8]) -> ProviderError {
    let text = String::from_utf8_lossy(&body[..body.len().min(MESSAGE_LIMIT_BYTES)]);
    let text = text.trim();
    let message = if text.is_empty() {
        format!("the provider answered {status} without a body")
    } else if text.starts_with('<') {
        format!("the provider answered {status} with a page instead of JSON")
    } else {
        clean(text)
    };
    ProviderError {
        kind: kind_of_status(status),
        status,
        message,
        retry_after: None,
    }
}

fn classify(
    provider: Dialect,
    status: u16,
    kind_name: &str,
    code: &str,
    numeric_code: Option<u64>,
    message: &str,
) -> ErrorKind {
    if is_context_length(provider, code, message) {
        return ErrorKind::ContextLength;
    }
    if [kind_name, code].iter().any(|name| {
        matches!(
            *name,
            "insufficient_quota" | "billing_error" | "billing_hard_limit_reached"
        )
    }) {
        return ErrorKind::Quota;
    }
    let by_name = [kind_name, code].into_iter().find_map(|name| match name {
        "rate_limit_error" | "rate_limit_exceeded" => Some(ErrorKind::RateLimited),
        "overloaded_error" | "server_overloaded" | "slow_down" => Some(ErrorKind::Overloaded),
        "authentication_error" | "permission_error" | "invalid_api_key" => Some(ErrorKind::Auth),
        "not_found_error" | "model_not_found" => Some(ErrorKind::NotFound),
        "request_too_large" => Some(ErrorKind::TooLarge),
        "timeout_error" => Some(ErrorKind::Timeout),
        _ => None,
    });
    if let Some(kind) = by_name {
        return kind;
    }
    if status >= 400 {
        return kind_of_status(status);
    }
    // Inside a 200 answer only names and, with some servers, a numeric code are left.
    match (kind_name, numeric_code) {
        (_, Some(code @ 400..=599)) => kind_of_status(u16::try_from(code).unwrap_or(500)),
        ("invalid_request_error", _) => ErrorKind::BadRequest,
        _ if code == "invalid_prompt" => ErrorKind::BadRequest,
        _ => ErrorKind::Server,
    }
}

fn is_context_length(provider: Dialect, code: &str, message: &str) -> bool {
    code == "context_length_exceeded"
        || match provider {
            Dialect::Anthropic => {
                message.starts_with("prompt is too long")
                    || message.contains("exceed context limit")
            }
            // Compatible servers (vLLM, llama.cpp) say it in words only.
            _ => {
                message.contains("maximum context length")
                    || message.contains("exceeds the available context size")
            }
        }
}

fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Auth,
        402 => ErrorKind::Quota,
        404 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::Timeout,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::RateLimited,
        503 | 529 => ErrorKind::Overloaded,
        // A conflict or a lock passes: the SDKs retry 409 too.
        409 => ErrorKind::Server,
        400..=499 => ErrorKind::BadRequest,
        _ => ErrorKind::Server,
    }
}

fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::RateLimited => 429,
        ErrorKind::Quota => 402,
        ErrorKind::Overloaded => 529,
        ErrorKind::Auth => 401,
        ErrorKind::BadRequest | ErrorKind::ContextLength => 400,
        ErrorKind::NotFound => 404,
        ErrorKind::TooLarge => 413,
        ErrorKind::Timeout => 504,
        ErrorKind::Server => 500,
    }
}

/// A client that obeys sleeps for as long, with its task leased.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

fn seconds(header: &str) -> Option<Duration> {
    let seconds: f64 = header.trim().parse().ok()?;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    Some(wait.min(LONGEST_WAIT))
}

/// Bounds a message, drops control characters, and blanks words that look like keys: a provider's 401 quotes part of
/// the key that the agent must never see.
pub(crate) fn clean(message: &str) -> String {
    let mut cleaned = String::new();
    for word in message.split_inclusive(char::is_whitespace) {
        let bare = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        if bare.starts_with("sk-") || bare.starts_with("sk_") {
            cleaned.push_str("[key] ");
        } else {
            cleaned.extend(word.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
        if cleaned.len() > MESSAGE_LIMIT_BYTES {
            break;
        }
    }
    let mut end = cleaned.len().min(MESSAGE_LIMIT_BYTES);
    while !cleaned.is_char_boundary(end) {
        end -= 1;
    }
    cleaned.truncate(end);
    cleaned.trim_end().to_owned()
}

/// An error body in the agent's own dialect. `code` is ours, stable, for programs.
pub fn render_error(agent: Dialect, status: u16, code: &str, message: &str) -> Value {
    match agent {
        Dialect::OpenAiChat | Dialect::OpenAiResponses => json!({
            "error": {"message": message, "type": openai_type(status), "param": null, "code": code}
        }),
        Dialect::Anthropic => json!({
            "type": "error",
            "error": {
                "type": anthropic_type(status),
                "message": message,
                "details": {"error_code": code},
            },
            "request_id": null,
        }),
    }
}

/// The error body of a refusal, with the field at fault where the dialect has a place for it. Goes with status 400.
pub fn render_refusal(agent: Dialect, code: &str, refusal: &crate::Refusal) -> Value {
    let mut body = render_error(agent, 400, code, &refusal.to_string());
    if agent != Dialect::Anthropic {
        body["error"]["param"] = Value::from(refusal.field.as_str());
    }
    body
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        429 => "rate_limit_error",
        403 => "permission_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}
