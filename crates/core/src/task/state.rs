//! A task's states and the reasons for them, with the words that clients see.

use serde::{Deserialize, Serialize};

/// A2A's task states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    Submitted,
    Working,
    InputRequired,
    AuthRequired,
    Completed,
    Failed,
    Canceled,
    Rejected,
}

impl TaskState {
    /// No event changes it but a retry.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Canceled | Self::Rejected
        )
    }

    /// Waits for a person.
    #[must_use]
    pub fn is_parked(self) -> bool {
        matches!(self, Self::InputRequired | Self::AuthRequired)
    }

    /// A2A's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::InputRequired => "input-required",
            Self::AuthRequired => "auth-required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Rejected => "rejected",
        }
    }
}

/// Why a task is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A step's outcome is unknown and only a person can say.
    Question,
    /// A live call may be a second of something done.
    Divergence,
    /// An agent that it called waits for a person; it goes on by itself when that one has ended.
    Parked,
    /// The Agent is gone, or a restore parked everything open.
    Interrupted,
    /// Its session was exported: it goes on where that is imported.
    Moved,
    /// Its session was imported: a person says when it goes on here.
    Imported,
    /// Two attempts in a row ended alike with nothing done between.
    Poison,
    /// Every credential was refused.
    Credential,
    /// A provider failed attempt after attempt.
    Provider,
    Budget,
    Deadline,
    /// Too many attempts ended by crashes of their own.
    Attempts,
    /// The agent said so (exit 78).
    Agent,
}

impl Reason {
    /// The word in a task's JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Divergence => "divergence",
            Self::Parked => "parked",
            Self::Interrupted => "interrupted",
            Self::Moved => "moved",
            Self::Imported => "imported",
            Self::Poison => "poison",
            Self::Credential => "credential",
            Self::Provider => "provider",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::Attempts => "attempts",
            Self::Agent => "agent",
        }
    }
}
