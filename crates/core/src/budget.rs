//! Budgets of a task, checked where an intent is journaled: before the money is spent.
//!
//! What calls in flight may still cost is reserved with their intent, so parallel calls can't
//! pass a limit together. A call that is already journaled is never refused afterwards.

use std::time::Duration;

use crate::step::{Step, StepState};
use crate::task::{Task, TaskRecord};

/// Limits of one task; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    pub micro_usd: Option<u64>,
    pub tokens: Option<u64>,
    pub steps: Option<u64>,
    pub time_ms: Option<u64>,
}

/// What a new call would take at most, as far as one can tell before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    pub tokens: u64,
    pub micro_usd: u64,
}

/// Says so when a task that was submitted `age_ms` ago has used up its time. The time for which it
/// waited for a person is nobody's fault and doesn't count, nor does time pass while it does.
#[must_use]
pub fn time_is_up(task: &Task, limit_ms: Option<u64>, age_ms: u64) -> Option<String> {
    let limit_ms = limit_ms.filter(|_| !task.state.is_parked())?;
    (age_ms.saturating_sub(task.waited_ms) >= limit_ms).then(|| {
        format!(
            "the task's budget of {} seconds is used up",
            Duration::from_millis(limit_ms).as_secs_f64()
        )
    })
}

/// The limit that a call would pass, as a sentence for the agent's owner.
#[must_use]
pub fn exceeded(
    record: &TaskRecord,
    limits: &Limits,
    reserve: Reserve,
    age_ms: u64,
) -> Option<String> {
    let held = |reserved: fn(&Step) -> u64| {
        let in_flight = record
            .steps
            .iter()
            .filter(|step| step.state == StepState::InFlight);
        in_flight.map(reserved).fold(0, u64::saturating_add)
    };
    let task = &record.task;
    if let Some(limit) = limits.steps
        && record.steps.len() as u64 >= limit
    {
        return Some(format!("the task's budget of {limit} steps is used up"));
    }
    // With nothing in flight the estimate alone must not refuse the last affordable call: only
    // what is spent, and what others hold, counts against a call of unknown size.
    if let Some(limit) = limits.tokens {
        let spent = task
            .usage
            .total()
            .saturating_add(held(|step| step.reserved_tokens));
        if spent >= limit || spent.saturating_add(reserve.tokens) > limit {
            return Some(format!(
                "the task's budget of {limit} tokens would be passed: {spent} are spent or reserved and this call needs about {}",
                reserve.tokens
            ));
        }
    }
    if let Some(limit) = limits.micro_usd {
        let spent = task
            .cost
            .micro_usd
            .saturating_add(held(|step| step.reserved_micro_usd));
        if spent >= limit || spent.saturating_add(reserve.micro_usd) > limit {
            return Some(format!(
                "the task's budget of {} US dollars would be passed: {} are spent or reserved and this call may cost {}",
                dollars(limit),
                dollars(spent),
                dollars(reserve.micro_usd)
            ));
        }
    }
    time_is_up(task, limits.time_ms, age_ms)
}

#[allow(clippy::cast_precision_loss, reason = "for a person to read")]
fn dollars(micro_usd: u64) -> String {
    format!("{:.4}", micro_usd as f64 / 1e6)
}
