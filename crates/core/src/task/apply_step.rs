//! How events change a task's steps, and what a step's end means for its task.

use super::{ResumeAs, TaskRecord};
use crate::event::Event;
use crate::step::{AnswerRef, Step, StepKind, StepState};
use crate::usage::{Cost, Usage};

/// Applies an event of a step.
pub(super) fn apply_step(record: &mut TaskRecord, seq: u64, at_ms: i64, event: &Event) {
    match event {
        Event::StepIntended { .. } => step_intended(record, seq, at_ms, event),
        Event::StepRepeated {
            n,
            attempt,
            incarnation,
            doubtful,
        } => {
            if *doubtful {
                record.task.repeated += 1;
            }
            if let Some(step) = step_mut(record, *n) {
                step.state = StepState::InFlight;
                step.sent_in = *attempt;
                step.incarnation = *incarnation;
                step.repeated += u32::from(*doubtful);
            }
        }
        Event::StepFinished { .. } => step_finished(record, seq, at_ms, event),
        Event::StepFailed {
            n,
            status,
            content_type,
            broken,
            usage,
            cost,
        } => {
            record.task.usage.add(usage);
            record.task.cost.add(cost);
            let frontier = record.steps.last().map_or(0, |step| step.n);
            let model = record.step(*n).filter(|step| step.kind == StepKind::Model);
            let model_in = model.map(|step| step.sent_in);
            if model_in.is_some() && (*broken || *status >= 500 || *status == 429) {
                // The provider's failure, not the agent's: its exit after this is no crash.
                record.task.cut_off = model_in;
                record.task.provider_failed = model_in;
            }
            if let Some(step) = step_mut(record, *n) {
                step.state = StepState::Failed;
                step.ended_ms = Some(at_ms);
                step.failed_frontier = frontier;
                step.usage.add(usage);
                step.cost.add(cost);
                step.answer = Some(AnswerRef {
                    seq,
                    status: *status,
                    content_type: content_type.clone(),
                    broken: *broken,
                    is_error: true,
                });
            }
        }
        Event::StepUnknown { n } => {
            let attempt = record.task.attempt;
            record.task.cut_off = Some(attempt);
            if let Some(step) = step_mut(record, *n) {
                step.state = StepState::Unknown;
            }
        }
        Event::StepHeld { n } => {
            if let Some(step) = step_mut(record, *n) {
                step.state = StepState::Held;
                // It was never sent, whatever comes.
                step.sent_in = 0;
            }
        }
        Event::StepParked { n, .. } => {
            if let Some(step) = step_mut(record, *n) {
                step.state = StepState::Parked;
            }
        }
        Event::StepsMarked { attempt, marks } => {
            for mark in marks {
                if let Some(step) = step_mut(record, mark.n) {
                    step.mark_attempt = *attempt;
                    step.mark = *mark;
                    step.ever_delivered |= mark.delivered;
                }
            }
        }
        Event::StepResolved {
            n,
            how,
            status,
            content_type,
        } => {
            if let Some(step) = step_mut(record, *n) {
                step.ended_ms = Some(at_ms);
                step.state = match how {
                    ResumeAs::Repeat => StepState::Released,
                    ResumeAs::Done | ResumeAs::Fail => StepState::Finished,
                };
                if *how != ResumeAs::Repeat {
                    step.answer = Some(AnswerRef {
                        seq,
                        status: *status,
                        content_type: content_type.clone(),
                        broken: false,
                        is_error: *how == ResumeAs::Fail,
                    });
                }
            }
        }
        _ => {}
    }
}

fn step_mut(record: &mut TaskRecord, n: u32) -> Option<&mut Step> {
    record.steps.get_mut((n as usize).checked_sub(1)?)
}

fn step_intended(record: &mut TaskRecord, seq: u64, at_ms: i64, event: &Event) {
    let Event::StepIntended {
        n,
        id,
        kind,
        name,
        key,
        masked,
        effect,
        attempt,
        incarnation,
        proposed_by,
        reserved_tokens,
        reserved_micro_usd,
    } = event
    else {
        return;
    };
    record.steps.push(Step {
        n: *n,
        id: id.clone(),
        kind: *kind,
        name: name.clone(),
        key: *key,
        masked: *masked,
        effect: *effect,
        state: StepState::InFlight,
        attempt: *attempt,
        sent_in: *attempt,
        incarnation: *incarnation,
        proposed_by: *proposed_by,
        intent_seq: seq,
        intended_ms: at_ms,
        ended_ms: None,
        answer: None,
        repeated: 0,
        usage: Usage::default(),
        cost: Cost::default(),
        model: None,
        marks: Vec::new(),
        proposals: Vec::new(),
        reserved_tokens: *reserved_tokens,
        reserved_micro_usd: *reserved_micro_usd,
        mark_attempt: *attempt,
        mark: crate::event::StepMark {
            n: *n,
            used: true,
            ..Default::default()
        },
        ever_delivered: false,
        failed_frontier: 0,
    });
}

fn step_finished(record: &mut TaskRecord, seq: u64, at_ms: i64, event: &Event) {
    let Event::StepFinished {
        n,
        status,
        content_type,
        usage,
        cost,
        model,
        marks,
        proposals,
        is_error,
        ..
    } = event
    else {
        return;
    };
    record.task.usage.add(usage);
    record.task.cost.add(cost);
    // Something was really done: the same end next time is no repetition of this one.
    record.task.fault_class = None;
    record.task.fault_repeats = 0;
    record.task.provider_cuts = 0;
    if let Some(step) = step_mut(record, *n) {
        step.state = StepState::Finished;
        step.ended_ms = Some(at_ms);
        step.usage.add(usage);
        step.cost.add(cost);
        step.model.clone_from(model);
        step.marks.clone_from(marks);
        step.proposals.clone_from(proposals);
        step.answer = Some(AnswerRef {
            seq,
            status: *status,
            content_type: content_type.clone(),
            broken: false,
            is_error: *is_error,
        });
    }
}
