//! Steps and how a request finds its step: the heart of replay.
//!
//! The k-th request of one match key takes the k-th step of that key by intent order. Order
//! across keys means nothing, so faithful parallel branches replay in any order. In doubt the
//! answer is repeated, never the effect. Pure: who asks, what connections live and what time it
//! is come in as arguments.

mod index;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::event::StepMark;
use crate::usage::{Cost, Usage};

pub use api::fleet::Effect;
pub use index::Index;

/// A 32-byte keyed digest. No unsalted digest of content ever stands in an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Lower-case hex.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_hex()[..8])
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.to_hex())
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = Digest;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("32 bytes or their hex")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Digest, E> {
                bytes
                    .try_into()
                    .map(Digest)
                    .map_err(|_| E::invalid_length(bytes.len(), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
                Digest::from_hex(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        // Both forms are self-describing; tagged enums buffer and forget which format it was.
        deserializer.deserialize_any(Either)
    }
}

/// What kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepKind {
    Model,
    Tool,
    /// A tool that runs inside the agent, declared through `MAINSTAY_STEP_URL`.
    Local,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepState {
    /// Sent by a hub that is alive.
    InFlight,
    Finished,
    Failed,
    /// Sent by a hub or over a connection that is gone.
    Unknown,
    /// A person gave leave to send it again.
    Released,
    /// Never sent; a live call held because it may be a second of something done.
    Held,
    /// A call to an agent whose task waits for a person. It is found again, not made again.
    Parked,
}

/// Where a recorded answer lies: the entry's sequence (payload `answer`), and its shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerRef {
    pub seq: u64,
    pub status: u16,
    pub content_type: String,
    /// A broken stream: reset, not ended.
    pub broken: bool,
    pub is_error: bool,
}

/// One journaled call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub n: u32,
    pub id: String,
    pub kind: StepKind,
    pub name: String,
    pub key: Digest,
    pub masked: Option<Digest>,
    pub effect: Effect,
    pub state: StepState,
    /// The attempt that first asked for it.
    pub attempt: u32,
    /// The attempt under which it was last sent; 0 when it never was.
    pub sent_in: u32,
    /// The hub incarnation that sent it last.
    pub incarnation: u64,
    pub proposed_by: Option<u32>,
    /// Entry that journaled the intent (payload `request`).
    pub intent_seq: u64,
    pub intended_ms: i64,
    pub ended_ms: Option<i64>,
    pub answer: Option<AnswerRef>,
    /// How often it was sent again with nobody knowing whether the first arrived.
    pub repeated: u32,
    pub usage: Usage,
    pub cost: Cost,
    pub model: Option<String>,
    pub marks: Vec<Digest>,
    pub proposals: Vec<Digest>,
    pub reserved_tokens: u64,
    pub reserved_micro_usd: u64,
    /// The attempt that `mark` speaks of; another attempt has no mark yet.
    pub mark_attempt: u32,
    pub mark: StepMark,
    /// It reached some attempt whole, once.
    pub ever_delivered: bool,
    /// The highest step number when this one failed: a later intent than that went past it.
    pub failed_frontier: u32,
}

impl Step {
    /// This attempt's mark; blank when the mark speaks of another attempt.
    #[must_use]
    pub fn mark_in(&self, attempt: u32) -> StepMark {
        if self.mark_attempt == attempt {
            self.mark
        } else {
            StepMark {
                n: self.n,
                ..StepMark::default()
            }
        }
    }
}

/// One request, as far as matching is concerned.
#[derive(Clone)]
pub struct Ask<'a> {
    pub attempt: u32,
    pub key: Digest,
    pub masked: Option<Digest>,
    /// The SDK says that this is a retry of its own.
    pub retry: bool,
    /// Has a live connection of this attempt waiting for it.
    pub live: &'a dyn Fn(u32) -> bool,
}

/// Which step a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The recorded answer, or a recorded failure that the agent already went past.
    Replay(u32),
    /// In flight: wait with the others.
    Join(u32),
    /// A definite failure: try again under the same step.
    Retry(u32),
    /// Nobody knows whether it arrived: by class.
    Unknown(u32),
    /// A person gave leave to send it.
    Released(u32),
    /// Waits for a person already.
    Held(u32),
    /// Its agent's task waited for a person: look at that task again.
    Parked(u32),
    /// None has this key: a new step.
    New,
}

/// Finds the step for a request; the module's text has the rules. The index has seen all steps.
#[must_use]
pub fn find(steps: &[Step], index: &Index, ask: &Ask<'_>) -> Match {
    // The exact body first; the masked one only if no step has it. A body without times has no
    // masked form; it can still equal another's masked form only if that one had times, so both
    // sides need one.
    let found = match (index.of_key(ask.key), ask.masked) {
        ([], Some(masked)) => index.of_masked(masked),
        (exact, _) => exact,
    };
    let candidates: Vec<&Step> = found
        .iter()
        .filter_map(|n| steps.get((*n as usize).checked_sub(1)?))
        .collect();

    let used = |step: &&&Step| step.mark_in(ask.attempt).used;
    let owed = |step: &&&Step| {
        let mark = step.mark_in(ask.attempt);
        mark.used && (!mark.delivered || retriable(steps, step))
    };
    let unattended = candidates
        .iter()
        .filter(owed)
        .find(|step| !(ask.live)(step.n));
    if let Some(step) = unattended {
        return serve(steps, step);
    }
    if ask.retry
        && let Some(step) = candidates.iter().find(owed)
    {
        return serve(steps, step);
    }
    match candidates.iter().find(|step| !used(step)) {
        Some(step) => serve(steps, step),
        None => Match::New,
    }
}

fn serve(steps: &[Step], step: &Step) -> Match {
    match step.state {
        StepState::InFlight => Match::Join(step.n),
        StepState::Finished => Match::Replay(step.n),
        StepState::Failed if retriable(steps, step) => Match::Retry(step.n),
        StepState::Failed => Match::Replay(step.n),
        StepState::Unknown => Match::Unknown(step.n),
        StepState::Released => Match::Released(step.n),
        StepState::Held => Match::Held(step.n),
        StepState::Parked => Match::Parked(step.n),
    }
}

/// A failed call is tried again under its step, unless the attempt that got the failure went on
/// to a later step: then the failure is part of history and is replayed.
fn retriable(steps: &[Step], failed: &Step) -> bool {
    failed.state == StepState::Failed
        && !steps.iter().any(|later| {
            // Steps intended before the failure arrived are parallel branches, not a going on.
            failed.ever_delivered
                && later.n > failed.failed_frontier
                && later.attempt == failed.sent_in
        })
}

/// What a request that contains earlier answers says about steps: each such answer's step and the
/// tool steps it proposed are used, and every step delivered before that step's intent is passed.
#[must_use]
pub fn implied_marks(steps: &[Step], attempt: u32, answers: &[Digest]) -> Vec<StepMark> {
    if answers.is_empty() {
        return Vec::new();
    }
    let answers: HashSet<&Digest> = answers.iter().collect();
    let contained = |step: &Step| step.marks.iter().any(|mark| answers.contains(mark));
    let mut newest = None;
    let mut changed: Vec<StepMark> = Vec::new();
    for step in steps
        .iter()
        .filter(|step| step.state == StepState::Finished)
    {
        let own = contained(step);
        let proposed = step.proposed_by.is_some_and(|n| {
            let model = (n as usize).checked_sub(1).and_then(|at| steps.get(at));
            model.is_some_and(contained)
        });
        if own {
            newest = newest.max(Some(step.n));
        }
        let mark = step.mark_in(attempt);
        if (own || proposed) && !(mark.used && mark.delivered) {
            let replayed = mark.replayed || step.sent_in < attempt;
            changed.push(StepMark {
                used: true,
                delivered: true,
                replayed,
                ..mark
            });
        }
    }
    let Some(newest) = newest else { return changed };
    let known: HashSet<u32> = changed.iter().map(|mark| mark.n).collect();
    for step in steps
        .iter()
        .filter(|step| step.n < newest && step.ever_delivered)
    {
        let mark = step.mark_in(attempt);
        if !mark.used && !mark.passed && !known.contains(&step.n) {
            changed.push(StepMark {
                passed: true,
                ..mark
            });
        }
    }
    changed
}

/// The first finished step of an earlier attempt that this attempt neither used nor passed.
#[must_use]
pub fn diverged_at(steps: &[Step], attempt: u32) -> Option<u32> {
    steps
        .iter()
        .filter(|step| step.state == StepState::Finished && step.attempt < attempt)
        .find(|step| {
            let mark = step.mark_in(attempt);
            !mark.used && !mark.passed
        })
        .map(|step| step.n)
}

/// The step that proposed a tool call of this key and isn't yet linked to one, newest first.
#[must_use]
pub fn proposer(steps: &[Step], key: Digest) -> Option<u32> {
    steps
        .iter()
        .rev()
        .filter(|model| model.kind == StepKind::Model && model.state == StepState::Finished)
        .find(|model| {
            let proposed = model
                .proposals
                .iter()
                .filter(|proposal| **proposal == key)
                .count();
            if proposed == 0 {
                return false;
            }
            let linked = steps
                .iter()
                .filter(|step| step.proposed_by == Some(model.n) && step.key == key)
                .count();
            proposed > linked
        })
        .map(|model| model.n)
}

/// A live call to a non-pure tool must be held when no replayed answer proposed it and a finished
/// call to the same tool is neither used nor passed: it may be that call, worded differently.
#[must_use]
pub fn suspicious(
    steps: &[Step],
    attempt: u32,
    name: &str,
    effect: Effect,
    proposed_by: Option<u32>,
) -> Option<u32> {
    if effect == Effect::Pure {
        return None;
    }
    let by_replay = proposed_by
        .and_then(|n| steps.iter().find(|step| step.n == n))
        .is_some_and(|model| model.mark_in(attempt).replayed);
    if by_replay {
        return None;
    }
    steps
        .iter()
        .filter(|step| step.kind != StepKind::Model && step.name == name && step.attempt < attempt)
        .filter(|step| step.state == StepState::Finished)
        .find(|step| {
            let mark = step.mark_in(attempt);
            !mark.used && !mark.passed
        })
        .map(|step| step.n)
}

#[cfg(test)]
mod tests;
