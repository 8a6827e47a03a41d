//! What instances report: exits, starts, readiness. Facts are spooled by the shim until the log
//! has them, so each may come twice; applying one twice changes nothing.

use contract::keeper::InstanceKind;
use contract::shim::{Fact, FromShim, Running, ServiceState, ServiceToken, ToShim};
use mainstay_core::event::Event;
use mainstay_core::step::StepKind;
use serde_json::json;

use crate::action::Action;
use crate::keys::{self, Claim};
use crate::shared::{ServiceIdentity, write};
use crate::tx::Tx;
use crate::{Code, HubError};

/// Incarnations a service may start without asking for a token.
const TOKENS_AHEAD: u32 = 3;
/// Steps after which an ambient task is closed and a new one begun.
const AMBIENT_STEPS: usize = 500;

impl Tx<'_> {
    /// The link stands and the shim said what runs.
    pub(crate) fn shim_hello(
        &mut self,
        name: &str,
        running: &[Running],
        service: Option<ServiceState>,
    ) {
        let Some(state) = self.instance_mut(name) else {
            return;
        };
        state.linked = true;
        state.gone_since = None;
        state.pid = running
            .first()
            .map(|running| running.pid)
            .or(service.as_ref().map(|service| service.pid));
        state.service = service.clone();
        let kind = state.instance.kind;
        if kind == InstanceKind::Service {
            self.service_changed(name, service);
            self.service_tokens(name);
        }
        self.dispatch();
    }

    /// After the facts of the time without a link have come: tasks this instance should run and
    /// doesn't are given to it again. The shim knows which attempts it has seen.
    pub(crate) fn resync(&mut self, name: &str, running: &[Running]) {
        let leased: Vec<String> = self
            .state
            .leases
            .get(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let is_service = self
            .state
            .instances
            .get(name)
            .is_some_and(|state| state.instance.kind == InstanceKind::Service);
        for task in leased {
            let Some(open) = self.state.tasks.get(&task) else {
                continue;
            };
            let Some(generation) = open.record.task.generation else {
                continue;
            };
            let attempt = open.record.task.attempt;
            let instance = name.to_owned();
            if is_service {
                self.after(Action::Call {
                    task,
                    instance,
                    attempt,
                });
            } else if running.iter().any(|running| running.task == task) {
                self.after(Action::Prepare {
                    task,
                    instance,
                    attempt: attempt + 1,
                });
            } else {
                self.after(Action::Assign {
                    task,
                    instance,
                    attempt,
                    generation,
                });
            }
        }
        // What runs and holds no lease is not wanted any more.
        for stray in running {
            let wanted = self
                .state
                .leases
                .get(name)
                .is_some_and(|leased| leased.contains(&stray.task));
            if !wanted {
                let (task, instance) = (stray.task.clone(), name.to_owned());
                self.after(Action::EndTask {
                    task,
                    instance,
                    grace_ms: 5_000,
                });
            }
        }
    }

    /// The link broke.
    pub(crate) fn shim_gone(&mut self, name: &str) {
        if let Some(state) = self.instance_mut(name) {
            state.linked = false;
            state.gone_since = Some(tokio::time::Instant::now());
        }
    }

    /// One fact.
    pub(crate) fn fact(&mut self, name: &str, at_ms: u64, fact: Fact) {
        match fact {
            Fact::AttemptStarted { task, attempt, pid } => {
                if let Some(state) = self.instance_mut(name) {
                    state.pid = Some(pid);
                    if let Some(ended_ms) = state.ended_ms.take() {
                        #[allow(
                            clippy::cast_precision_loss,
                            reason = "milliseconds between two events"
                        )]
                        self.shared
                            .metrics
                            .recovery(at_ms.saturating_sub(ended_ms) as f64);
                    }
                }
                self.attempt_seen(&task, attempt);
            }
            Fact::AttemptEnded {
                task,
                attempt,
                exit,
                will_restart,
                ..
            } => {
                if let Some(state) = self.instance_mut(name) {
                    state.pid = None;
                    state.ended_ms = will_restart.then_some(at_ms);
                    state.restarts += u64::from(will_restart);
                    state.last_exit = Some(exit.clone());
                }
                self.attempt_ended(&task, attempt, &exit, will_restart);
            }
            Fact::ServiceStarted { incarnation, pid } => {
                self.service_changed(
                    name,
                    Some(ServiceState {
                        incarnation,
                        pid,
                        ready: false,
                    }),
                );
                self.service_tokens(name);
            }
            Fact::ServiceReady { recovery_ms, .. } => {
                if let Some(ms) = recovery_ms {
                    self.shared.metrics.recovery(ms);
                }
                self.dispatch();
            }
            Fact::ServiceEnded {
                incarnation, exit, ..
            } => self.service_ended(name, incarnation, exit),
        }
    }

    fn service_ended(&mut self, name: &str, incarnation: u32, exit: contract::shim::Exit) {
        let Some(state) = self.instance_mut(name) else {
            return;
        };
        let owner = state.instance.owner.clone();
        state.restarts += u64::from(!exit.asked);
        state.attached = false;
        let is_agent = state.instance.kind == InstanceKind::Service;
        let asked = exit.asked;
        let was_ready = state.service.as_ref().is_some_and(|service| service.ready);
        let class = mainstay_core::restart::classify(
            mainstay_core::restart::Kind::Service,
            &mainstay_core::restart::Evidence {
                code: exit.code,
                signal: exit.signal,
                oom: exit.oom,
                asked,
                cut_off: false,
                ready: was_ready,
            },
        );
        state.last_exit = Some(exit);
        if state
            .service
            .as_ref()
            .is_some_and(|service| service.incarnation == incarnation)
        {
            state.service = None;
            state.pid = None;
        }
        if !asked {
            self.shared.metrics.restart(&owner, class);
        }
        if is_agent {
            self.close_ambient(name);
        }
    }

    /// The service's state as the shim tells it.
    pub(crate) fn service_changed(&mut self, name: &str, service: Option<ServiceState>) {
        let Some(state) = self.instance_mut(name) else {
            return;
        };
        state.pid = service.as_ref().map(|service| service.pid);
        state.service = service.clone();
        let owner = state.instance.owner.clone();
        if state.instance.kind != InstanceKind::Service {
            return;
        }
        let concurrency = self
            .state
            .agent(&owner)
            .map_or(1, |agent| agent.concurrency);
        let task = self
            .state
            .leases
            .get(name)
            .and_then(|leased| leased.first().cloned());
        let incarnation = service.as_ref().map_or(0, |service| service.incarnation);
        let mut services = write(&self.shared.services);
        let identity = services
            .entry(name.to_owned())
            .or_insert_with(|| ServiceIdentity {
                agent: owner.clone(),
                incarnation,
                task: None,
                concurrency,
            });
        identity.incarnation = identity.incarnation.max(incarnation);
        identity.concurrency = concurrency;
        identity.task = task.filter(|_| concurrency == 1);
        drop(services);
        self.dispatch();
    }

    fn service_tokens(&mut self, name: &str) {
        let Some(state) = self.state.instances.get(name) else {
            return;
        };
        let Some(generation) = self
            .state
            .generation
            .as_ref()
            .map(|generation| generation.number)
        else {
            return;
        };
        let from = state
            .service
            .as_ref()
            .map_or(1, |service| service.incarnation + 1);
        let agent = state.instance.owner.clone();
        let tokens: Vec<(u32, String)> = (from..from + TOKENS_AHEAD)
            .map(|incarnation| {
                let claim = Claim::Service {
                    instance: name.to_owned(),
                    incarnation,
                };
                (incarnation, self.shared.keys.token(&claim))
            })
            .collect();
        let secret_env = self
            .state
            .agent(&agent)
            .map(|agent| crate::secret::environment(self.shared, agent));
        let env = secret_env.unwrap_or_default();
        let tokens = tokens
            .into_iter()
            .map(|(incarnation, token)| ServiceToken {
                incarnation,
                token,
                env: env.clone(),
            })
            .collect();
        let message = ToShim::ServiceTokens { generation, tokens };
        self.after(Action::Shim {
            instance: name.to_owned(),
            message,
        });
    }

    fn close_ambient(&mut self, name: &str) {
        let open: Vec<String> = self
            .state
            .tasks
            .values()
            .map(|open| &open.record.task)
            .filter(|task| {
                task.ambient
                    && task
                        .lease
                        .as_ref()
                        .is_some_and(|lease| lease.instance == name)
            })
            .map(|task| task.id.clone())
            .collect();
        for id in open {
            self.emit(&id, "hub", Event::TaskCanceled);
        }
    }

    /// Opens an instance's ambient task.
    pub(crate) fn ambient_begin(
        &mut self,
        id: &str,
        instance: &str,
        agent: &str,
    ) -> Result<(), HubError> {
        if self.load(id) {
            return Ok(());
        }
        let generation = self
            .state
            .generation
            .as_ref()
            .map(|generation| generation.number);
        let generation = generation
            .ok_or_else(|| HubError::new(Code::Unavailable, "no generation is applied yet"))?;
        let key =
            keys::random_key().ok_or_else(|| HubError::new(Code::Internal, "no random bytes"))?;
        let event = Event::TaskSubmitted {
            agent: agent.to_owned(),
            session: format!("ambient-{instance}"),
            deadline_ms: None,
            parent: None,
            idempotency: None,
            ambient: true,
        };
        let mut recorded = event.with("input", json!("").to_string().into_bytes());
        recorded.payloads.push(mainstay_core::event::Payload {
            name: "key".into(),
            bytes: key.to_vec(),
        });
        self.create(id, "hub", None, recorded, key, "".into());
        self.emit(
            id,
            "hub",
            Event::AttemptStarted {
                attempt: 1,
                instance: instance.to_owned(),
                generation,
            },
        );
        Ok(())
    }

    /// An ambient task that has grown long is closed; the next call opens another.
    pub(crate) fn roll_ambient(&mut self, id: &str) {
        let long = self.state.tasks.get(id).is_some_and(|open| {
            open.record.task.ambient
                && open.record.steps.len() >= AMBIENT_STEPS
                && !open.record.steps.iter().any(|step| {
                    step.kind != StepKind::Local
                        && step.state == mainstay_core::step::StepState::InFlight
                })
        });
        if long {
            self.emit(id, "hub", Event::TaskCanceled);
        }
    }
}

/// What a message from a shim comes to; kept apart from the link so that it can be tested alone.
pub(crate) fn apply(tx: &mut Tx<'_>, name: &str, message: FromShim) {
    match message {
        FromShim::Hello {
            running, service, ..
        } => tx.shim_hello(name, &running, service),
        FromShim::Record { at_ms, fact, .. } => tx.fact(name, at_ms, fact),
        FromShim::Service { state } => tx.service_changed(name, state),
        FromShim::Listener | FromShim::Enforced { .. } => {}
    }
}
