//! Time that is up: deadlines and time budgets end what a task does, also when it never calls.

use crate::state::Open;
use crate::tx::Tx;

impl Tx<'_> {
    /// Deadlines and time budgets that have passed end what a task does, also when it never calls.
    pub(crate) fn expire(&mut self) {
        let open = self.state.tasks.iter();
        let due: Vec<(String, &str, String)> = open
            .filter(|(_, open)| !open.record.task.state.is_terminal())
            // Its time is up where it is.
            .filter(|(_, open)| open.record.task.moved.is_none())
            .filter_map(|(id, open)| {
                let (code, message) = self.expired(open)?;
                Some((id.clone(), code, message))
            })
            .collect();
        for (id, code, message) in due {
            self.end_process(&id);
            self.fail(&id, code, message);
        }
    }

    fn expired(&self, open: &Open) -> Option<(&'static str, String)> {
        if open.due_ms.is_some_and(|due_ms| due_ms <= self.boot_ms) {
            return Some(("deadline", "the task's deadline has passed".into()));
        }
        let task = &open.record.task;
        // What a service does outside any task ends with the service; its calls are refused.
        let agent = self.state.agent(&task.agent).filter(|_| !task.ambient)?;
        let age_ms = open.age_ms(self.boot_ms);
        let message = mainstay_core::budget::time_is_up(task, agent.budget.time_ms, age_ms)?;
        Some(("budget", message))
    }
}
