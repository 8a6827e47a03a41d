//! Links to shims that come and go: what an instance runs when its shim says hello, what it should
//! run and doesn't, what it runs and shouldn't, and that it is out of reach.

use contract::keeper::InstanceKind;
use contract::shim::{Running, ServiceState, ToShim};
use mainstay_core::event::Event;

use crate::action::Action;
use crate::fact::Held;
use crate::shared::lock;
use crate::tx::Tx;

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
            // Before any order to replace what runs: the next process starts with these.
            self.service_tokens(name);
            self.service_changed(name, service.clone());
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
            // Connected to and left before it spoke, it is away since before that.
            state
                .gone_since
                .get_or_insert_with(tokio::time::Instant::now);
        }
    }

    /// The facts of the time without a link are in: now it may be given more.
    pub(crate) fn settled(&mut self, name: &str) {
        if let Some(state) = self.instance_mut(name) {
            state.settled = state.linked;
            self.dispatch();
        }
    }
}
