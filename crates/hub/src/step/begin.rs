//! Which answer an ask gets: the journal's decision, on the writer's thread.
//!
//! `core::step::find` says which step it is; here that becomes a recorded answer, a call to join,
//! a call to make, or a refusal. What is refused as a fact is journaled before it is told.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_core::event::{Event, StepMark};
use mainstay_core::step::{self, AnswerRef, Ask, Effect, Match, Step, StepKind};
use mainstay_core::task::Reason;

use super::ask::Keyed;
use super::intent::new_step;
use super::question::{park_unknown, question_text};
use super::{Occasion, StepRun};
use crate::answer::{AnswerStream, Delivered, Guard, Spool};
use crate::caller::Caller;
use crate::shared::lock;
use crate::state::Open;
use crate::stream::FrameKind;
use crate::tx::Tx;
use crate::{Code, Hub, HubError};

/// What the journal says to one ask.
pub(super) enum Decision {
    Stream(AnswerStream),
    Recorded(Recorded),
    /// Made with the intent: if who asked is gone before the commit, dropping it says that nothing
    /// was sent.
    Run(Box<StepRun>, AnswerStream),
    /// It runs inside the agent; the answer if it has run before.
    Local {
        step: String,
        answer: Option<Recorded>,
    },
    /// Ask again in a while: another branch may still ask for what this looks like.
    Hold,
}

/// An answer in the log: what makes an `AnswerStream` of it once its bytes are read.
pub(super) struct Recorded {
    pub(super) n: u32,
    pub(super) answer: AnswerRef,
    pub(super) delivered: Delivered,
    pub(super) guard: Guard,
    pub(super) replayed: bool,
}

/// The open task, if this caller still holds it.
pub(super) fn fenced<'a>(tx: &'a Tx<'_>, caller: &Caller) -> Result<&'a Open, HubError> {
    let gone = || {
        HubError::new(
            Code::Fenced,
            format!(
                "attempt {} of task {} no longer holds it",
                caller.attempt, caller.task
            ),
        )
    };
    let open = tx.state.tasks.get(&caller.task).ok_or_else(gone)?;
    let task = &open.record.task;
    if task.state.is_parked() {
        return Err(HubError::new(
            Code::Parked,
            format!("task {} waits for a person", caller.task),
        ));
    }
    let holds = task
        .lease
        .as_ref()
        .is_some_and(|lease| lease.attempt == caller.attempt);
    if holds { Ok(open) } else { Err(gone()) }
}

/// The decision about one ask. Runs on the writer's thread.
pub(super) fn begin(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    ask: &Keyed,
    last: bool,
) -> Result<Decision, HubError> {
    let (found, implied) = {
        if let Some(open) = tx.state.tasks.get_mut(&caller.task) {
            open.index.catch_up(&open.record.steps);
            open.unheard.take_if(|attempt| *attempt == caller.attempt);
        }
        let open = fenced(tx, caller)?;
        let steps = &open.record.steps;
        if caller.ambient {
            (Match::New, Vec::new())
        } else {
            let live = |n: u32| tx.shared.live.is(&caller.task, caller.attempt, n);
            let question = Ask {
                attempt: caller.attempt,
                key: ask.key,
                masked: ask.masked,
                retry: ask.ask.retry,
                live: &live,
            };
            let implied = step::implied_marks(steps, caller.attempt, &ask.answers);
            (step::find(steps, &open.index, &question), implied)
        }
    };
    for mark in implied {
        tx.mark(&caller.task, caller.attempt, mark);
    }
    match found {
        Match::Replay(n) => replay(tx, hub, caller, n),
        Match::Join(n) => join(tx, hub, caller, n, ask.ask.kind),
        // The agent's task has an id of the step's own: nothing is done twice.
        Match::Retry(n) | Match::Parked(n) => again(tx, hub, caller, n, false),
        Match::Released(n) => released(tx, hub, caller, n),
        Match::Unknown(n) => unknown(tx, hub, caller, n),
        Match::Held(n) => {
            let text = question_text(tx, caller, n);
            tx.park(&caller.task, Reason::Divergence, Some(n), text);
            Err(HubError::new(
                Code::Parked,
                "the task waits for a person: the call may be a second of one that is done",
            ))
        }
        Match::New => new_step(tx, hub, caller, ask, last),
    }
}

/// Only the built-in loop's model text is the answer as it comes.
pub(super) fn shows_text(caller: &Caller, kind: StepKind) -> bool {
    matches!(caller.agent.runtime, api::fleet::Runtime::Builtin) && kind == StepKind::Model
}

pub(super) fn replay(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    let Some(answer) = step.answer.clone() else {
        return Err(HubError::new(Code::Internal, "the step has no answer"));
    };
    let replayed = mark_used(tx, caller, &step);
    if step.kind != StepKind::Model && step.effect != Effect::Pure {
        // Were the mark lost with this hub, the next call to the tool would look like a second one
        // of this, and be put to a person.
        tx.flush_marks(&caller.task, "hub");
    }
    tx.shared.metrics.replayed(&caller.agent.name);
    let recorded = Recorded {
        n,
        answer,
        delivered: hub.on_delivered(tx, caller, n),
        guard: tx.shared.live.register(&caller.task, caller.attempt, n),
        replayed,
    };
    if step.kind == StepKind::Local {
        return Ok(Decision::Local {
            step: step.id,
            answer: Some(recorded),
        });
    }
    Ok(Decision::Recorded(recorded))
}

pub(super) fn join(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
    kind: StepKind,
) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    let replayed = mark_used(tx, caller, &step);
    if kind == StepKind::Local {
        // Asked twice in one life: it runs inside the agent, which alone knows how far it came.
        return Ok(Decision::Local {
            step: step.id,
            answer: None,
        });
    }
    let spool = lock(&tx.shared.spools)
        .get(&(caller.task.clone(), n))
        .cloned();
    let spool = spool
        .ok_or_else(|| HubError::new(Code::Unavailable, "the call is not being made; ask again"))?;
    Ok(Decision::Stream(open_stream(
        tx, hub, caller, n, replayed, spool,
    )))
}

/// A person gave leave to send it. Whether a first one arrived is still not known, if there was.
pub(super) fn released(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n);
    let was_sent = step.is_some_and(|step| step.sent_in > 0);
    again(tx, hub, caller, n, was_sent)
}

/// Sends a step again under its id.
pub(super) fn again(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
    doubtful: bool,
) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    // A step that was never sent (held, then released) is sent for the first time.
    let occasion = if step.sent_in == 0 {
        Occasion::First
    } else {
        Occasion::Again
    };
    if shows_text(caller, step.kind) {
        // What clients saw of the try before is void.
        tx.frame(&caller.task, FrameKind::Restart);
    }
    let event = Event::StepRepeated {
        n,
        attempt: caller.attempt,
        incarnation: tx.state.incarnation,
        doubtful,
    };
    tx.emit(&caller.task, "hub", event);
    tx.mark(
        &caller.task,
        caller.attempt,
        StepMark {
            n,
            used: true,
            ..StepMark::default()
        },
    );
    run(tx, hub, caller, &step, occasion)
}

pub(super) fn run(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    step: &Step,
    occasion: Occasion,
) -> Result<Decision, HubError> {
    if step.kind == StepKind::Local {
        return Ok(Decision::Local {
            step: step.id.clone(),
            answer: None,
        });
    }
    let said_in = fenced(tx, caller)?.updated_seq;
    let spool = Spool::new();
    lock(&tx.shared.spools).insert((caller.task.clone(), step.n), Arc::clone(&spool));
    let stream = open_stream(tx, hub, caller, step.n, false, Arc::clone(&spool));
    let run = StepRun {
        hub: hub.clone(),
        caller: caller.clone(),
        n: step.n,
        id: step.id.clone(),
        kind: step.kind,
        name: step.name.clone(),
        occasion,
        spool,
        said_in,
        shows_text: shows_text(caller, step.kind),
        settled: false,
        handed: false,
    };
    Ok(Decision::Run(Box::new(run), stream))
}

/// A call whose outcome nobody knows, by what it does outside.
pub(super) fn unknown(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    let is_looked_for = lock(&tx.shared.spools).contains_key(&(caller.task.clone(), n));
    if is_looked_for {
        // Its outcome is being read back: a second look could end in a second call.
        return join(tx, hub, caller, n, step.kind);
    }
    match step.effect {
        Effect::Pure | Effect::Keyed => again(tx, hub, caller, n, true),
        // Inside the agent there is nobody to read back from.
        Effect::Queryable if step.kind != StepKind::Local => {
            tx.mark(
                &caller.task,
                caller.attempt,
                StepMark {
                    n,
                    used: true,
                    ..StepMark::default()
                },
            );
            run(tx, hub, caller, &step, Occasion::ReadBack)
        }
        Effect::Queryable | Effect::Opaque => {
            park_unknown(tx, &caller.task, &step);
            Err(HubError::new(
                Code::Parked,
                format!(
                    "nobody knows whether {} was done: the task waits for a person",
                    step.name
                ),
            ))
        }
    }
}

/// Marks a step used by this attempt; returns whether it comes from the journal.
pub(super) fn mark_used(tx: &mut Tx<'_>, caller: &Caller, step: &Step) -> bool {
    let mark = step.mark_in(caller.attempt);
    let replayed = mark.replayed || step.sent_in < caller.attempt;
    tx.mark(
        &caller.task,
        caller.attempt,
        StepMark {
            used: true,
            replayed,
            ..mark
        },
    );
    replayed
}

pub(super) fn deliver(tx: &mut Tx<'_>, task: &str, attempt: u32, n: u32) {
    let mark = tx
        .state
        .tasks
        .get(task)
        .and_then(|open| open.record.step(n))
        .map(|step| step.mark_in(attempt));
    if let Some(mark) = mark {
        tx.mark(
            task,
            attempt,
            StepMark {
                used: true,
                delivered: true,
                ..mark
            },
        );
    }
}

pub(super) fn open_stream(
    tx: &Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
    replayed: bool,
    spool: Arc<Spool>,
) -> AnswerStream {
    let guard = tx.shared.live.register(&caller.task, caller.attempt, n);
    AnswerStream::new(
        spool,
        n,
        replayed,
        Some(hub.on_delivered(tx, caller, n)),
        Some(guard),
    )
}

/// A spool that holds a recorded answer.
pub(super) fn spooled(answer: &AnswerRef, bytes: Vec<u8>) -> Arc<Spool> {
    let spool = Spool::new();
    spool.head(answer.status, &answer.content_type);
    // A recorded answer is never larger than what a spool takes.
    let _ = spool.push(Bytes::from(bytes), false);
    if answer.broken {
        spool.break_off()
    } else {
        spool.release()
    }
    spool
}

impl Hub {
    /// The connection counts as waiting until the mark is there, not until it was asked for: an
    /// equal call that the writer sees in between would be taken for a re-ask.
    pub(super) fn on_delivered(&self, tx: &Tx<'_>, caller: &Caller, n: u32) -> Delivered {
        let (writer, task, attempt) = (self.writer.clone(), caller.task.clone(), caller.attempt);
        let guard = tx.shared.live.register(&task, attempt, n);
        Box::new(move || {
            writer.post(move |tx| {
                deliver(tx, &task, attempt, n);
                drop(guard);
            });
        })
    }
}
