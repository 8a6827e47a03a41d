//! Waiting for a task to end, or to wait for a person. Who waits is woken by the commit.

use std::time::Duration;

use mainstay_core::task::TaskState;

use crate::shared::lock;
use crate::view::TaskView;
use crate::{Hub, HubError};

impl Hub {
    /// Returns when the task has ended or waits for a person, or when time is up.
    pub async fn task_wait(&self, id: &str, timeout: Duration) -> Result<TaskView, HubError> {
        self.wait(id, timeout, |state| {
            state.is_terminal() || state.is_parked()
        })
        .await
    }

    /// Returns when the task has ended, or when time is up; one that waits for a person goes on.
    pub async fn task_finished(&self, id: &str, timeout: Duration) -> Result<TaskView, HubError> {
        self.wait(id, timeout, TaskState::is_terminal).await
    }

    async fn wait(
        &self,
        id: &str,
        timeout: Duration,
        enough: fn(TaskState) -> bool,
    ) -> Result<TaskView, HubError> {
        let until = tokio::time::Instant::now() + timeout;
        loop {
            // Registered before looking, or an end in between would be missed.
            let (waiter, ended) = tokio::sync::oneshot::channel();
            {
                let mut waiters = lock(&self.shared.waiters);
                let waiters = waiters.entry(id.to_owned()).or_default();
                // Those who went away without a word, or they would pile up behind a long task.
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(waiter);
            }
            let record = self.record(id).await;
            let enough_now = record
                .as_ref()
                .is_ok_and(|record| enough(record.task.state));
            if enough_now || record.is_err() || tokio::time::timeout_at(until, ended).await.is_err()
            {
                self.forget_waiters(id);
                return self.task_get(id).await;
            }
        }
    }

    fn forget_waiters(&self, id: &str) {
        let mut waiters = lock(&self.shared.waiters);
        if let Some(list) = waiters.get_mut(id) {
            list.retain(|waiter| !waiter.is_closed());
            if list.is_empty() {
                waiters.remove(id);
            }
        }
    }
}
