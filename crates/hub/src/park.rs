//! Tasks that wait for a person, for their Agent to come back, or behind a task that they made and
//! that waits for a person. Going on again is in `task` (a person's word) and here (the Agent is
//! back, the other task has ended).

use mainstay_core::event::Event;
use mainstay_core::step::StepState;
use mainstay_core::task::Reason;

use crate::stream::FrameKind;
use crate::tx::Tx;

impl Tx<'_> {
    /// Tasks of an Agent that is gone wait for one of that name, or for a person.
    pub(crate) fn park_orphans(&mut self, agent: &str) {
        let queue = self.state.queues.get(agent).cloned().unwrap_or_default();
        for (_, id) in queue {
            let message = format!(
                "agent {agent} is not in the fleet any more: bring it back or cancel the task"
            );
            self.park(&id, Reason::Interrupted, None, message);
        }
    }

    /// The Agent is back: what waited for it goes on.
    pub(crate) fn adopt_orphans(&mut self) {
        let back: Vec<String> = self
            .state
            .tasks
            .values()
            .map(|open| &open.record.task)
            .filter(|task| {
                task.reason == Some(Reason::Interrupted) && self.state.agent(&task.agent).is_some()
            })
            .map(|task| task.id.clone())
            .collect();
        for id in back {
            self.emit(&id, "hub", Event::TaskResumed);
        }
    }

    /// Parks a task: its process ends, its lease returns, nothing is counted.
    pub(crate) fn park(&mut self, id: &str, reason: Reason, step: Option<u32>, message: String) {
        self.end_process(id);
        self.dispatch_later();
        self.emit(
            id,
            "hub",
            Event::TaskParked {
                reason,
                step,
                message: message.clone(),
            },
        );
        self.frame(
            id,
            FrameKind::Question {
                step,
                reason: reason.word().to_owned(),
                text: message,
            },
        );
    }

    /// A call to an agent whose task waits for a person: this task waits with it. Returns whether
    /// it does; not if the agent's task goes on already.
    pub(crate) fn park_behind_child(&mut self, id: &str, n: u32, child: &str) -> bool {
        let waits = self.state.tasks.get(child).map(|open| &open.record.task);
        let Some(called) = waits.filter(|task| task.state.is_parked()) else {
            return false;
        };
        let why = called.reason.map_or("", Reason::word);
        let message = format!(
            "step {n} called agent {}, whose task {child} waits for a person ({}: {why}). See mainstay task show {child}; this task goes on by itself when that one has ended",
            called.agent,
            called.state.word(),
        );
        let task = child.to_owned();
        self.emit(id, "hub", Event::StepParked { n, task });
        let open = self.state.tasks.get(id).map(|open| open.record.task.state);
        if open.is_some_and(|state| !state.is_terminal() && !state.is_parked()) {
            self.park(id, Reason::Parked, None, message);
        }
        true
    }

    /// What the ambient task of a service is told of an agent's task that waits for a person; none
    /// if that goes on already.
    pub(crate) fn leave_child(&mut self, id: &str, n: u32, child: &str) -> Option<String> {
        let called = self.state.tasks.get(child).map(|open| &open.record.task);
        let called = called.filter(|task| task.state.is_parked())?;
        let text = format!(
            "agent {} was called, and its task {child} waits for a person ({}): its answer will be there, not here",
            called.agent,
            called.state.word(),
        );
        self.emit(id, "hub", Event::StepUnknown { n });
        self.roll_ambient(id);
        Some(text)
    }

    /// A task has ended: who was parked behind it goes on, and finds its result.
    pub(crate) fn parent_goes_on(&mut self, child: &str) {
        let ended = self.state.tasks.get(child).map(|open| &open.record.task);
        let Some(parent) = ended.and_then(|task| task.parent.clone()) else {
            return;
        };
        let Some(open) = self.state.tasks.get(&parent.task) else {
            return;
        };
        let called = open.record.steps.iter().find(|step| step.id == parent.step);
        let waits = open.record.task.state.is_parked()
            && open.record.task.reason == Some(Reason::Parked)
            && called.is_some_and(|step| step.state == StepState::Parked);
        if waits {
            self.emit(&parent.task, "hub", Event::TaskResumed);
        }
    }

    pub(crate) fn park_session(&mut self, session: &str, first: &str) {
        let others: Vec<String> = self
            .state
            .tasks
            .values()
            .map(|open| &open.record.task)
            .filter(|task| task.session == session && task.id != first && !task.ambient)
            .filter(|task| !task.state.is_terminal() && !task.state.is_parked())
            .map(|task| task.id.clone())
            .collect();
        for id in others {
            self.park(
                &id,
                Reason::Poison,
                None,
                format!("an earlier task of this session is poison: {first}"),
            );
        }
    }
}
