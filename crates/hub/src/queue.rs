//! Why a task waits that nobody works on and nobody is asked about. It follows from what others do
//! and changes with no event of the task's own, so it is found when the task is shown.

use std::collections::{BTreeSet, HashMap};

use mainstay_core::step::StepState;
use mainstay_core::task::Reason;

use crate::state::State;
use crate::view::{ErrorView, TaskView};
use crate::{Hub, HubError};

/// What a waiting task shows in place of a reason of its own.
pub(crate) struct Waits {
    reason: &'static str,
    message: String,
}

impl State {
    /// What this task waits for, if it is more than a free instance.
    pub(crate) fn waits(&self, id: &str) -> Option<Waits> {
        let open = self.tasks.get(id).filter(|open| open.is_waiting())?;
        let task = &open.record.task;
        if self.session_is_busy(&open.record) {
            return self.behind(&task.session);
        }
        if open.rests_until.is_some() {
            let said = self.last_failure(id).map(|said| format!(": {said}"));
            return Some(Waits {
                reason: Reason::Provider.word(),
                message: format!(
                    "the provider failed{}. It is tried again within half a minute",
                    said.unwrap_or_default()
                ),
            });
        }
        self.stopped.contains(&task.agent).then(|| Waits {
            reason: "stopped",
            message: format!(
                "agent {agent} is stopped: mainstay start {agent}",
                agent = task.agent
            ),
        })
    }

    /// What the newest failed call's answer says.
    pub(crate) fn last_failure(&self, id: &str) -> Option<String> {
        let steps = &self.tasks.get(id)?.record.steps;
        let failed = steps
            .iter()
            .rev()
            .find(|step| step.state == StepState::Failed)?;
        let answer = failed.answer.as_ref()?;
        let body = crate::input::payload_json(self.log.read(), answer.seq, "answer").ok()?;
        let message = body
            .pointer("/error/message")
            .or_else(|| body.get("message"))?;
        Some(message.as_str()?.chars().take(500).collect())
    }

    /// Turns of a session follow each other: its first open task holds up the others.
    fn behind(&self, session: &str) -> Option<Waits> {
        let (_, first) = self.sessions.get(session).and_then(BTreeSet::first)?;
        let task = &self.tasks.get(first)?.record.task;
        let mut message = format!(
            "task {first} of the same session comes first and is {}",
            task.state.word()
        );
        if let Some(reason) = task.reason {
            message.push_str(&format!(" ({}): mainstay task show {first}", reason.word()));
        }
        Some(Waits {
            reason: "behind",
            message,
        })
    }
}

impl TaskView {
    /// Shows what it waits for.
    pub(crate) fn show_waits(&mut self, waits: Option<Waits>) {
        if let Some(waits) = waits {
            self.reason = Some(waits.reason.to_owned());
            self.error = Some(ErrorView {
                code: waits.reason.to_owned(),
                message: waits.message,
            });
        }
    }
}

impl Hub {
    /// Shows what tasks of a list wait for.
    pub(crate) async fn show_waits(&self, tasks: &mut [TaskView]) -> Result<(), HubError> {
        let open = tasks.iter().filter(|task| {
            task.reason.is_none() && matches!(task.state.as_str(), "submitted" | "working")
        });
        let ids: Vec<String> = open.map(|task| task.id.clone()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let found = move |tx: &mut crate::tx::Tx<'_>| {
            let waits = ids.into_iter().map(|id| {
                let waits = tx.state.waits(&id);
                (id, waits)
            });
            waits.collect::<HashMap<_, _>>()
        };
        let mut waits = self.writer.run(found).await?;
        for task in tasks {
            task.show_waits(waits.remove(&task.id).flatten());
        }
        Ok(())
    }
}
