//! Tasks that wait for a person, or for their Agent to come back. Going on again is in `task`
//! (a person's word) and here (the Agent is back).

use mainstay_core::event::Event;
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
