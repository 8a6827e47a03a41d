//! A task: one unit of work with A2A's states, its attempts and its lease.
//!
//! `apply` is the only way a task changes, and it sees events only, so the state after a restart
//! is the state before it. Reasons (`interrupted`, `poison` …) qualify a state, they are none.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::restart::Class;
use crate::step::{AnswerRef, Step, StepState};
use crate::usage::{Cost, Usage};

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

/// The task and step that called an agent as a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    pub task: String,
    pub step: String,
}

/// What a person says about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResumeAs {
    /// It happened; its result may be given.
    Done,
    /// Send it (again).
    Repeat,
    /// The step fails; the agent gets an error as its answer.
    Fail,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    pub class: Class,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

/// One process's hold on a task. The attempt number is the fencing epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub attempt: u32,
    pub instance: String,
    pub started_ms: i64,
}

/// A call that budget or policy refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    pub attempt: u32,
    pub code: String,
    pub message: String,
}

/// A task without its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    pub id: String,
    pub agent: String,
    pub session: String,
    pub state: TaskState,
    pub reason: Option<Reason>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// The step a person is asked about.
    pub asked_step: Option<u32>,
    pub parent: Option<Parent>,
    pub ambient: bool,
    pub deadline_ms: Option<i64>,
    /// Since when it waits for a person, and for how long it did before: that is no time of its
    /// budget.
    #[serde(default)]
    pub parked_ms: Option<i64>,
    #[serde(default)]
    pub waited_ms: u64,
    pub created_ms: i64,
    pub updated_ms: i64,
    /// Entry of the submission: payloads `input` and `key`.
    pub input_seq: u64,
    /// Entry of the completion: payload `output`.
    pub output_seq: Option<u64>,
    pub output_type: Option<String>,
    /// Pinned by the first attempt.
    pub generation: Option<u64>,
    /// The last attempt's number; also the fencing epoch.
    pub attempt: u32,
    pub lease: Option<Lease>,
    /// Attempts ended by a fault of their own since the last retry.
    pub faults: u32,
    /// The class of the last attempt if it was such a fault and no step finished live since.
    pub fault_class: Option<Class>,
    /// How many attempts in a row ended with that class and no step finished live between.
    pub fault_repeats: u32,
    /// Who held it last.
    pub last_instance: Option<String>,
    /// A call of this attempt was broken by the hub's death or a provider: its exit is no crash.
    pub cut_off: Option<u32>,
    /// The attempt in which a provider failed last, and how many attempts in a row ended by that
    /// with no step finished live between.
    pub provider_failed: Option<u32>,
    pub provider_cuts: u32,
    pub last_exit: Option<Exit>,
    /// A refusal that stands: the task fails with it if the attempt that got it fails.
    pub refused: Option<Refused>,
    pub diverged_at: Option<u32>,
    pub repeated: u32,
    pub usage: Usage,
    pub cost: Cost,
    /// Delivered to the attempt that ended the task, and how many of those came from the journal.
    pub delivered: u32,
    pub replayed: u32,
}

/// A task with its steps in intent order; `steps[i].n == i + 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecord {
    pub task: Task,
    pub steps: Vec<Step>,
}

impl TaskRecord {
    /// The step of that number.
    #[must_use]
    pub fn step(&self, n: u32) -> Option<&Step> {
        self.steps.get((n as usize).checked_sub(1)?)
    }

    /// Steps delivered to the current attempt, and those of them that came from the journal.
    ///
    /// `completed`: an attempt that ended well has read what it asked for, also where the mark
    /// that says so died with a hub or is still on its way. Matching never assumes that: there, in
    /// doubt, the answer is repeated.
    #[must_use]
    pub fn counts(&self, completed: bool) -> (u32, u32) {
        let mut counts = (0, 0);
        for step in &self.steps {
            let mark = step.mark_in(self.task.attempt);
            let read = completed && mark.used && step.state == StepState::Finished;
            if mark.delivered || read {
                counts.0 += 1;
                counts.1 += u32::from(mark.replayed);
            }
        }
        counts
    }
}

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
            if *broken || *status >= 500 || *status == 429 {
                // The provider's failure, not the agent's: its exit after this is no crash.
                let sent_in = record.step(*n).map(|step| step.sent_in);
                record.task.cut_off = sent_in;
                record.task.provider_failed = sent_in;
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
        Event::TaskParked {
            reason,
            step,
            message,
        } => parked(record, *reason, *step, message),
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

fn step_mut(record: &mut TaskRecord, n: u32) -> Option<&mut Step> {
    record.steps.get_mut((n as usize).checked_sub(1)?)
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
    task.reason = None;
    task.asked_step = None;
    task.error_code = None;
    task.error_message = None;
    task.lease = None;
    task.delivered = delivered;
    task.replayed = replayed;
    task.diverged_at = diverged_at;
}
