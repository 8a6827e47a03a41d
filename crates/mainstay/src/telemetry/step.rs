//! A step's calls: each one that left is a span, from when it was sent until how it ended is known.
//!
//! An answer from the journal is no call and makes no span. A call whose outcome nobody knows
//! stays open until it is sent again, read back, settled by a person, or its task ends.

use std::time::SystemTime;

use mainstay_core::event::Event;
use mainstay_core::step::{StepKind, StepState};
use mainstay_core::usage::{Cost, Usage};
use opentelemetry::trace::{SpanContext, SpanId};

use super::names;
use super::span::Draft;
use super::trace::{Trace, repeat_span, step_span};

#[derive(Clone, Debug)]
pub struct Step {
    n: u32,
    pub id: String,
    kind: StepKind,
    name: String,
    call: Option<Call>,
    /// Calls before the open one, as far as they are known: none, or some.
    before: u32,
}

/// A call that has left.
#[derive(Clone, Debug)]
struct Call {
    pub attempt: u32,
    started: SystemTime,
    unknown_since: Option<SystemTime>,
    /// Known to have ended already; its end is only being read again.
    settled: bool,
}

/// How a call ended.
#[derive(Default)]
pub struct End<'a> {
    error: Option<String>,
    model: Option<&'a str>,
    used: Option<(&'a Usage, &'a Cost)>,
    resolved: Option<&'static str>,
}

impl<'a> End<'a> {
    /// `None` for events that end no call.
    pub fn of(event: &'a Event) -> Option<(u32, Self)> {
        use mainstay_core::task::ResumeAs;
        let (n, end) = match event {
            Event::StepFinished {
                n,
                usage,
                cost,
                model,
                is_error,
                ..
            } => {
                let end = Self {
                    error: is_error.then(|| "tool_error".to_owned()),
                    model: model.as_deref(),
                    used: Some((usage, cost)),
                    resolved: None,
                };
                (n, end)
            }
            Event::StepFailed {
                n,
                status,
                broken,
                usage,
                cost,
                ..
            } => {
                let class = match (broken, status) {
                    (true, _) => "broken".to_owned(),
                    (false, 0) => "_OTHER".to_owned(),
                    (false, status) => status.to_string(),
                };
                let end = Self {
                    error: Some(class),
                    used: (usage.total() > 0).then_some((usage, cost)),
                    ..Self::default()
                };
                (n, end)
            }
            // Looked for again later, which is a call of its own.
            Event::StepParked { n, .. } => {
                let end = Self {
                    error: Some("parked".to_owned()),
                    ..Self::default()
                };
                (n, end)
            }
            Event::StepResolved { n, how, .. } => {
                let end = match how {
                    ResumeAs::Done => Self {
                        resolved: Some("done"),
                        ..Self::default()
                    },
                    ResumeAs::Fail => Self {
                        error: Some("unknown".to_owned()),
                        resolved: Some("fail"),
                        ..Self::default()
                    },
                    // What was sent stays unknown, until it is sent again.
                    ResumeAs::Repeat => return None,
                };
                (n, end)
            }
            _ => return None,
        };
        Some((*n, end))
    }

    fn unknown() -> Self {
        Self {
            error: Some("unknown".to_owned()),
            ..Self::default()
        }
    }
}

/// Where and when: what a step's span needs beside the step.
pub struct Around<'a> {
    pub trace: &'a Trace,
    pub task: &'a str,
    pub agent: &'a str,
    pub session: &'a str,
    pub seq: u64,
    /// The step was met with this entry, whose effect it therefore has already.
    pub ahead: bool,
    /// The span above a call of this attempt.
    pub parent: &'a dyn Fn(u32) -> SpanContext,
}

impl Step {
    /// Journaled, and about to leave. `None` for other events.
    pub fn intended(event: &Event, at: SystemTime) -> Option<(u32, Self)> {
        let Event::StepIntended {
            n,
            id,
            kind,
            name,
            attempt,
            ..
        } = event
        else {
            return None;
        };
        let step = Self {
            n: *n,
            id: id.clone(),
            kind: *kind,
            name: name.clone(),
            call: Some(Call {
                attempt: *attempt,
                started: at,
                unknown_since: None,
                settled: false,
            }),
            before: 0,
        };
        Some((*n, step))
    }

    /// As a hub finds it that didn't see it begin.
    pub fn found(step: &mainstay_core::step::Step) -> Self {
        let open = matches!(step.state, StepState::InFlight | StepState::Unknown);
        // Sent again after a failure: the failure's time is the nearest that is known.
        let before = u32::from(open && step.ended_ms.is_some()).max(step.repeated);
        let started_ms = if open { step.ended_ms } else { None };
        let unsent = matches!(step.state, StepState::Held | StepState::Released);
        let call = Call {
            attempt: step.sent_in,
            started: super::wall(started_ms.unwrap_or(step.intended_ms)),
            unknown_since: None,
            settled: !open,
        };
        Self {
            n: step.n,
            id: step.id.clone(),
            kind: step.kind,
            name: step.name.clone(),
            call: (!unsent).then_some(call),
            before,
        }
    }

    pub fn is_under_way(&self) -> bool {
        self.call.as_ref().is_some_and(|call| !call.settled)
    }

    /// It never left and waits for a person.
    pub fn held(&mut self) {
        self.call = None;
    }

    pub fn unknown(&mut self, at: SystemTime) {
        if let Some(call) = &mut self.call {
            call.unknown_since.get_or_insert(at);
        }
    }

    /// Leaves again; gives the span of a call before it whose outcome nobody learned.
    pub fn again(
        &mut self,
        (attempt, doubtful): (u32, bool),
        at: SystemTime,
        around: &Around<'_>,
    ) -> Option<Drawn> {
        if around.ahead {
            self.before = self.before.saturating_sub(1);
        }
        let lost = if around.ahead && !doubtful {
            None
        } else {
            self.lost(at, around)
        };
        self.call = Some(Call {
            attempt,
            started: at,
            unknown_since: None,
            settled: false,
        });
        self.before += 1;
        lost
    }

    /// The span of a call that nobody will learn more about.
    pub fn lost(&mut self, at: SystemTime, around: &Around<'_>) -> Option<Drawn> {
        if !self.is_under_way() {
            return None;
        }
        self.ended(at, &End::unknown(), around)
    }

    /// The span of the call that ended.
    pub fn ended(&mut self, at: SystemTime, end: &End<'_>, around: &Around<'_>) -> Option<Drawn> {
        let call = self.call.take()?;
        let ended = match (&end.error, call.unknown_since) {
            (Some(error), Some(since)) if error == "unknown" => since,
            _ => at,
        };
        let id = self.span(around.seq);
        let draft = match self.kind {
            StepKind::Model => self.model(id, &call, end, around),
            StepKind::Tool | StepKind::Local => self.tool(id, &call, around),
        };
        let mut draft = draft
            .below((around.parent)(call.attempt))
            .text(names::AGENT, around.agent)
            .text(names::CONVERSATION, around.session)
            .text(names::TASK, around.task)
            .text(names::STEP, &self.id)
            .number(names::STEP_NUMBER, u64::from(self.n))
            .number(names::ATTEMPT, u64::from(call.attempt))
            .error(end.error.as_deref());
        if let Some(how) = end.resolved {
            draft = draft.text(names::RESOLVED, how);
        }
        Some(Drawn { draft, ended })
    }

    fn span(&self, seq: u64) -> SpanId {
        if self.before > 0 {
            repeat_span(&self.id, seq)
        } else {
            step_span(&self.id)
        }
    }

    fn model(&self, id: SpanId, call: &Call, end: &End<'_>, around: &Around<'_>) -> Draft {
        let (asked_of, asked) = parted(&self.name);
        let (served_by, served) = end.model.map_or((None, None), |model| {
            let (provider, model) = parted(model);
            (provider, Some(model))
        });
        let provider = served_by.or(asked_of).unwrap_or_default();
        let name = format!("{} {asked}", names::CHAT);
        let draft = Draft::new(around.trace, id, &name, call.started)
            .outbound()
            .text(names::OPERATION, names::CHAT)
            .text(names::PROVIDER, provider)
            .text(names::REQUEST_MODEL, asked)
            .text(names::RESPONSE_MODEL, served.unwrap_or_default());
        match end.used {
            Some((usage, cost)) => draft.used(usage, cost),
            None => draft,
        }
    }

    fn tool(&self, id: SpanId, call: &Call, around: &Around<'_>) -> Draft {
        // The conventions' words: an extension runs with the platform, a function with the agent.
        let kind = if self.kind == StepKind::Local {
            "function"
        } else {
            "extension"
        };
        let name = format!("{} {}", names::EXECUTE_TOOL, self.name);
        Draft::new(around.trace, id, &name, call.started)
            .text(names::OPERATION, names::EXECUTE_TOOL)
            .text(names::TOOL_NAME, &self.name)
            .text(names::TOOL_TYPE, kind)
            .text(names::TOOL_CALL, &self.id)
    }
}

/// A span that lacks only its end.
pub struct Drawn {
    pub draft: Draft,
    pub ended: SystemTime,
}

/// A model's provider and name: `provider/model`, split at the first slash.
fn parted(model: &str) -> (Option<&str>, &str) {
    match model.split_once('/') {
        Some((provider, name)) => (Some(provider), name),
        None => (None, model),
    }
}
