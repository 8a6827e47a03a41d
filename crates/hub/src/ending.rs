//! What the end of an attempt means: done, failed, tried again, or given up.
//!
//! Classes come from `core::restart`; this file turns them into events and actions.

use contract::shim::Exit as ShimExit;
use mainstay_core::event::Event;
use mainstay_core::restart::{Class, Evidence, Kind, classify};
use mainstay_core::step::{StepKind, StepState};
use mainstay_core::task::{Exit, Reason, TaskState};

use crate::stream::FrameKind;
use crate::tx::Tx;

/// An answer of a process.
pub(crate) struct Answer {
    pub(crate) content_type: String,
    pub(crate) output: Vec<u8>,
}

impl Tx<'_> {
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
        let cut_off = task.cut_off == Some(attempt) || open.unheard == Some(attempt);
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
        let is_whole = class == Class::Done && !exit.stdout_truncated;
        let answer = is_whole.then(|| answer_of(&exit.stdout));
        let answer = match answer.transpose() {
            Ok(answer) => answer,
            // Another attempt would be given the same recorded answers and write the same.
            Err(why) => {
                self.emit(id, "shim", ended_event(attempt, class, exit));
                return self.fail(id, "agent", why);
            }
        };
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

    pub(crate) fn exit_class(&self, exit: &ShimExit, cut_off: bool) -> Class {
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
    pub(crate) fn after_end(
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
        if class == Class::CutOff && self.rest(id, attempt) {
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

    /// Poison and too many crashes end the trying. Returns whether they did.
    pub(crate) fn give_up(&mut self, id: &str, class: Class, reason: Option<String>) -> bool {
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
        self.cancel_children(id, "hub");
        self.ended(id);
    }

    /// The task is canceled, and what it called.
    pub(crate) fn cancel(&mut self, id: &str, author: &str) {
        self.end_process(id);
        self.emit(id, author, Event::TaskCanceled);
        self.cancel_children(id, author);
        self.ended(id);
    }

    /// Nobody waits for what the agents do that an ended task called.
    fn cancel_children(&mut self, id: &str, author: &str) {
        let open = self.state.tasks.values().map(|open| &open.record.task);
        let children: Vec<String> = open
            .filter(|task| !task.state.is_terminal())
            .filter(|task| task.parent.as_ref().is_some_and(|parent| parent.task == id))
            .map(|task| task.id.clone())
            .collect();
        for child in children {
            self.cancel(&child, author);
        }
    }

    /// After a terminal event: clients are told and others get their turn.
    pub(crate) fn ended(&mut self, id: &str) {
        self.after_end_frame(id);
        self.parent_goes_on(id);
        self.dispatch();
    }

    pub(crate) fn diverged_at(&self, id: &str) -> Option<u32> {
        let open = self.state.tasks.get(id)?;
        let attempt = open.record.task.attempt;
        if open.inherited == Some(attempt) {
            // What it used before its hub died nobody knows: a report must not be made up.
            return None;
        }
        mainstay_core::step::diverged_at(&open.record.steps, attempt)
    }

    /// Calls that the ended process made by itself: nobody can know how far they came.
    pub(crate) fn local_steps_unknown(&mut self, id: &str) {
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

    pub(crate) fn after_end_frame(&mut self, id: &str) {
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
fn answer_of(stdout: &str) -> Result<Answer, String> {
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
            return match json_fault(body.as_bytes()) {
                None => Ok(Answer {
                    content_type: "application/json".into(),
                    output: body.as_bytes().to_vec(),
                }),
                Some(fault) => Err(format!(
                    "its answer says Content-Type: application/json, but what follows is no JSON: {fault}"
                )),
            };
        }
    }
    let text = stdout.strip_suffix('\n').unwrap_or(stdout);
    Ok(Answer {
        content_type: "text/plain; charset=utf-8".into(),
        output: text.as_bytes().to_vec(),
    })
}

/// What says that it is JSON must be JSON, as whoever shows it will read it: clients would get a
/// text where they expect an object. Skipping over it would let through what can't be read.
pub fn json_fault(body: &[u8]) -> Option<String> {
    let read = serde_json::from_slice::<serde_json::Value>(body);
    read.err().map(|error| error.to_string())
}

/// In the program's own last words, where it had some.
pub(crate) fn why_it_ended(exit: &ShimExit) -> String {
    let said = exit.spawn_error.clone();
    said.or_else(|| last_lines(&exit.stderr_tail))
        .unwrap_or_else(|| how_it_ended(exit))
}

/// For an end that left nothing on standard error.
fn how_it_ended(exit: &ShimExit) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an end unseen".to_owned(),
    };
    format!("{how}, with nothing on standard error")
}

/// The end of standard error as a reason: its last lines.
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
            let answer = answer_of(stdout).unwrap();
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
            "Content-Type: text\n\nx",
            "text/plain",
            "Content-Type: text\n\nx",
        );
    }

    #[test]
    fn an_answer_that_calls_itself_json_is_json_or_no_answer() {
        for body in [
            "not json",
            "{\"a\": ",
            "",
            "{} {}",
            "1e999",
            "\"\\ud800\"",
            &"[".repeat(200),
        ] {
            let answer = answer_of(&format!("Content-Type: application/json\n\n{body}"));
            let told = answer.map(|answer| answer.content_type).unwrap_err();
            assert!(told.starts_with("its answer says"), "{told}");
        }
    }
}
