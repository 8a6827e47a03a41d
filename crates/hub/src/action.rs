//! Effects of decisions, performed in order after the commit that holds them.

use std::sync::Arc;
use std::time::Duration;

use contract::keeper::ToKeeper;
use contract::shim::{Attempt, ToShim};

use crate::keys::Claim;
use crate::shared::{Shared, lock};
use crate::{Hub, input};

/// How long after a failure to read an attempt's input it is read again.
const AGAIN: Duration = Duration::from_secs(1);

/// One effect.
#[derive(Debug)]
pub(crate) enum Action {
    /// Give an `exec` task to an instance: the attempt to start and the one that may follow by
    /// itself, unless that is for the hub to say.
    Assign {
        task: String,
        instance: String,
        attempt: u32,
        generation: u64,
        hold_restart: bool,
    },
    /// One more attempt that may follow by itself.
    Prepare {
        task: String,
        instance: String,
        attempt: u32,
    },
    EndTask {
        task: String,
        instance: String,
        grace_ms: u64,
    },
    /// Call a service.
    Call {
        task: String,
        instance: String,
        attempt: u32,
    },
    /// The call of an attempt is void.
    Revoke {
        task: String,
    },
    Shim {
        instance: String,
        message: ToShim,
    },
    Keeper(ToKeeper),
}

/// Queues an action. The queue is bounded by what the state machine can emit: a handful per task.
pub(crate) fn send(shared: &Arc<Shared>, action: Action) {
    let _ = shared.actions.send(action);
}

impl Hub {
    /// Performs actions until the hub stops.
    pub(crate) async fn perform(self, mut actions: tokio::sync::mpsc::UnboundedReceiver<Action>) {
        while let Some(action) = actions.recv().await {
            self.perform_one(action).await;
        }
    }

    async fn perform_one(&self, action: Action) {
        match action {
            Action::Assign {
                task,
                instance,
                attempt,
                generation,
                hold_restart,
            } => {
                let first = self.attempt_message(&task, attempt, &instance).await;
                let next = self.attempt_message(&task, attempt + 1, &instance).await;
                let (Some(first), Some(next)) = (first, next) else {
                    return self.again_later(Action::Assign {
                        task,
                        instance,
                        attempt,
                        generation,
                        hold_restart,
                    });
                };
                let message = ToShim::Assign {
                    task,
                    generation,
                    attempts: vec![first, next],
                    hold_restart,
                };
                self.to_shim(&instance, message);
            }
            Action::Prepare {
                task,
                instance,
                attempt,
            } => {
                if let Some(attempt) = self.attempt_message(&task, attempt, &instance).await {
                    self.to_shim(&instance, ToShim::Prepare { task, attempt });
                }
            }
            Action::EndTask {
                task,
                instance,
                grace_ms,
            } => {
                self.revoke_call(&task);
                self.to_shim(&instance, ToShim::EndTask { task, grace_ms });
            }
            Action::Call {
                task,
                instance,
                attempt,
            } => self.call_service(&task, &instance, attempt).await,
            Action::Revoke { task } => self.revoke_call(&task),
            Action::Shim { instance, message } => self.to_shim(&instance, message),
            Action::Keeper(message) => {
                let _ = self.shared.keeper.send(message);
            }
        }
    }

    /// What an attempt needs couldn't be read: a task that is still held must not wait for ever.
    pub(crate) fn again_later(&self, action: Action) {
        let (Action::Assign { task, attempt, .. } | Action::Call { task, attempt, .. }) = &action
        else {
            return;
        };
        let (hub, task, attempt) = (self.clone(), task.clone(), *attempt);
        self.shared.ground.spawn(Box::pin(async move {
            tokio::time::sleep(AGAIN).await;
            let held = hub.writer.run(move |tx| tx.holds(&task, attempt)).await;
            if held.unwrap_or(false) {
                send(&hub.shared, action);
            }
        }));
    }

    pub(crate) fn to_shim(&self, instance: &str, message: ToShim) {
        // Without a link the message is void: what the shim must know is sent again when it stands.
        if let Some(link) = lock(&self.shared.links).get(instance) {
            let _ = link.send(message);
        }
    }

    /// What the shim needs to start one attempt.
    async fn attempt_message(&self, task: &str, attempt: u32, instance: &str) -> Option<Attempt> {
        let token = self.shared.keys.token(&Claim::Attempt {
            task: task.to_owned(),
            attempt,
            instance: instance.to_owned(),
        });
        let work = match self.work(task, attempt, &token).await {
            Ok(work) => work,
            Err(error) => {
                tracing::warn!(task, %error, "failed to read what an attempt needs");
                return None;
            }
        };
        let env = input::environment(self, &work, attempt);
        Some(Attempt {
            number: attempt,
            token,
            stdin: work.body.to_string(),
            env,
        })
    }
}
