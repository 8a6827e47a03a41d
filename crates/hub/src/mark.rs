//! Marks for the restart policy of a shim: whether a step was finished live, and whether anybody
//! waits for its service. Where nobody does it may back off for longer.
//!
//! That the last task has gone is told with the next tick; that one has come is told at once, and
//! ends the wait for the next start. What a service does by itself (its ambient task) is nobody's
//! waiting. Stdio servers are never idle: the hub doesn't know who will call one next.

use contract::keeper::InstanceKind;
use contract::shim::ToShim;

use crate::action::Action;
use crate::tx::Tx;

impl Tx<'_> {
    /// A step was finished live: the back-off of its process begins anew.
    pub(crate) fn productive(&mut self, instance: &str) {
        let idle = self.state.instances.get(instance);
        let idle = idle.is_some_and(|state| state.idle);
        self.tell_marks(instance, true, idle);
    }

    /// What a shim is told first.
    pub(crate) fn mark_anew(&mut self, instance: &str) {
        let idle = self.is_idle(instance);
        if let Some(state) = self.instance_mut(instance) {
            state.idle = idle;
        }
        self.tell_marks(instance, false, idle);
    }

    /// Services whose last task has gone.
    pub(crate) fn mark_idle(&mut self) {
        let linked = self.state.instances.values();
        let idle: Vec<String> = linked
            .filter(|state| state.instance.kind == InstanceKind::Service)
            .filter(|state| state.linked && !state.idle)
            .map(|state| state.instance.name.clone())
            .filter(|name| self.is_idle(name))
            .collect();
        for name in idle {
            self.mark_anew(&name);
        }
    }

    /// A task of this agent waits: its services come back as soon as they can.
    pub(crate) fn mark_awaited(&mut self, agent: &str) {
        let idle = self.state.instances.values();
        let idle: Vec<String> = idle
            .filter(|state| state.idle && state.instance.owner == agent)
            .map(|state| state.instance.name.clone())
            .collect();
        if idle.is_empty() || self.next_task(agent).is_none() {
            return;
        }
        for name in idle {
            self.mark_anew(&name);
        }
    }

    fn is_idle(&self, instance: &str) -> bool {
        let held = self.state.leases.get(instance);
        self.state.instances.get(instance).is_some_and(|state| {
            held.is_none_or(std::collections::BTreeSet::is_empty)
                && self.next_task(&state.instance.owner).is_none()
        })
    }

    fn tell_marks(&mut self, instance: &str, productive: bool, idle: bool) {
        self.after(Action::Shim {
            instance: instance.to_owned(),
            message: ToShim::Marks {
                hold: false,
                productive,
                idle,
            },
        });
    }
}
