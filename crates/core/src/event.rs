//! What the log of a workspace records: facts in the past tense, without content.
//!
//! Content (inputs, answers, error texts) travels as payloads beside an event, so that it can be
//! erased while every proof stands. Variants are never changed once released; a new shape is a
//! new variant or a new version, and the code that applies an old one is kept for ever.

use serde::{Deserialize, Serialize};

use crate::step::{Digest, Effect, StepKind};
use crate::task::{Exit, Parent, Reason, ResumeAs};
use crate::usage::{Cost, Usage};

/// A fact about one task. The task's id is the entry's subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Event {
    /// Payloads: `input` (JSON), `key` (the task's random 32 bytes).
    #[serde(rename_all = "camelCase")]
    TaskSubmitted {
        agent: String,
        session: String,
        deadline_ms: Option<i64>,
        parent: Option<Parent>,
        idempotency: Option<Digest>,
        ambient: bool,
    },
    /// A process took the task. The first attempt of a task (or of a retry) pins `generation`.
    #[serde(rename_all = "camelCase")]
    AttemptStarted {
        attempt: u32,
        instance: String,
        generation: u64,
    },
    /// Payload: `stderr` when there is some.
    #[serde(rename_all = "camelCase")]
    AttemptEnded {
        attempt: u32,
        exit: Exit,
    },
    /// Journaled before the call leaves. Payloads: `request`, and a `blob:<mac>` per new message.
    #[serde(rename_all = "camelCase")]
    StepIntended {
        n: u32,
        id: String,
        kind: StepKind,
        name: String,
        key: Digest,
        masked: Option<Digest>,
        effect: Effect,
        attempt: u32,
        incarnation: u64,
        proposed_by: Option<u32>,
        reserved_tokens: u64,
        reserved_micro_usd: u64,
    },
    /// Sent again under the same step. `doubtful`: nobody can know whether the first arrived.
    #[serde(rename_all = "camelCase")]
    StepRepeated {
        n: u32,
        attempt: u32,
        incarnation: u64,
        doubtful: bool,
    },
    /// Payload: `answer`.
    #[serde(rename_all = "camelCase")]
    StepFinished {
        n: u32,
        status: u16,
        content_type: String,
        usage: Usage,
        cost: Cost,
        model: Option<String>,
        marks: Vec<Digest>,
        proposals: Vec<Digest>,
        is_error: bool,
        /// The attempt that will be the first to get it, for the restart policy.
        attempt: u32,
    },
    /// A definite failure, or a stream that broke off. Payload: `answer`, if there is a body.
    #[serde(rename_all = "camelCase")]
    StepFailed {
        n: u32,
        status: u16,
        content_type: String,
        broken: bool,
        usage: Usage,
        cost: Cost,
    },
    /// The hub that sent it is gone, or the connection broke after it was sent.
    StepUnknown {
        n: u32,
    },
    /// Not sent: it may be a second of something done, and waits for a person.
    StepHeld {
        n: u32,
    },
    /// An agent was called whose `task` waits for a person. The call is no longer being made: who
    /// asks next finds that task again.
    #[serde(rename_all = "camelCase")]
    StepParked {
        n: u32,
        task: String,
    },
    /// Rides with the next commit: what the attempt has been served, and what reached it whole.
    #[serde(rename_all = "camelCase")]
    StepsMarked {
        attempt: u32,
        marks: Vec<StepMark>,
    },
    /// The task waits for a person. `step` is the one asked about.
    #[serde(rename_all = "camelCase")]
    TaskParked {
        reason: Reason,
        step: Option<u32>,
        message: String,
    },
    /// A person decided about an unknown or held step. Payload: `answer` with `done`.
    #[serde(rename_all = "camelCase")]
    StepResolved {
        n: u32,
        how: ResumeAs,
        status: u16,
        content_type: String,
    },
    /// A parked task goes on.
    TaskResumed,
    /// Tried again as a whole under today's generation; finished steps stay.
    TaskRetried,
    /// Payload: `output`.
    #[serde(rename_all = "camelCase")]
    TaskCompleted {
        content_type: String,
        diverged_at: Option<u32>,
    },
    #[serde(rename_all = "camelCase")]
    TaskFailed {
        code: String,
        message: String,
        diverged_at: Option<u32>,
    },
    TaskCanceled,
    /// The agent asked for something it may not have.
    #[serde(rename_all = "camelCase")]
    CallRefused {
        attempt: u32,
        code: String,
        message: String,
    },
    /// Passed beside the task without changing it (fenced answers, facts of dead shims).
    #[serde(rename_all = "camelCase")]
    Noted {
        attempt: u32,
        what: String,
    },
    /// Its session was exported: it goes on elsewhere, and here only once it was imported back.
    #[serde(rename_all = "camelCase")]
    TaskMoved {
        /// Entries about the task before this one. An export without one of them is not whole.
        entries: u64,
    },
    /// Every entry of the task up to here came out of another log, or of this one that it had
    /// moved from: with the times of then and as they stood there.
    #[serde(rename_all = "camelCase")]
    TaskImported {
        /// Origin of that log, and the signed head, as text, that each entry was proven against.
        origin: String,
        head: String,
        /// Sequence there of the task's last entry, a [`Event::TaskMoved`].
        seq: u64,
        /// The task that called it came with it: its step finds it by `Parent::step`, as its id was
        /// derived with a key that stayed there.
        called: bool,
    },
}

/// How far a step got in the current attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepMark {
    pub n: u32,
    pub used: bool,
    pub delivered: bool,
    pub passed: bool,
    /// Served from the journal rather than by a call of this attempt.
    pub replayed: bool,
}

/// An event with its content: what a command's decision hands to the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub event: Event,
    pub payloads: Vec<Payload>,
}

/// Content beside an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl From<Event> for Recorded {
    fn from(event: Event) -> Self {
        Self {
            event,
            payloads: Vec::new(),
        }
    }
}

impl Event {
    /// The entry's kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TaskSubmitted { .. } => "task.submitted",
            Self::AttemptStarted { .. } => "attempt.started",
            Self::AttemptEnded { .. } => "attempt.ended",
            Self::StepIntended { .. } => "step.intended",
            Self::StepRepeated { .. } => "step.repeated",
            Self::StepFinished { .. } => "step.finished",
            Self::StepFailed { .. } => "step.failed",
            Self::StepUnknown { .. } => "step.unknown",
            Self::StepHeld { .. } => "step.held",
            Self::StepParked { .. } => "step.parked",
            Self::StepsMarked { .. } => "steps.marked",
            Self::TaskParked { .. } => "task.parked",
            Self::StepResolved { .. } => "step.resolved",
            Self::TaskResumed => "task.resumed",
            Self::TaskRetried => "task.retried",
            Self::TaskCompleted { .. } => "task.completed",
            Self::TaskFailed { .. } => "task.failed",
            Self::TaskCanceled => "task.canceled",
            Self::CallRefused { .. } => "call.refused",
            Self::Noted { .. } => "task.noted",
            Self::TaskMoved { .. } => "task.moved",
            Self::TaskImported { .. } => "task.imported",
        }
    }

    /// With one payload.
    #[must_use]
    pub fn with(self, name: &str, bytes: Vec<u8>) -> Recorded {
        Recorded {
            event: self,
            payloads: vec![Payload {
                name: name.to_owned(),
                bytes,
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_cbor_and_json() {
        let event = Event::StepIntended {
            n: 1,
            id: "id".into(),
            kind: StepKind::Model,
            name: "gpt".into(),
            key: Digest([7; 32]),
            masked: Some(Digest([8; 32])),
            effect: Effect::Pure,
            attempt: 1,
            incarnation: 3,
            proposed_by: None,
            reserved_tokens: 5,
            reserved_micro_usd: 6,
        };
        let mut bytes = Vec::new();
        ciborium::into_writer(&event, &mut bytes).unwrap();
        assert_eq!(
            ciborium::from_reader::<Event, _>(bytes.as_slice()).unwrap(),
            event
        );
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
