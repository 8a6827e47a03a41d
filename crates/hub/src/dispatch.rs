//! Who works on what: leases, what processes report, and when a task is given up or parked.
//!
//! All of it runs on the writer's thread. Decisions about exits come from `core::restart`; this
//! file turns them into events and actions.

use std::time::Duration;

use api::fleet::Runtime;
use contract::shim::Exit as ShimExit;
use mainstay_core::event::Event;
use mainstay_core::restart::{Class, Evidence, Kind, classify};
use mainstay_core::step::{StepKind, StepState};
use mainstay_core::task::{Exit, Reason, TaskState};

use crate::action::Action;
use crate::shared::write;
use crate::state::InstanceState;
use crate::stream::FrameKind;
use crate::tx::Tx;

/// Attempts that a failing provider may cut off in a row.
const PROVIDER_CUTS: u32 = 5;
/// How long after its grace the news of a tree's end may take.
const END_NEWS: Duration = Duration::from_secs(10);

/// An answer of a process.
pub(crate) struct Answer {
    pub(crate) content_type: String,
    pub(crate) output: Vec<u8>,
}

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

    fn dispatch_agent(&mut self, agent: &str) {
        if self.state.stopped.contains(agent) {
            return;
        }
        let Some(spec) = self.state.agent(agent) else {
            self.park_orphans(agent);
            return;
        };
        let concurrency = spec.concurrency.max(1);
        let is_service = matches!(spec.runtime, Runtime::Service { .. });
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

    fn next_task(&self, agent: &str) -> Option<String> {
        let queue = self.state.queues.get(agent)?;
        queue
            .iter()
            .map(|(_, id)| id)
            .find(|id| {
                let open = self.state.tasks.get(*id);
                open.is_some_and(|open| {
                    !self.state.session_is_busy(&open.record) && !self.state.is_ending(id)
                })
            })
            .cloned()
    }

    fn lease(&mut self, id: &str, instance: &str, is_service: bool) {
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
            }
        });
    }

    /// Is the task there and not ended?
    pub(crate) fn is_open_task(&self, id: &str) -> bool {
        let open = self.state.tasks.get(id);
        open.is_some_and(|open| !open.record.task.state.is_terminal())
    }

    fn start_attempt(&mut self, id: &str, attempt: u32, instance: &str, generation: u64) {
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

    /// Tasks of an Agent that is gone wait for one of that name, or for a person.
    fn park_orphans(&mut self, agent: &str) {
        let queue = self.state.queues.get(agent).cloned().unwrap_or_default();
        for (_, id) in queue {
            let message = format!(
                "agent {agent} is not in the fleet any more: bring it back or cancel the task"
            );
            self.park(&id, Reason::Interrupted, None, message);
        }
    }

    /// The Agent is back: what waited for it goes on.
    pub(crate) fn adopt_orphans(&mut self) {
        let back: Vec<String> = self
            .state
            .tasks
            .values()
            .map(|open| &open.record.task)
            .filter(|task| {
                task.reason == Some(Reason::Interrupted) && self.state.agent(&task.agent).is_some()
            })
            .map(|task| task.id.clone())
            .collect();
        for id in back {
            self.emit(&id, "hub", Event::TaskResumed);
        }
    }

    /// Parks a task: its process ends, its lease returns, nothing is counted.
    pub(crate) fn park(&mut self, id: &str, reason: Reason, step: Option<u32>, message: String) {
        self.end_process(id);
        self.dispatch_later();
        self.emit(
            id,
            "hub",
            Event::TaskParked {
                reason,
                step,
                message: message.clone(),
            },
        );
        self.frame(
            id,
            FrameKind::Question {
                step,
                reason: reason.word().to_owned(),
                text: message,
            },
        );
    }

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

    /// A shim reports that an attempt's process tree has ended.
    pub(crate) fn attempt_ended(
        &mut self,
        instance: &str,
        (id, attempt): (&str, u32),
        exit: &ShimExit,
        will_restart: bool,
    ) {
        if !self.load(id) {
            return;
        }
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let task = &open.record.task;
        let is_current = task
            .lease
            .as_ref()
            .is_some_and(|lease| lease.attempt == attempt && lease.instance == instance);
        let cut_off = task.cut_off == Some(attempt);
        let class = self.exit_class(exit, cut_off);
        if !is_current {
            if attempt <= task.attempt {
                self.emit(
                    id,
                    "shim",
                    Event::Noted {
                        attempt,
                        what: format!("ended: {}", class.name()),
                    },
                );
            }
            return;
        }
        let answer = (class == Class::Done).then(|| answer_of(&exit.stdout));
        let reason = exit
            .spawn_error
            .clone()
            .or_else(|| last_lines(&exit.stderr_tail))
            .or_else(|| (class != Class::Final).then(|| how_it_ended(exit)));
        let recorded = ended_event(attempt, class, exit);
        // The shim ends a process that goes on writing; the next attempt would write as much.
        if exit.stdout_truncated {
            self.emit(id, "shim", recorded);
            let message = "its answer on standard output is larger than 8 MiB: let it write a file and answer with its name";
            self.fail(id, "too_large", message.to_owned());
            return;
        }
        self.emit(id, "shim", recorded);
        self.local_steps_unknown(id);
        self.after_end(id, attempt, class, answer, reason, will_restart);
    }

    fn exit_class(&self, exit: &ShimExit, cut_off: bool) -> Class {
        let evidence = Evidence {
            code: exit.code,
            signal: exit.signal,
            oom: exit.oom,
            asked: exit.asked,
            cut_off,
            ready: exit.spawn_error.is_none(),
        };
        if exit.spawn_error.is_some() {
            Class::Configuration
        } else {
            classify(Kind::Attempt, &evidence)
        }
    }

    /// What an end means for the task.
    fn after_end(
        &mut self,
        id: &str,
        attempt: u32,
        class: Class,
        answer: Option<Answer>,
        reason: Option<String>,
        will_restart: bool,
    ) {
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let task = &open.record.task;
        let refused = task
            .refused
            .clone()
            .filter(|refused| refused.attempt == attempt);
        match (class, answer) {
            (Class::Done, Some(answer)) => return self.complete(id, answer),
            (Class::Final, _) => {
                return self.fail(
                    id,
                    "agent",
                    reason.unwrap_or_else(|| "the agent gave up (exit 78)".into()),
                );
            }
            _ => {}
        }
        if let Some(refused) = refused {
            self.end_process_of_instance(id);
            return self.fail(id, &refused.code, refused.message);
        }
        if class.counted() && self.give_up(id, class, reason) {
            return;
        }
        if class == Class::CutOff && self.provider_is_down(id) {
            return;
        }
        self.shared.metrics.restart(&self.agent_of(id), class);
        self.next_attempt(id, attempt, will_restart);
    }

    /// A service's attempt ended without an answer.
    pub(crate) fn service_attempt_over(
        &mut self,
        id: &str,
        attempt: u32,
        class: Class,
        message: String,
    ) {
        self.after_end(id, attempt, class, None, Some(message), false);
    }

    /// Attempts that a failing provider cut off are no crashes, but going on for ever is no help
    /// either: after some in a row the task waits, and says what the provider said.
    fn provider_is_down(&mut self, id: &str) -> bool {
        let Some(open) = self.state.tasks.get(id) else {
            return true;
        };
        let cuts = open.record.task.provider_cuts;
        if cuts < PROVIDER_CUTS {
            return false;
        }
        let said = self
            .last_failure(id)
            .map(|said| format!(": {said}"))
            .unwrap_or_default();
        let message = format!(
            "{cuts} attempts in a row ended because the provider failed{said}. When it works again: mainstay task retry {id}"
        );
        self.end_process_of_instance(id);
        self.park(id, Reason::Provider, None, message);
        true
    }

    /// What the newest failed call's answer says.
    fn last_failure(&self, id: &str) -> Option<String> {
        let open = self.state.tasks.get(id)?;
        let failed = open
            .record
            .steps
            .iter()
            .rev()
            .find(|step| step.state == StepState::Failed)?;
        let answer = failed.answer.as_ref()?;
        let body = crate::input::payload_json(self.state.log.read(), answer.seq, "answer").ok()?;
        let message = body
            .pointer("/error/message")
            .or_else(|| body.get("message"))?;
        Some(message.as_str()?.chars().take(500).collect())
    }

    fn next_attempt(&mut self, id: &str, attempt: u32, will_restart: bool) {
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

    /// Poison and too many crashes end the trying. Returns whether they did.
    fn give_up(&mut self, id: &str, class: Class, reason: Option<String>) -> bool {
        let Some(open) = self.state.tasks.get(id) else {
            return true;
        };
        let task = &open.record.task;
        let why = reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let max = self
            .state
            .agent(&task.agent)
            .map_or(10, |agent| agent.max_attempts);
        let (faults, repeats) = (task.faults, task.fault_repeats);
        if faults >= max {
            self.end_process_of_instance(id);
            self.fail(
                id,
                "attempts",
                format!("{faults} attempts ended by a crash of their own{why}"),
            );
            return true;
        }
        if repeats >= 2 {
            let session = task.session.clone();
            let message = format!(
                "two attempts in a row ended alike ({}) with nothing done between{why}",
                class.name()
            );
            self.end_process_of_instance(id);
            self.park(id, Reason::Poison, None, message);
            self.park_session(&session, id);
            return true;
        }
        false
    }

    /// The shim may already have started another attempt: it ends.
    fn end_process_of_instance(&mut self, id: &str) {
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

    fn park_session(&mut self, session: &str, first: &str) {
        let others: Vec<String> = self
            .state
            .tasks
            .values()
            .map(|open| &open.record.task)
            .filter(|task| task.session == session && task.id != first && !task.ambient)
            .filter(|task| !task.state.is_terminal() && !task.state.is_parked())
            .map(|task| task.id.clone())
            .collect();
        for id in others {
            self.park(
                &id,
                Reason::Poison,
                None,
                format!("an earlier task of this session is poison: {first}"),
            );
        }
    }

    /// The task is done.
    pub(crate) fn complete(&mut self, id: &str, answer: Answer) {
        let diverged_at = self.diverged_at(id);
        let event = Event::TaskCompleted {
            content_type: answer.content_type,
            diverged_at,
        };
        self.emit(id, "agent", event.with("output", answer.output));
        self.ended(id);
    }

    /// The task has failed.
    pub(crate) fn fail(&mut self, id: &str, code: &str, message: String) {
        let diverged_at = self.diverged_at(id);
        self.emit(
            id,
            "hub",
            Event::TaskFailed {
                code: code.to_owned(),
                message,
                diverged_at,
            },
        );
        self.ended(id);
    }

    /// After a terminal event: clients are told and others get their turn.
    pub(crate) fn ended(&mut self, id: &str) {
        self.after_end_frame(id);
        self.dispatch();
    }

    fn diverged_at(&self, id: &str) -> Option<u32> {
        let open = self.state.tasks.get(id)?;
        mainstay_core::step::diverged_at(&open.record.steps, open.record.task.attempt)
    }

    fn agent_of(&self, id: &str) -> String {
        self.state
            .tasks
            .get(id)
            .map(|open| open.record.task.agent.clone())
            .unwrap_or_default()
    }

    /// Calls that the ended process made by itself: nobody can know how far they came.
    fn local_steps_unknown(&mut self, id: &str) {
        let local: Vec<u32> = self.state.tasks.get(id).map_or_else(Vec::new, |open| {
            let steps = open.record.steps.iter();
            steps
                .filter(|step| step.kind == StepKind::Local && step.state == StepState::InFlight)
                .map(|step| step.n)
                .collect()
        });
        for n in local {
            self.emit(id, "hub", Event::StepUnknown { n });
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

    /// Deadlines and time budgets that have passed.
    pub(crate) fn expire(&mut self) {
        let now = tokio::time::Instant::now();
        let due: Vec<String> = self
            .state
            .tasks
            .iter()
            .filter(|(_, open)| {
                open.due.is_some_and(|due| due <= now) && !open.record.task.state.is_terminal()
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.end_process(&id);
            self.fail(&id, "deadline", "the task's deadline has passed".into());
        }
    }

    /// The state of an instance by name.
    pub(crate) fn instance_mut(&mut self, name: &str) -> Option<&mut InstanceState> {
        self.state.instances.get_mut(name)
    }

    fn after_end_frame(&mut self, id: &str) {
        let Some(open) = self.state.tasks.get(id) else {
            return;
        };
        let task = &open.record.task;
        if task.ambient {
            return;
        }
        if task.state == TaskState::Failed {
            let code = task.error_code.clone().unwrap_or_default();
            let message = task.error_message.clone().unwrap_or_default();
            self.frame(id, FrameKind::Error { code, message });
        } else {
            self.finished(id);
        }
    }
}

fn ended_event(attempt: u32, class: Class, exit: &ShimExit) -> mainstay_core::event::Recorded {
    let event = Event::AttemptEnded {
        attempt,
        exit: Exit {
            class,
            code: exit.code,
            signal: exit.signal,
        },
    };
    let text = exit.spawn_error.as_deref().unwrap_or(&exit.stderr_tail);
    if text.is_empty() {
        event.into()
    } else {
        event.with("stderr", text.as_bytes().to_vec())
    }
}

/// Standard output as an answer: text less its last line break, as a shell's `$(…)` has it, or
/// JSON after a first line `Content-Type: application/json` and an empty one.
fn answer_of(stdout: &str) -> Answer {
    let normal = stdout
        .strip_prefix("Content-Type:")
        .or_else(|| stdout.strip_prefix("content-type:"));
    if let Some(rest) = normal {
        let blank = rest
            .find("\n\n")
            .map(|at| (at, 2))
            .or_else(|| rest.find("\r\n\r\n").map(|at| (at, 4)));
        if let Some((at, len)) = blank
            && rest[..at].trim().starts_with("application/json")
        {
            let body = rest[at + len..].trim();
            if serde_json::from_str::<serde_json::Value>(body).is_ok() {
                return Answer {
                    content_type: "application/json".into(),
                    output: body.as_bytes().to_vec(),
                };
            }
        }
    }
    let text = stdout.strip_suffix('\n').unwrap_or(stdout);
    Answer {
        content_type: "text/plain; charset=utf-8".into(),
        output: text.as_bytes().to_vec(),
    }
}

/// The end of standard error as a reason: its last lines.
/// For an end that left nothing on standard error.
fn how_it_ended(exit: &ShimExit) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an end unseen".to_owned(),
    };
    format!("{how}, with nothing on standard error")
}

fn last_lines(stderr: &str) -> Option<String> {
    let lines: Vec<&str> = stderr.trim_end().lines().rev().take(3).collect();
    let text = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_output_is_text_or_declared_json() {
        let check = |stdout: &str, kind: &str, output: &str| {
            let answer = answer_of(stdout);
            assert!(answer.content_type.starts_with(kind), "{stdout:?}");
            assert_eq!(answer.output, output.as_bytes(), "{stdout:?}");
        };
        check("hello\n", "text/plain", "hello");
        check("two\nlines\n\n", "text/plain", "two\nlines\n");
        check(
            "Content-Type: application/json\n\n{\"a\": 1}\n",
            "application/json",
            "{\"a\": 1}",
        );
        check(
            "Content-Type: application/json\n\nnot json",
            "text/plain",
            "Content-Type: application/json\n\nnot json",
        );
    }
}
