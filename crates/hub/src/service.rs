//! Tasks for agents that are servers: the hub says what to call, the gateway calls it.
//!
//! A lost call is not a lost task: the attempt ends by what happened to the process, and the task
//! goes to the next that is ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::{Runtime, ServiceProtocol};
use mainstay_core::event::Event;
use mainstay_core::restart::{Class, Evidence, Kind, classify};
use mainstay_core::task::Exit;
use tokio::sync::watch;

use crate::Hub;
use crate::caller::Caller;
use crate::ending::Answer;
use crate::keys::Claim;
use crate::shared::lock;

/// How long the news of a process's end may take longer than the broken call.
const EXIT_NEWS: Duration = Duration::from_millis(500);

/// One task's call to a service instance. Dropping it without a result ends the attempt as lost.
#[derive(Debug)]
pub struct ServiceCall {
    pub instance: String,
    pub protocol: ServiceProtocol,
    /// For `http` and `openai`.
    pub address: Option<SocketAddr>,
    /// The object of docs/reference/contract.md: task, session, agent, attempt, input, history, token.
    pub body: serde_json::Value,
    /// Sent as `Mainstay-Token` when the agent's concurrency is above 1.
    pub token: Arc<str>,
    /// The attempt, to report to.
    pub attempt: AttemptHandle,
}

/// A task's attempt in a service.
pub struct AttemptHandle {
    hub: Hub,
    task: String,
    number: u32,
    instance: String,
    revoked: watch::Receiver<bool>,
    reported: bool,
}

impl std::fmt::Debug for AttemptHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AttemptHandle({} #{})", self.task, self.number)
    }
}

impl AttemptHandle {
    /// The task's id.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The attempt's number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Text of the answer as it comes.
    pub fn chunk(&self, text: &str) {
        self.hub.shared.streams.chunk(&self.task, None, text);
    }

    /// The answer. `content_type` is `text/plain` or `application/json`.
    pub async fn complete(mut self, content_type: &str, output: Vec<u8>) {
        self.reported = true;
        let answer = Answer {
            content_type: content_type.to_owned(),
            output,
        };
        let (task, number) = (self.task.clone(), self.number);
        self.end(move |tx| {
            if tx.holds(&task, number) {
                let exit = Exit {
                    class: Class::Done,
                    code: None,
                    signal: None,
                };
                tx.emit(
                    &task,
                    "service",
                    Event::AttemptEnded {
                        attempt: number,
                        exit,
                    },
                );
                tx.complete(&task, answer);
            }
        })
        .await;
    }

    /// The attempt ended without an answer (a 5xx, a broken connection): another may follow.
    pub async fn lost(mut self, message: String) {
        self.reported = true;
        lose(
            self.hub.clone(),
            self.task.clone(),
            self.number,
            self.instance.clone(),
            message,
        )
        .await;
    }

    /// The service says that the task can't be done: final.
    pub async fn fail(mut self, message: String) {
        self.reported = true;
        let (task, number) = (self.task.clone(), self.number);
        self.end(move |tx| {
            if tx.holds(&task, number) {
                let exit = Exit {
                    class: Class::Final,
                    code: None,
                    signal: None,
                };
                tx.emit(
                    &task,
                    "service",
                    Event::AttemptEnded {
                        attempt: number,
                        exit,
                    },
                );
                tx.fail(&task, "agent", message);
            }
        })
        .await;
    }

    /// Resolves when the task was canceled, parked or fenced: close the call.
    pub async fn revoked(&self) {
        let mut revoked = self.revoked.clone();
        // An error means that the sender is gone, which is a revocation too.
        let _ = revoked.wait_for(|revoked| *revoked).await;
    }

    async fn end(&self, job: impl FnOnce(&mut crate::tx::Tx<'_>) + Send + 'static) {
        self.hub.forget_call(&self.task, self.number);
        let _ = self.hub.writer.run(job).await;
    }
}

impl Drop for AttemptHandle {
    fn drop(&mut self) {
        if self.reported || self.hub.is_stopping() {
            return;
        }
        let (hub, task, number, instance) = (
            self.hub.clone(),
            self.task.clone(),
            self.number,
            self.instance.clone(),
        );
        if tokio::runtime::Handle::try_current().is_ok() {
            let ground = Arc::clone(&hub.shared.ground);
            let message = "the call was dropped".to_owned();
            ground.spawn(Box::pin(lose(hub, task, number, instance, message)));
        }
    }
}

async fn lose(hub: Hub, task: String, number: u32, instance: String, message: String) {
    let up = process_is_up(&hub, &instance).await;
    // Only now: until the attempt has ended nobody else may call for it.
    hub.forget_call(&task, number);
    let _ = hub
        .writer
        .run(move |tx| {
            if !tx.holds(&task, number) {
                return;
            }
            let class = tx.lost_class(&instance, &task, number, up);
            let exit = Exit {
                class,
                code: None,
                signal: None,
            };
            tx.emit(
                &task,
                "service",
                Event::AttemptEnded {
                    attempt: number,
                    exit,
                }
                .with("stderr", message.clone().into_bytes()),
            );
            tx.service_attempt_over(&task, number, class, message);
        })
        .await;
}

/// Whether the process outlived the broken call: its end is told by the shim, a little later.
async fn process_is_up(hub: &Hub, instance: &str) -> bool {
    let until = tokio::time::Instant::now() + EXIT_NEWS;
    while tokio::time::Instant::now() < until {
        let name = instance.to_owned();
        let up = hub
            .writer
            .run(move |tx| {
                tx.state
                    .instances
                    .get(&name)
                    .is_some_and(|state| state.service.is_some())
            })
            .await;
        if !up.unwrap_or(false) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    true
}

impl crate::tx::Tx<'_> {
    /// Does this attempt still hold the task?
    pub(crate) fn holds(&self, task: &str, attempt: u32) -> bool {
        let open = self.state.tasks.get(task);
        open.and_then(|open| open.record.task.lease.as_ref())
            .is_some_and(|lease| lease.attempt == attempt)
    }

    /// How the process that takes new tasks is spoken to, and where it listens: both are of the
    /// generation it was started by, today's, whatever the task pins.
    fn spoken_by(&self, instance: &str) -> (Option<ServiceProtocol>, Option<u16>) {
        let Some(state) = self.state.instances.get(instance) else {
            return (None, None);
        };
        let agent = self.state.agent(&state.instance.owner);
        let started = state.service.as_ref().and_then(|service| service.port);
        (
            agent.and_then(|agent| protocol_of(&agent.runtime)),
            match self.state.pods {
                Some(_) => state.instance.service_port,
                None => started.or(state.instance.service_port),
            },
        )
    }

    /// The class of an attempt whose call broke: its process's, or a crash if that is alive.
    fn lost_class(&self, instance: &str, task: &str, attempt: u32, up: bool) -> Class {
        let cut_off = self
            .state
            .tasks
            .get(task)
            .is_some_and(|open| open.record.task.cut_off == Some(attempt));
        let exit = self
            .state
            .instances
            .get(instance)
            .and_then(|state| state.last_exit.as_ref());
        match exit {
            Some(exit) if !up => classify(
                Kind::Service,
                &Evidence {
                    code: exit.code,
                    signal: exit.signal,
                    oom: exit.oom,
                    asked: exit.asked,
                    cut_off,
                    ready: true,
                },
            ),
            _ if cut_off => Class::CutOff,
            _ => Class::Crash,
        }
    }
}

fn protocol_of(runtime: &Runtime) -> Option<ServiceProtocol> {
    match runtime {
        Runtime::Service { protocol, .. } => Some(*protocol),
        Runtime::Builtin | Runtime::Exec { .. } => None,
    }
}

impl Hub {
    /// Calls the service for a leased task.
    pub(crate) async fn call_service(&self, task: &str, instance: &str, attempt: u32) {
        if lock(&self.shared.calls)
            .get(task)
            .is_some_and(|(known, _)| *known >= attempt)
        {
            return;
        }
        let token = self.shared.keys.token(&Claim::Attempt {
            task: task.to_owned(),
            attempt,
            instance: instance.to_owned(),
        });
        let work = match self.work(task, attempt, &token).await {
            Ok(work) => work,
            Err(error) => {
                tracing::warn!(task, %error, "failed to read what a service is to be asked");
                return self.again_later(crate::action::Action::Call {
                    task: task.to_owned(),
                    instance: instance.to_owned(),
                    attempt,
                });
            }
        };
        let name = instance.to_owned();
        let spoken = self.writer.run(move |tx| tx.spoken_by(&name)).await;
        let (today, port) = spoken.unwrap_or_default();
        let pinned = || protocol_of(&work.agent.runtime);
        let Some(protocol) = today.or_else(pinned) else {
            return;
        };
        let address = port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (revoke, revoked) = watch::channel(false);
        lock(&self.shared.calls).insert(task.to_owned(), (attempt, revoke));
        let attempt = AttemptHandle {
            hub: self.clone(),
            task: task.to_owned(),
            number: attempt,
            instance: instance.to_owned(),
            revoked,
            reported: false,
        };
        let call = ServiceCall {
            instance: instance.to_owned(),
            protocol,
            address,
            body: work.body,
            token: token.into(),
            attempt,
        };
        // Bounded: with a full queue the call is dropped, and its attempt is lost and tried again.
        let _ = self.shared.service_calls.try_send(call);
    }

    /// Ends a task's call, if one is made.
    pub(crate) fn revoke_call(&self, task: &str) {
        if let Some((_, revoke)) = lock(&self.shared.calls).remove(task) {
            let _ = revoke.send(true);
        }
    }

    /// The call of this attempt has ended; a newer attempt's is not touched.
    fn forget_call(&self, task: &str, attempt: u32) {
        let mut calls = lock(&self.shared.calls);
        if calls.get(task).is_some_and(|(known, _)| *known == attempt) {
            calls.remove(task);
        }
    }

    /// An `attach` service dialed in or went away: that is its readiness.
    pub fn service_attached(&self, caller: &Caller, attached: bool) {
        let name = caller.instance.clone();
        self.writer.post_all(move |tx| {
            if let Some(state) = tx.instance_mut(&name) {
                state.attached = attached;
            }
            tx.dispatch();
        });
    }
}
