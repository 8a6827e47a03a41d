//! What instances report: exits, starts, readiness. Facts are spooled by the shim until the log
//! has them, so each may come twice; applying one twice changes nothing.

use contract::keeper::InstanceKind;
use contract::shim::{Fact, FromShim, Running, ServiceState, ServiceToken, ToShim};
use mainstay_core::event::Event;
use mainstay_core::step::StepKind;
use serde_json::json;

use crate::action::Action;
use crate::keys::{self, Claim};
use crate::shared::{ServiceIdentity, lock, write};
use crate::tx::Tx;
use crate::{Code, HubError};

/// A task and the attempt that holds it.
pub(crate) type Held = (String, u32);

/// Incarnations a service may start without asking for a token.
const TOKENS_AHEAD: u32 = 3;
/// Steps after which an ambient task is closed and a new one begun.
const AMBIENT_STEPS: usize = 500;
/// What runs for no task has this long to end.
const STRAY_GRACE_MS: u64 = 5_000;

impl Tx<'_> {
    /// The link stands and the shim said what runs. Returns what the instance held before: only
    /// that is looked at again when the facts have come, for what is given over this link needs no
    /// second order.
    pub(crate) fn shim_hello(
        &mut self,
        name: &str,
        running: &[Running],
        service: Option<ServiceState>,
    ) -> Vec<Held> {
        let Some(state) = self.instance_mut(name) else {
            return Vec::new();
        };
        state.linked = true;
        state.settled = false;
        state.gone_since = None;
        state.ending.clear();
        state.pid = running
            .first()
            .map(|running| running.pid)
            .or(service.as_ref().map(|service| service.pid));
        state.service = service.clone();
        let kind = state.instance.kind;
        let held = self.held_by(name);
        if kind == InstanceKind::Service {
            self.service_changed(name, service.clone());
            self.service_tokens(name);
            self.mark_anew(name);
            self.replace_void(name, service);
        } else {
            self.end_strays(name, running);
        }
        self.dispatch();
        held
    }

    /// A process whose token is void, because the order to replace it got lost with the link.
    fn replace_void(&mut self, name: &str, service: Option<ServiceState>) {
        let Some(service) = service else { return };
        let newest = crate::shared::read(&self.shared.services)
            .get(name)
            .map_or(0, |identity| identity.incarnation);
        if service.incarnation < newest {
            self.after(Action::Shim {
                instance: name.to_owned(),
                message: ToShim::RestartService {
                    grace_ms: STRAY_GRACE_MS,
                },
            });
        }
    }

    fn held_by(&self, name: &str) -> Vec<Held> {
        let leased = self.state.leases.get(name).into_iter().flatten();
        leased
            .filter_map(|id| {
                let open = self.state.tasks.get(id)?;
                Some((id.clone(), open.record.task.attempt))
            })
            .collect()
    }

    /// What runs and holds no lease is not wanted any more.
    fn end_strays(&mut self, name: &str, running: &[Running]) {
        for stray in running {
            let wanted = self
                .state
                .leases
                .get(name)
                .is_some_and(|leased| leased.contains(&stray.task));
            if !wanted {
                self.end_tree(&stray.task, name, STRAY_GRACE_MS);
            }
        }
    }

    /// After the facts of the time without a link have come: tasks this instance should run and
    /// doesn't are given to it again. The shim knows which attempts it has seen.
    pub(crate) fn resync(&mut self, name: &str, running: &[Running], held: Vec<Held>) {
        let Some(state) = self.instance_mut(name) else {
            return;
        };
        let is_service = state.instance.kind == InstanceKind::Service;
        for (task, attempt) in held {
            if !self.holds(&task, attempt) {
                continue;
            }
            let known = self.state.tasks.get(&task).map(|open| &open.record.task);
            let hold_restart = known.is_some_and(|task| task.provider_cuts > 0);
            let Some(generation) = known.and_then(|task| task.generation) else {
                continue;
            };
            let instance = name.to_owned();
            if is_service {
                self.call_again(&task, attempt, name);
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
                    hold_restart,
                });
            }
        }
    }

    /// A service's task whose call no hub holds any more: the call ended with its hub, so a new
    /// attempt begins, which replays. What still works on the old one must not speak for it.
    fn call_again(&mut self, task: &str, attempt: u32, name: &str) {
        if lock(&self.shared.calls).contains_key(task) {
            return;
        }
        let exit = mainstay_core::task::Exit {
            class: mainstay_core::restart::Class::CutOff,
            code: None,
            signal: None,
        };
        self.end_process(task);
        self.emit(task, "hub", Event::AttemptEnded { attempt, exit });
        tracing::debug!(task, instance = name, "its call ended with the last hub");
        self.dispatch();
    }

    /// The link broke.
    pub(crate) fn shim_gone(&mut self, name: &str) {
        if let Some(state) = self.instance_mut(name) {
            state.linked = false;
            // Out of reach the fence alone counts.
            state.ending.clear();
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

    /// An attempt that nobody leased: no other process may ever have its number.
    fn note_stray(&mut self, task: &str, attempt: u32) {
        let open = self.state.tasks.get(task);
        if open.is_some_and(|open| open.record.task.attempt < attempt) {
            let what = "started by itself".to_owned();
            self.emit(task, "shim", Event::Noted { attempt, what });
        }
    }

    /// The facts of the time without a link are in: now it may be given more.
    pub(crate) fn settled(&mut self, name: &str) {
        if let Some(state) = self.instance_mut(name) {
            state.settled = state.linked;
            self.dispatch();
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

    pub(crate) fn close_ambient(&mut self, name: &str) {
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

    /// Ambient tasks of instances that are no more.
    pub(crate) fn close_ambient_of_none(&mut self) {
        let tasks = self.state.tasks.values().map(|open| &open.record.task);
        let names: std::collections::BTreeSet<String> = tasks
            .filter(|task| task.ambient)
            .filter_map(|task| Some(task.lease.as_ref()?.instance.clone()))
            .filter(|name| !self.state.instances.contains_key(name))
            .collect();
        for name in names {
            self.close_ambient(&name);
        }
    }

    /// The ambient task of a service's incarnation: the one that is open, or a new one.
    pub(crate) fn ambient_begin(
        &mut self,
        instance: &str,
        agent: &str,
        incarnation: u32,
    ) -> Result<String, HubError> {
        let mut round = 0_u32;
        let id = loop {
            let id = self.ambient_id(instance, incarnation, round);
            match self.is_open(&id)? {
                Some(true) => {
                    self.load(&id);
                    self.note_ambient(instance, &id);
                    return Ok(id);
                }
                Some(false) => round = round.saturating_add(1),
                None => break id,
            }
        };
        self.ambient_open(&id, instance, agent)?;
        self.note_ambient(instance, &id);
        Ok(id)
    }

    fn ambient_id(&self, instance: &str, incarnation: u32, round: u32) -> String {
        self.shared.keys.derived_id(&[
            b"ambient",
            instance.as_bytes(),
            &incarnation.to_be_bytes(),
            &round.to_be_bytes(),
        ])
    }

    /// Whether a task is open; `None` if there is none of this id.
    fn is_open(&self, id: &str) -> Result<Option<bool>, HubError> {
        if let Some(open) = self.state.tasks.get(id) {
            return Ok(Some(!open.record.task.state.is_terminal()));
        }
        let row = self.state.log.read().task(id).map_err(|error| {
            HubError::new(Code::Internal, format!("failed to read the log: {error}"))
        })?;
        Ok(row.map(|row| !store::TERMINAL_STATES.contains(&row.state.as_str())))
    }

    fn note_ambient(&self, instance: &str, id: &str) {
        if let Some(identity) = write(&self.shared.services).get_mut(instance) {
            identity.ambient = Some(id.to_owned());
        }
    }

    fn ambient_open(&mut self, id: &str, instance: &str, agent: &str) -> Result<(), HubError> {
        let generation = self
            .state
            .generation
            .as_ref()
            .map(|generation| generation.number);
        let generation = generation
            .ok_or_else(|| HubError::new(Code::Unavailable, "no generation is applied yet"))?;
        let key = keys::random_key(self.shared.ground.as_ref())?;
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
            let steps = &open.record.steps;
            let idle = || {
                !steps.iter().any(|step| {
                    step.kind != StepKind::Local
                        && step.state == mainstay_core::step::StepState::InFlight
                })
            };
            // One that is never idle is closed all the same: its calls are still recorded.
            open.record.task.ambient
                && (steps.len() >= 4 * AMBIENT_STEPS || steps.len() >= AMBIENT_STEPS && idle())
        });
        if long {
            self.emit(id, "hub", Event::TaskCanceled);
        }
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
        FromShim::Listener | FromShim::Enforced { .. } | FromShim::OutOfReach { .. } => {}
    }
    Vec::new()
}
