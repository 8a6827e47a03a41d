//! What can go wrong, once, in the classes that every edge maps to its own codes.
//!
//! `code` is the stable machine word; the table in `ARCHITECTURE.md` gives its HTTP status, its
//! gateway status and its exit code. `status()` is the only place that knows the mapping.

/// A request that is not carried out; nothing was recorded for it unless the text says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HubError {
    pub code: Code,
    /// A sentence fragment that says what to do next, when there is something to do.
    pub message: String,
}

/// Stable error words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is wrong.
    Invalid,
    /// No such task, agent, session, step.
    NotFound,
    /// The token or peer may not do this.
    NotAllowed,
    /// No valid token.
    Unauthorized,
    /// Not in this state (cancel a completed task; idempotency key used for another request).
    Conflict,
    /// The agent's queue is full; `Retry-After`.
    QueueFull,
    /// A task's budget is used up.
    Budget,
    /// The attempt was fenced: a newer one holds the task.
    Fenced,
    /// The task is parked: it waits for a person.
    Parked,
    /// Too large.
    TooLarge,
    /// A provider or tool failed.
    Upstream,
    /// Disk reserve reached; results are still written, new intents are not.
    NoSpace,
    /// The hub is stopping or not ready.
    Unavailable,
    /// Ours.
    Internal,
}

impl Code {
    /// The HTTP status at the facade and, for refusals, at the gateway.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::NotAllowed => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::Fenced | Self::Parked => 409,
            Self::TooLarge => 413,
            Self::QueueFull | Self::Budget => 429,
            Self::Upstream => 502,
            Self::Unavailable => 503,
            Self::NoSpace => 507,
            Self::Internal => 500,
        }
    }

    /// The word itself, as it stands in problem documents and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::NotAllowed => "not_allowed",
            Self::Unauthorized => "unauthorized",
            Self::Conflict => "conflict",
            Self::QueueFull => "queue_full",
            Self::Budget => "budget",
            Self::Fenced => "fenced",
            Self::Parked => "parked",
            Self::TooLarge => "too_large",
            Self::Upstream => "upstream",
            Self::NoSpace => "no_space",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl HubError {
    /// An error of this code with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// What an agent gets at the gateway instead of an answer. All but `Unavailable` carry
/// `x-should-retry: false`: the same request would be refused again.
pub type Refusal = HubError;
