//! What instances report: exits, starts, readiness. Facts are spooled by the shim until the log
//! has them, so each may come twice; applying one twice changes nothing.

use contract::keeper::InstanceKind;
use contract::shim::{Fact, FromShim, ServiceState, ServiceToken, ToShim};
use mainstay_core::event::Event;

use crate::action::Action;
use crate::keys::Claim;
use crate::shared::{ServiceIdentity, read, write};
use crate::tx::Tx;

/// A task and the attempt that holds it.
pub(crate) type Held = (String, u32);

/// Incarnations a service may start without asking for a token.
const TOKENS_AHEAD: u32 = 3;

impl Tx<'_> {
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
                // Started by itself when the task had ended or was parked already. Told again after a
                // broken link it may be of an attempt before the one that runs here by right.
                let leased = self.state.leases.get(name);
                if leased.is_some_and(|leased| leased.contains(&task)) {
                    self.attempt_seen(&task, attempt);
                } else {
                    self.note_stray(&task, attempt);
                    self.end_tree(&task, name, 0);
                }
            }
            Fact::AttemptEnded {
                task,
                attempt,
                exit,
                will_restart,
                delay_ms,
            } => {
                if let Some(state) = self.instance_mut(name) {
                    state.pid = None;
                    state.ended_ms = will_restart.then_some(at_ms);
                    state.restarts += u64::from(will_restart);
                    state.last_exit = Some(exit.clone());
                }
                self.attempt_ended(name, (&task, attempt), &exit, will_restart);
                // Without a delay the next one runs already, and its start is told next.
                if !will_restart || delay_ms > 0 {
                    self.tree_ended(&task, name);
                }
            }
            Fact::ServiceStarted { incarnation, pid } => {
                // What the shim said of this process or a newer one is newer than this.
                let known = self.state.instances.get(name);
                let known = known.and_then(|state| state.service.as_ref());
                if known.is_none_or(|known| known.incarnation < incarnation) {
                    let started = ServiceState {
                        incarnation,
                        pid,
                        ..ServiceState::default()
                    };
                    self.service_changed(name, Some(started));
                }
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

    /// An attempt that nobody leased: no other process may ever have its number.
    fn note_stray(&mut self, task: &str, attempt: u32) {
        let open = self.state.tasks.get(task);
        if open.is_some_and(|open| open.record.task.attempt < attempt) {
            let what = "started by itself".to_owned();
            self.emit(task, "shim", Event::Noted { attempt, what });
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
        let never_ran = exit.spawn_error.is_some();
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
            self.token_spent(name, incarnation);
        }
        // Nothing else tells that its stock of tokens grows smaller.
        if is_agent && never_ran {
            self.service_tokens(name);
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
                ambient: None,
                concurrency,
            });
        if incarnation > identity.incarnation {
            identity.ambient = None;
        }
        let is_void = incarnation < identity.incarnation;
        identity.incarnation = identity.incarnation.max(incarnation);
        identity.concurrency = concurrency;
        identity.task = task.filter(|_| concurrency == 1);
        drop(services);
        if let Some(state) = self.instance_mut(name)
            && let Some(service) = &mut state.service
        {
            service.ready &= !is_void;
        }
        self.replace_outdated(name);
        self.dispatch();
    }

    /// No process to come has this incarnation's token, although none may have started with it.
    fn token_spent(&self, name: &str, incarnation: u32) {
        if let Some(identity) = write(&self.shared.services).get_mut(name) {
            identity.incarnation = identity.incarnation.max(incarnation);
        }
    }

    pub(crate) fn service_tokens(&mut self, name: &str) {
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
        let spent = read(&self.shared.services)
            .get(name)
            .map_or(0, |identity| identity.incarnation);
        let running = state.service.as_ref().map(|service| service.incarnation);
        let from = running.unwrap_or(spent) + 1;
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
}

/// What a message from a shim comes to; kept apart from the link so that it can be tested alone.
pub(crate) fn apply(tx: &mut Tx<'_>, name: &str, message: FromShim) -> Vec<Held> {
    match message {
        FromShim::Hello {
            running, service, ..
        } => return tx.shim_hello(name, &running, service),
        FromShim::Record { at_ms, fact, .. } => tx.fact(name, at_ms, fact),
        FromShim::Service { state } => tx.service_changed(name, state),
        // What is said to the keeper alone.
        _ => {}
    }
    Vec::new()
}
