//! Tasks that are under way, and the spans that follow from each entry about them.
//!
//! Pure: entries in, spans out. A span is made when what it stands for has ended, for a crash
//! loses whatever is kept open. What is kept here can be lost at any time, since the hub's rows
//! say it again ([`Tasks::meet`]); that is also why it may be thrown away when it grows too large.

use std::collections::HashMap;
use std::time::SystemTime;

use mainstay_core::event::Event;
use mainstay_core::restart::Class;
use mainstay_core::task::{Exit, TaskRecord};
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::trace::{ShouldSample, SpanData};

use super::names;
use super::span::Draft;
use super::step::{Around, End, Step};
use super::trace::{Trace, attempt_span, retry_span, task_span};

/// Tasks kept at once. Beyond it all are forgotten and met again at their next entry.
const MAX_TASKS: usize = 10_000;
/// Steps kept of a task. Beyond it those are forgotten that have no call under way.
const MAX_STEPS: usize = 10_000;

pub struct Tasks {
    open: HashMap<String, Open>,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
}

/// An entry's place and time.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub seq: u64,
    pub time: SystemTime,
}

struct Open {
    id: String,
    agent: String,
    session: String,
    trace: Trace,
    /// Calls of a service outside any task: they have no end, so each is a trace of its own.
    ambient: bool,
    created: SystemTime,
    retried: Option<SystemTime>,
    attempt: Option<Attempt>,
    attempts: u32,
    steps: HashMap<u32, Step>,
    ended: bool,
    /// The entry being read is the one it was met with.
    met_now: bool,
}

struct Attempt {
    number: u32,
    instance: String,
    started: SystemTime,
}

impl Tasks {
    pub fn new(sampler: Box<dyn ShouldSample>) -> Self {
        Self {
            open: HashMap::new(),
            sampler,
            scope: InstrumentationScope::builder("mainstay")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }

    /// The trace of a task, or of an ambient step, that nothing stands above.
    pub fn begin(&self, id: &str, traceparent: Option<&str>) -> Trace {
        Trace::begin(id, traceparent, self.sampler.as_ref())
    }

    /// The trace that a step of a task is part of, if the task is known.
    pub fn trace_of(&self, task: &str, step: &str) -> Option<Trace> {
        let open = self.open.get(task)?;
        Some(if open.ambient {
            self.begin(step, None)
        } else {
            open.trace.clone()
        })
    }

    /// Whether an entry makes spans, but only once its task is met.
    pub fn must_meet(&self, task: &str, event: &Event) -> bool {
        speaks(event) && !self.open.contains_key(task)
    }

    /// Takes up a task as its rows have it. They may be ahead of the entry being read.
    pub fn meet(&mut self, record: &TaskRecord, trace: Trace) {
        if self.open.len() >= MAX_TASKS {
            self.open.clear();
        }
        let task = &record.task;
        let attempt = task.lease.as_ref().map(|lease| Attempt {
            number: lease.attempt,
            instance: lease.instance.clone(),
            started: super::wall(lease.started_ms),
        });
        let open = Open {
            id: task.id.clone(),
            agent: task.agent.clone(),
            session: task.session.clone(),
            trace,
            ambient: task.ambient,
            created: super::wall(task.created_ms),
            retried: None,
            attempt,
            attempts: task.attempt,
            steps: record
                .steps
                .iter()
                .map(|step| (step.n, Step::found(step)))
                .collect(),
            ended: task.state.is_terminal(),
            met_now: true,
        };
        self.open.insert(task.id.clone(), open);
    }

    /// The spans of what this entry ended.
    pub fn entry(&mut self, at: At, task: &str, event: &Event) -> Vec<SpanData> {
        let Some(open) = self.open.get_mut(task) else {
            return Vec::new();
        };
        let spans = match event {
            // Short tasks are often done before this is read: from here on the entries say it all.
            Event::TaskSubmitted { .. } => {
                open.begin_again();
                Vec::new()
            }
            Event::TaskRetried => {
                open.retried = Some(at.time);
                open.ended = false;
                Vec::new()
            }
            Event::AttemptStarted {
                attempt, instance, ..
            } => {
                open.attempts = *attempt;
                open.attempt = Some(Attempt {
                    number: *attempt,
                    instance: instance.clone(),
                    started: at.time,
                });
                Vec::new()
            }
            Event::AttemptEnded { attempt, exit } => {
                let span = open.attempt_span(*attempt, exit, at, &self.scope);
                span.into_iter().collect()
            }
            Event::TaskCompleted { .. } => open.end(at, "completed", None, &self.scope),
            Event::TaskFailed { code, .. } => open.end(at, "failed", Some(code), &self.scope),
            Event::TaskCanceled => open.end(at, "canceled", None, &self.scope),
            event => {
                let span = open.step(at, event, self.sampler.as_ref(), &self.scope);
                span.into_iter().collect()
            }
        };
        open.met_now = false;
        if open.ended && open.attempt.is_none() {
            self.open.remove(task);
        }
        spans
    }
}

/// Other entries say nothing that a span shows.
fn speaks(event: &Event) -> bool {
    match event {
        Event::TaskSubmitted { .. }
        | Event::AttemptStarted { .. }
        | Event::AttemptEnded { .. }
        | Event::StepIntended { .. }
        | Event::StepRepeated { .. }
        | Event::StepFinished { .. }
        | Event::StepFailed { .. }
        | Event::StepUnknown { .. }
        | Event::StepHeld { .. }
        | Event::StepParked { .. }
        | Event::StepResolved { .. }
        | Event::TaskRetried
        | Event::TaskCompleted { .. }
        | Event::TaskFailed { .. }
        | Event::TaskCanceled => true,
        Event::StepsMarked { .. }
        | Event::TaskParked { .. }
        | Event::TaskResumed
        | Event::CallRefused { .. }
        | Event::Noted { .. }
        | Event::TaskMoved { .. }
        | Event::TaskImported { .. } => false,
    }
}

impl Open {
    fn begin_again(&mut self) {
        self.steps.clear();
        self.attempt = None;
        self.attempts = 0;
        self.ended = false;
    }

    /// What a step's event says, and the span of the call that it ended.
    fn step(
        &mut self,
        at: At,
        event: &Event,
        sampler: &dyn ShouldSample,
        scope: &InstrumentationScope,
    ) -> Option<SpanData> {
        if let Some((n, step)) = Step::intended(event, at.time) {
            if self.steps.len() >= MAX_STEPS {
                self.steps.retain(|_, step| step.is_under_way());
            }
            self.steps.insert(n, step);
            return None;
        }
        let ended = End::of(event);
        let n = match (event, &ended) {
            (_, Some((n, _))) => *n,
            (
                Event::StepRepeated { n, .. } | Event::StepUnknown { n } | Event::StepHeld { n },
                None,
            ) => *n,
            _ => return None,
        };
        let id = self.steps.get(&n)?.id.clone();
        let own = self.ambient.then(|| Trace::begin(&id, None, sampler));
        let parent = parent_of(&self.id, &self.trace, self.ambient);
        let around = Around {
            trace: own.as_ref().unwrap_or(&self.trace),
            task: &self.id,
            agent: &self.agent,
            session: if self.ambient { "" } else { &self.session },
            seq: at.seq,
            ahead: self.met_now,
            parent: &parent,
        };
        let step = self.steps.get_mut(&n)?;
        let drawn = match event {
            Event::StepUnknown { .. } => {
                step.unknown(at.time);
                None
            }
            Event::StepHeld { .. } => {
                step.held();
                None
            }
            Event::StepRepeated {
                attempt, doubtful, ..
            } => step.again((*attempt, *doubtful), at.time, &around),
            _ => step.ended(at.time, &ended?.1, &around),
        };
        // A failed step may be sent again, a finished one won't.
        if matches!(event, Event::StepFinished { .. }) {
            self.steps.remove(&n);
        }
        if !around.trace.sampled {
            return None;
        }
        drawn.map(|drawn| drawn.draft.end(drawn.ended, scope))
    }

    fn attempt_span(
        &mut self,
        number: u32,
        exit: &Exit,
        at: At,
        scope: &InstrumentationScope,
    ) -> Option<SpanData> {
        let known = self.attempt.take_if(|known| known.number == number);
        if self.ambient || !self.trace.sampled {
            return None;
        }
        // A hub that came between may not know when it began: its end is still worth a span.
        let started = known.as_ref().map_or(at.time, |known| known.started);
        let instance = known.map(|known| known.instance).unwrap_or_default();
        let failed = !matches!(exit.class, Class::Done | Class::Asked);
        let id = attempt_span(&self.id, number);
        let span = Draft::new(&self.trace, id, &format!("attempt {number}"), started)
            .below(self.trace.context(task_span(&self.id), false))
            .text(names::AGENT, &self.agent)
            .text(names::CONVERSATION, &self.session)
            .text(names::TASK, &self.id)
            .text(names::INSTANCE, &instance)
            .number(names::ATTEMPT, u64::from(number))
            .text(names::EXIT, exit.class.name())
            .error(failed.then_some(exit.class.name()));
        Some(span.end(at.time, scope))
    }

    /// The task has ended: its own span, after those of calls that nobody will hear of.
    fn end(
        &mut self,
        at: At,
        state: &'static str,
        error: Option<&str>,
        scope: &InstrumentationScope,
    ) -> Vec<SpanData> {
        self.ended = true;
        if self.ambient {
            self.attempt = None;
            return Vec::new();
        }
        let parent = parent_of(&self.id, &self.trace, false);
        let around = Around {
            trace: &self.trace,
            task: &self.id,
            agent: &self.agent,
            session: &self.session,
            seq: at.seq,
            ahead: self.met_now,
            parent: &parent,
        };
        let mut spans: Vec<_> = self
            .steps
            .values_mut()
            .filter_map(|step| step.lost(at.time, &around))
            .map(|drawn| drawn.draft.end(drawn.ended, scope))
            .collect();
        let name = format!("{} {}", names::INVOKE_AGENT, self.agent);
        let draft = match self.retried {
            None => Draft::new(&self.trace, task_span(&self.id), &name, self.created)
                .below(self.trace.parent.clone()),
            Some(retried) => Draft::new(&self.trace, retry_span(&self.id, at.seq), &name, retried)
                .below(self.trace.context(task_span(&self.id), false)),
        };
        let draft = draft
            .text(names::OPERATION, names::INVOKE_AGENT)
            .text(names::AGENT, &self.agent)
            .text(names::CONVERSATION, &self.session)
            .text(names::TASK, &self.id)
            .text(names::STATE, state)
            .number(names::ATTEMPTS, u64::from(self.attempts))
            .error(error);
        spans.push(draft.end(at.time, scope));
        if self.trace.sampled {
            spans
        } else {
            Vec::new()
        }
    }
}

/// What stands above a call: the attempt that made it, or nothing where there is no task.
fn parent_of(task: &str, trace: &Trace, ambient: bool) -> impl Fn(u32) -> SpanContext {
    move |attempt| {
        if ambient {
            SpanContext::NONE
        } else {
            trace.context(attempt_span(task, attempt), false)
        }
    }
}

#[cfg(test)]
mod tests;
