//! How an attempt at a model call ends: with an answer, or with a failure in words that decide
//! what comes next. Which failures are tried again, and which by the next model, is read off here;
//! `retry` adds only how often and how soon.

use std::fmt;
use std::time::Duration;

use api::fleet::{ModelRef, Provider};
use llm::{ErrorKind, UpstreamError};

use super::settle;

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

    pub(super) fn timed_out(provider: &Provider) -> Self {
        let time_out = Duration::from_millis(provider.limits.timeout_ms);
        let message = format!(
            "provider {} did not finish within {} s",
            provider.name,
            time_out.as_secs_f32()
        );
        Self::of(Reason::TimedOut, 504, message)
    }

    /// The same with the provider's name: an agent may have several, and `llm` knows none of them.
    pub(super) fn said_of(mut self, provider: &str) -> Self {
        if let Some(rest) = self.message.strip_prefix("the provider") {
            self.message = format!("provider {provider}{rest}");
        }
        self
    }

    pub(super) fn nobody() -> Self {
        Self::of(Reason::Connection, 502, "no model can serve this call")
    }

    pub(super) fn upstream(error: &UpstreamError) -> Self {
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

impl Failed {
    /// The server has no such path (as opposed to no such model, which it says in its own words).
    pub(super) fn is_no_such_route(&self) -> bool {
        matches!(self.status, 404 | 405 | 501)
    }
}
