//! Who works on what: waiting tasks, free instances, and the lease that joins them.
//!
//! All of it runs on the writer's thread. `ending` says what an exit means, `park` what waits for
//! a person, `process` how a process tree is ended.

use api::fleet::Runtime;
use mainstay_core::event::Event;
use mainstay_core::restart::Class;
use mainstay_core::task::Exit;

use crate::action::Action;
use crate::state::InstanceState;
use crate::stream::FrameKind;
use crate::tx::Tx;

impl Tx<'_> {
    /// Gives waiting tasks to free instances.
    pub(crate) fn dispatch(&mut self) {
        let agents: Vec<String> = self
            .state
            .queues
            .iter()
            .filter(|(_, queue)| !queue.is_empty())
            .map(|(agent, _)| agent.clone())
            .collect();
        for agent in agents {
            self.dispatch_agent(&agent);
        }
    }

    pub(crate) fn dispatch_agent(&mut self, agent: &str) {
        if self.state.stopped.contains(agent) {
            return;
        }
        let Some(spec) = self.state.agent(agent) else {
            self.park_orphans(agent);
            return;
        };
        let concurrency = spec.concurrency.max(1);
        let is_service = matches!(spec.runtime, Runtime::Service { .. });
        if is_service {
            self.mark_awaited(agent);
        }
        let names: Vec<String> = self
            .state
            .instances
            .values()
            .filter(|state| state.instance.owner == agent)
            .map(|state| state.instance.name.clone())
            .collect();
        for name in names {
            while self.state.has_room(&name, concurrency) {
                let Some(task) = self.next_task(agent) else {
                    return;
                };
                self.lease(&task, &name, is_service);
            }
        }
    }

    pub(crate) fn next_task(&self, agent: &str) -> Option<String> {
        let queue = self.state.queues.get(agent)?;
        queue
            .iter()
            .map(|(_, id)| id)
            .find(|id| {
                let open = self.state.tasks.get(*id);
                open.is_some_and(|open| {
                    open.rests_until.is_none()
                        && !self.state.session_is_busy(&open.record)
                        && !self.state.is_ending(id)
                })
            })
            .cloned()
    }

    pub(crate) fn lease(&mut self, id: &str, instance: &str, is_service: bool) {
        let Some(today) = self
            .state
            .generation
            .as_ref()
            .map(|generation| generation.number)
        else {
            return;
        };
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let attempt = open.record.task.attempt + 1;
        let generation = open.record.task.generation.unwrap_or(today);
        // While its provider fails it rests between attempts.
        let hold_restart = open.record.task.provider_cuts > 0;
        self.start_attempt(id, attempt, instance, generation);
        let (task, instance) = (id.to_owned(), instance.to_owned());
        self.after(if is_service {
            Action::Call {
                task,
                instance,
                attempt,
            }
        } else {
            Action::Assign {
                task,
                instance,
                attempt,
                generation,
                hold_restart,
            }
        });
    }

    /// Is the task there and not ended?
    pub(crate) fn is_open_task(&self, id: &str) -> bool {
        let open = self.state.tasks.get(id);
        open.is_some_and(|open| !open.record.task.state.is_terminal())
    }

    pub(crate) fn start_attempt(
        &mut self,
        id: &str,
        attempt: u32,
        instance: &str,
        generation: u64,
    ) {
        self.local_steps_unknown(id);
        self.emit(
            id,
            "hub",
            Event::AttemptStarted {
                attempt,
                instance: instance.to_owned(),
                generation,
            },
        );
        if attempt > 1 {
            self.frame(id, FrameKind::Restart);
        }
    }

    /// A token of the next attempt was used before the facts about the one before came.
    pub(crate) fn attempt_seen(&mut self, id: &str, attempt: u32) {
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let task = &open.record.task;
        let Some(lease) = &task.lease else { return };
        let (instance, generation) = (lease.instance.clone(), task.generation);
        if attempt == lease.attempt + 1
            && let Some(generation) = generation
        {
            self.start_attempt(id, attempt, &instance, generation);
            self.after(Action::Prepare {
                task: id.to_owned(),
                instance,
                attempt: attempt + 1,
            });
        }
    }

    pub(crate) fn next_attempt(&mut self, id: &str, attempt: u32, will_restart: bool) {
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let task = &open.record.task;
        let last = task.last_instance.clone();
        if let (true, Some(instance), Some(generation)) = (will_restart, last, task.generation) {
            self.start_attempt(id, attempt + 1, &instance, generation);
            self.after(Action::Prepare {
                task: id.to_owned(),
                instance,
                attempt: attempt + 2,
            });
        } else {
            self.dispatch();
        }
    }

    /// An instance that held tasks is gone for good: they go to another.
    pub(crate) fn instance_lost(&mut self, name: &str) {
        let tasks: Vec<String> = self
            .state
            .leases
            .get(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for id in tasks {
            let Some(open) = self.state.tasks.get(&id) else {
                continue;
            };
            if open.record.task.ambient {
                self.fail(&id, "lost", "the service's process ended".into());
                continue;
            }
            let attempt = open.record.task.attempt;
            let exit = Exit {
                class: Class::KilledFromOutside,
                code: None,
                signal: None,
            };
            self.emit(&id, "hub", Event::AttemptEnded { attempt, exit });
            self.local_steps_unknown(&id);
        }
        self.dispatch();
    }

    /// The state of an instance by name.
    pub(crate) fn instance_mut(&mut self, name: &str) -> Option<&mut InstanceState> {
        self.state.instances.get_mut(name)
    }

    pub(crate) fn agent_of(&self, id: &str) -> String {
        self.state
            .tasks
            .get(id)
            .map(|open| open.record.task.agent.clone())
            .unwrap_or_default()
    }
}
