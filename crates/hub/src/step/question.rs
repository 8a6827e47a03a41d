//! What a person is asked about a step, and how to answer.

use mainstay_core::step::Step;
use mainstay_core::task::Reason;

use crate::caller::Caller;
use crate::tx::Tx;

pub(super) fn park_unknown(tx: &mut Tx<'_>, task: &str, step: &Step) {
    let n = step.n;
    let message = format!(
        "step {n} called {} and its outcome is unknown. Look whether it was done, then: mainstay task resume {task} --step {n} --as done[=JSON]|repeat|fail",
        step.name
    );
    tx.park(task, Reason::Question, Some(n), message);
}

/// For an agent whose call is of no task: there is nobody else to ask.
pub(super) fn unknown_text(name: &str) -> String {
    format!(
        "nobody knows whether {name} was done: the call broke after it was sent. Look before you call it again; inside a task a person would be asked"
    )
}

pub(super) fn question_text(tx: &Tx<'_>, caller: &Caller, n: u32) -> String {
    let name = tx
        .state
        .tasks
        .get(&caller.task)
        .and_then(|open| open.record.step(n))
        .map(|step| step.name.clone());
    format!(
        "step {n} calls {} but may be a second of a call that is done. Compare them, then: mainstay task resume {} --step {n} --as done[=JSON]|repeat|fail",
        name.unwrap_or_default(),
        caller.task
    )
}

pub(super) fn compared(tx: &Tx<'_>, caller: &Caller, done: u32, asked: u32) -> String {
    let step = tx
        .state
        .tasks
        .get(&caller.task)
        .and_then(|open| open.record.step(done));
    let when = step
        .map(|step| crate::view::rfc3339(step.intended_ms))
        .unwrap_or_default();
    format!("(done: step {done} at {when}; asked: step {asked})")
}
