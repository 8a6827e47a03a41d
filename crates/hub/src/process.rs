//! Ending processes: the tree that holds a task, or the service that spoke for it. A tree's
//! instance takes nothing new until its end was told, or its time to tell is up.

use std::time::Duration;

use crate::action::Action;
use crate::shared::{read, write};
use crate::tx::Tx;

/// How long after its grace the news of a tree's end may take.
const END_NEWS: Duration = Duration::from_secs(10);

impl Tx<'_> {
    /// Ends the process that holds a task, if one does.
    pub(crate) fn end_process(&mut self, id: &str) {
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let Some(lease) = open.record.task.lease.clone() else {
            return;
        };
        let agent = self.state.agent(&open.record.task.agent);
        let grace_ms = agent.map_or(5_000, |agent| agent.grace_ms);
        let own_tokens = agent.is_some_and(|agent| agent.concurrency > 1);
        let is_service = self
            .state
            .instances
            .get(&lease.instance)
            .is_some_and(|state| state.instance.kind == contract::keeper::InstanceKind::Service);
        let task = id.to_owned();
        if is_service {
            self.after(Action::Revoke { task });
            if !own_tokens {
                self.replace_service(&lease.instance, grace_ms);
            }
        } else {
            self.end_tree(&task, &lease.instance, grace_ms);
        }
    }

    /// A service's process that speaks with one token for all its tasks is replaced: the next task
    /// must not be answered for by what still works on this one. Its token is void from here on.
    pub(crate) fn replace_service(&mut self, instance: &str, grace_ms: u64) {
        if let Some(identity) = write(&self.shared.services).get_mut(instance) {
            identity.incarnation += 1;
            identity.task = None;
        }
        if let Some(state) = self.instance_mut(instance) {
            state.attached = false;
            if let Some(service) = &mut state.service {
                service.ready = false;
            }
        }
        self.after(Action::Shim {
            instance: instance.to_owned(),
            message: contract::shim::ToShim::RestartService { grace_ms },
        });
    }

    /// A service's process that today's generation wouldn't start, and that works on nothing (any
    /// more), makes room for one that it would.
    pub(crate) fn replace_outdated(&mut self, instance: &str) {
        let Some(state) = self.state.instances.get(instance) else {
            return;
        };
        let Some(service) = state.service.as_ref().filter(|service| service.outdated) else {
            return;
        };
        let leased = self.state.leases.get(instance);
        let is_busy = leased.is_some_and(|leased| !leased.is_empty());
        let newest = read(&self.shared.services)
            .get(instance)
            .map_or(0, |identity| identity.incarnation);
        // Its token is void: the order went out already, or goes out again with the next hello.
        let is_ordered = service.incarnation < newest;
        if is_busy || is_ordered {
            return;
        }
        let agent = self.state.agent(&state.instance.owner);
        let grace_ms = agent.map_or(5_000, |agent| agent.grace_ms);
        self.replace_service(instance, grace_ms);
    }

    /// Has a shim end what it runs of a task that it no longer holds. Until the shim says that the
    /// tree has ended, nobody gets the task and the instance gets no other.
    pub(crate) fn end_tree(&mut self, task: &str, instance: &str, grace_ms: u64) {
        if let Some(state) = self.instance_mut(instance)
            && state.linked
        {
            let until = tokio::time::Instant::now() + Duration::from_millis(grace_ms) + END_NEWS;
            state.ending.insert(task.to_owned(), until);
        }
        self.after(Action::EndTask {
            task: task.to_owned(),
            instance: instance.to_owned(),
            grace_ms,
        });
    }

    /// The tree has ended: the task and the instance are free.
    pub(crate) fn tree_ended(&mut self, task: &str, instance: &str) {
        if let Some(state) = self.instance_mut(instance)
            && state.ending.remove(task).is_some()
        {
            self.dispatch();
        }
    }

    /// A shim that never said that a tree has ended doesn't hold its task for ever: the fence does
    /// without it.
    pub(crate) fn give_up_endings(&mut self) {
        let now = tokio::time::Instant::now();
        let mut freed = false;
        for state in self.state.instances.values_mut() {
            let before = state.ending.len();
            state.ending.retain(|_, until| *until > now);
            freed |= state.ending.len() < before;
        }
        if freed {
            self.dispatch();
        }
    }

    /// The shim may already have started another attempt: it ends.
    pub(crate) fn end_process_of_instance(&mut self, id: &str) {
        if let Some(instance) = self
            .state
            .tasks
            .get(id)
            .and_then(|open| open.record.task.last_instance.clone())
        {
            self.after(Action::EndTask {
                task: id.to_owned(),
                instance,
                grace_ms: 0,
            });
        }
    }
}
