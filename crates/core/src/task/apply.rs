//! How events make a record and change it. Nothing else does: what an event says is taken as it
//! stands, so the same events give the same record in every hub.

use super::{Exit, Lease, Reason, Refused, Task, TaskRecord, TaskState, moving};
use crate::event::Event;
use crate::restart::Class;
use crate::usage::{Cost, Usage};

/// Makes the record of a submission. `None` if the event is another.
#[must_use]
pub fn create(id: &str, seq: u64, at_ms: i64, event: &Event) -> Option<TaskRecord> {
    let Event::TaskSubmitted {
        agent,
        session,
        deadline_ms,
        parent,
        ambient,
        ..
    } = event
    else {
        return None;
    };
    let task = Task {
        id: id.to_owned(),
        agent: agent.clone(),
        session: session.clone(),
        state: if *ambient {
            TaskState::Working
        } else {
            TaskState::Submitted
        },
        reason: None,
        error_code: None,
        error_message: None,
        asked_step: None,
        parent: parent.clone(),
        ambient: *ambient,
        deadline_ms: *deadline_ms,
        parked_ms: None,
        waited_ms: 0,
        created_ms: at_ms,
        updated_ms: at_ms,
        input_seq: seq,
        output_seq: None,
        output_type: None,
        generation: None,
        attempt: 0,
        lease: None,
        faults: 0,
        fault_class: None,
        fault_repeats: 0,
        last_instance: None,
        cut_off: None,
        provider_failed: None,
        provider_cuts: 0,
        last_exit: None,
        refused: None,
        diverged_at: None,
        repeated: 0,
        usage: Usage::default(),
        cost: Cost::default(),
        delivered: 0,
        replayed: 0,
        moved: None,
    };
    Some(TaskRecord {
        task,
        steps: Vec::new(),
    })
}

/// Applies one event: the only way a record changes. What the event says is taken as it stands, so
/// the same events give the same record after a restart.
pub fn apply(record: &mut TaskRecord, seq: u64, at_ms: i64, event: &Event) {
    record.task.updated_ms = at_ms;
    match event {
        Event::TaskSubmitted { .. } => {}
        Event::Noted { attempt, .. } => {
            let task = &mut record.task;
            if task.lease.is_none() && !task.state.is_terminal() {
                // A shim began it by itself: its number, and with it its token, is used up.
                task.attempt = task.attempt.max(*attempt);
            }
        }
        Event::CallRefused {
            attempt,
            code,
            message,
        } => {
            record.task.refused = Some(Refused {
                attempt: *attempt,
                code: code.clone(),
                message: message.clone(),
            });
        }
        Event::AttemptStarted {
            attempt,
            instance,
            generation,
        } => {
            let task = &mut record.task;
            task.state = TaskState::Working;
            task.reason = None;
            task.attempt = *attempt;
            task.last_instance = Some(instance.clone());
            task.generation.get_or_insert(*generation);
            task.lease = Some(Lease {
                attempt: *attempt,
                instance: instance.clone(),
                started_ms: at_ms,
            });
        }
        Event::AttemptEnded { attempt, exit } => attempt_ended(&mut record.task, *attempt, exit),
        Event::TaskParked {
            reason,
            step,
            message,
        } => parked(record, *reason, *step, message),
        Event::TaskResumed => {
            let task = &mut record.task;
            waited(task);
            task.state = TaskState::Working;
            task.reason = None;
            task.asked_step = None;
            task.error_code = None;
            task.error_message = None;
        }
        Event::TaskRetried => retried(&mut record.task),
        Event::TaskCompleted {
            content_type,
            diverged_at,
        } => {
            ended(record, TaskState::Completed, *diverged_at);
            record.task.output_seq = Some(seq);
            record.task.output_type = Some(content_type.clone());
        }
        Event::TaskFailed {
            code,
            message,
            diverged_at,
        } => {
            ended(record, TaskState::Failed, *diverged_at);
            record.task.error_code = Some(code.clone());
            record.task.error_message = Some(message.clone());
            record.task.reason = reason_of(code);
        }
        Event::TaskCanceled => ended(record, TaskState::Canceled, None),
        Event::TaskMoved { .. } => moving::moved(&mut record.task),
        Event::TaskImported { .. } => moving::imported(&mut record.task),
        Event::StepIntended { .. }
        | Event::StepRepeated { .. }
        | Event::StepFinished { .. }
        | Event::StepFailed { .. }
        | Event::StepUnknown { .. }
        | Event::StepHeld { .. }
        | Event::StepParked { .. }
        | Event::StepsMarked { .. }
        | Event::StepResolved { .. } => super::apply_step::apply_step(record, seq, at_ms, event),
    }
}

fn reason_of(code: &str) -> Option<Reason> {
    match code {
        "budget" => Some(Reason::Budget),
        "deadline" => Some(Reason::Deadline),
        "attempts" => Some(Reason::Attempts),
        "agent" => Some(Reason::Agent),
        _ => None,
    }
}

fn attempt_ended(task: &mut Task, attempt: u32, exit: &Exit) {
    if task
        .lease
        .as_ref()
        .is_some_and(|lease| lease.attempt == attempt)
    {
        task.lease = None;
    }
    task.last_exit = Some(exit.clone());
    if exit.class == Class::CutOff && task.provider_failed == Some(attempt) {
        task.provider_cuts += 1;
    }
    if exit.class.counted() {
        task.faults += 1;
        task.fault_repeats = if task.fault_class == Some(exit.class) {
            task.fault_repeats + 1
        } else {
            1
        };
        task.fault_class = Some(exit.class);
    } else if !matches!(exit.class, Class::KilledFromOutside | Class::CutOff) {
        task.fault_class = None;
        task.fault_repeats = 0;
    }
}

fn parked(record: &mut TaskRecord, reason: Reason, step: Option<u32>, message: &str) {
    let task = &mut record.task;
    task.state = if reason == Reason::Credential {
        TaskState::AuthRequired
    } else {
        TaskState::InputRequired
    };
    task.reason = Some(reason);
    task.asked_step = step;
    task.parked_ms.get_or_insert(task.updated_ms);
    task.error_code = Some(reason.word().to_owned());
    task.error_message = Some(message.to_owned());
    // Revoked at once: the process ends soon, its token is worthless now.
    task.lease = None;
}

/// The waiting for a person is over.
fn waited(task: &mut Task) {
    if let Some(since) = task.parked_ms.take() {
        let waited_ms = u64::try_from(task.updated_ms - since).unwrap_or(0);
        task.waited_ms = task.waited_ms.saturating_add(waited_ms);
    }
}

fn retried(task: &mut Task) {
    waited(task);
    task.state = TaskState::Submitted;
    task.reason = None;
    task.asked_step = None;
    task.error_code = None;
    task.error_message = None;
    task.generation = None;
    task.faults = 0;
    task.fault_class = None;
    task.fault_repeats = 0;
    task.provider_cuts = 0;
    task.lease = None;
    task.output_seq = None;
    task.output_type = None;
    task.diverged_at = None;
    task.refused = None;
    // Who tries again knows what time it is.
    task.deadline_ms = None;
}

fn ended(record: &mut TaskRecord, state: TaskState, diverged_at: Option<u32>) {
    let (delivered, replayed) = record.counts(state == TaskState::Completed);
    let task = &mut record.task;
    task.state = state;
    if state != TaskState::Completed {
        // Only a person's `task retry` has it go on: the time until then is no work.
        task.parked_ms.get_or_insert(task.updated_ms);
    }
    task.reason = None;
    task.asked_step = None;
    task.error_code = None;
    task.error_message = None;
    task.lease = None;
    task.delivered = delivered;
    task.replayed = replayed;
    task.diverged_at = diverged_at;
}
