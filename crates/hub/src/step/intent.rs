//! A call that no step answers: checked, reserved and journaled before it leaves.

use api::fleet::OnDivergence;
use mainstay_core::budget::Limits;
use mainstay_core::event::{Event, Payload, Recorded};
use mainstay_core::step::{self, StepKind};
use mainstay_core::task::Reason;
use mainstay_core::usage::Cost;

use super::Occasion;
use super::ask::Keyed;
use super::begin::{Decision, fenced, run};
use super::question::{compared, question_text};
use crate::caller::Caller;
use crate::stream::FrameKind;
use crate::tx::Tx;
use crate::{Code, Hub, HubError};

pub(super) fn new_step(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    ask: &Keyed,
    last: bool,
) -> Result<Decision, HubError> {
    let (suspicious, proposed_by) = {
        let open = fenced(tx, caller)?;
        let steps = &open.record.steps;
        let proposed_by = (ask.ask.kind == StepKind::Tool)
            .then(|| step::proposer(steps, ask.key))
            .flatten();
        let watch =
            caller.agent.on_divergence == OnDivergence::Ask && ask.ask.kind != StepKind::Model;
        let suspicious = watch
            .then(|| {
                step::suspicious(
                    steps,
                    caller.attempt,
                    &ask.ask.name,
                    ask.ask.effect,
                    proposed_by,
                )
            })
            .flatten();
        (suspicious, proposed_by)
    };
    if suspicious.is_some() && !last {
        return Ok(Decision::Hold);
    }
    refuse_if_over(tx, caller, ask)?;
    let open = fenced(tx, caller)?;
    let n = u32::try_from(open.record.steps.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    let occurrence = open.index.of_key(ask.key).len();
    // Derived from (task, tool, arguments, occurrence): the same call gets the same id in every life.
    let id = tx.shared.keys.derived_id(&[
        b"step",
        caller.task.as_bytes(),
        &ask.key.0,
        &u64::try_from(occurrence).unwrap_or_default().to_be_bytes(),
    ]);
    let event = Event::StepIntended {
        n,
        id,
        kind: ask.ask.kind,
        name: ask.ask.name.clone(),
        key: ask.key,
        masked: ask.masked,
        effect: ask.ask.effect,
        attempt: caller.attempt,
        incarnation: tx.state.incarnation,
        proposed_by,
        reserved_tokens: ask.ask.reserve.tokens,
        reserved_micro_usd: Cost::from_usd(ask.ask.reserve.usd).micro_usd,
    };
    let recorded = with_request(tx, caller, ask, event);
    tx.emit(&caller.task, "agent", recorded);
    if ask.ask.kind != StepKind::Model {
        show_call(tx, caller, ask, n);
    }
    if let Some(other) = suspicious {
        tx.emit(&caller.task, "hub", Event::StepHeld { n });
        let text = format!(
            "{} {}",
            question_text(tx, caller, n),
            compared(tx, caller, other, n)
        );
        tx.park(&caller.task, Reason::Divergence, Some(n), text);
        return Err(HubError::new(
            Code::Parked,
            "the call may be a second of one that is done: the task waits for a person",
        ));
    }
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    run(tx, hub, caller, &step, Occasion::First)
}

pub(super) fn refuse_if_over(
    tx: &mut Tx<'_>,
    caller: &Caller,
    ask: &Keyed,
) -> Result<(), HubError> {
    if tx.low_space() {
        return Err(HubError::new(
            Code::NoSpace,
            "less than 64 MiB of disk are free: free some, then ask again",
        ));
    }
    let open = fenced(tx, caller)?;
    let budget = &caller.agent_today().budget;
    let limits = Limits {
        micro_usd: budget.usd.map(|usd| Cost::from_usd(Some(usd)).micro_usd),
        tokens: budget.tokens,
        steps: budget.steps,
        time_ms: budget.time_ms,
    };
    let reserve = mainstay_core::budget::Reserve {
        tokens: ask.ask.reserve.tokens,
        micro_usd: Cost::from_usd(ask.ask.reserve.usd).micro_usd,
    };
    let age_ms = open.age_ms(tx.boot_ms);
    let Some(message) = mainstay_core::budget::exceeded(&open.record, &limits, reserve, age_ms)
    else {
        return Ok(());
    };
    let event = Event::CallRefused {
        attempt: caller.attempt,
        code: "budget".into(),
        message: message.clone(),
    };
    tx.emit(&caller.task, "hub", event);
    Err(HubError::new(Code::Budget, message))
}

pub(super) fn with_request(
    tx: &mut Tx<'_>,
    caller: &Caller,
    ask: &Keyed,
    event: Event,
) -> Recorded {
    let mut recorded = event.with("request", ask.envelope.clone());
    if let Some(open) = tx.state.tasks.get_mut(&caller.task) {
        for (mac, message) in &ask.blobs {
            if open.blobs.insert(mac.0) {
                recorded.payloads.push(Payload {
                    name: store::blob_name(&mac.0),
                    bytes: message.clone(),
                });
            }
        }
    }
    recorded
}

pub(super) fn show_call(tx: &mut Tx<'_>, caller: &Caller, ask: &Keyed, n: u32) {
    let arguments = ask
        .ask
        .request
        .messages
        .first()
        .and_then(|bytes| serde_json::from_slice(bytes).ok());
    let frame = FrameKind::ToolCall {
        step: n,
        name: ask.ask.name.clone(),
        arguments: arguments.unwrap_or_default(),
    };
    tx.frame(&caller.task, frame);
}
