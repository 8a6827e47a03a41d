//! A task: one unit of work with A2A's states, its attempts and its lease.
//!
//! `apply` is the only way a task changes, and it sees events only, so the state after a restart
//! is the state before it. Reasons (`interrupted`, `poison` …) qualify a state, they are none.

mod apply;
mod apply_step;
mod moving;
mod state;

use serde::{Deserialize, Serialize};

use crate::restart::Class;
use crate::step::{Step, StepState};
use crate::usage::{Cost, Usage};

pub use apply::{apply, create};
pub use state::{Reason, TaskState};

/// The task and step that called an agent as a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    pub task: String,
    pub step: String,
}

/// What a person says about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResumeAs {
    /// It happened; its result may be given.
    Done,
    /// Send it (again).
    Repeat,
    /// The step fails; the agent gets an error as its answer.
    Fail,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    pub class: Class,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

/// One process's hold on a task. The attempt number is the fencing epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub attempt: u32,
    pub instance: String,
    pub started_ms: i64,
}

/// A call that budget or policy refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    pub attempt: u32,
    pub code: String,
    pub message: String,
}

/// How a task stood when its session was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    pub moved_ms: i64,
    pub reason: Option<Reason>,
    pub message: Option<String>,
}

/// A task without its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    pub id: String,
    pub agent: String,
    pub session: String,
    pub state: TaskState,
    pub reason: Option<Reason>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// The step a person is asked about.
    pub asked_step: Option<u32>,
    pub parent: Option<Parent>,
    pub ambient: bool,
    pub deadline_ms: Option<i64>,
    /// Since when it waits for a person, and for how long it did before: that is no time of its
    /// budget.
    #[serde(default)]
    pub parked_ms: Option<i64>,
    #[serde(default)]
    pub waited_ms: u64,
    pub created_ms: i64,
    pub updated_ms: i64,
    /// Entry of the submission: payloads `input` and `key`.
    pub input_seq: u64,
    /// Entry of the completion: payload `output`.
    pub output_seq: Option<u64>,
    pub output_type: Option<String>,
    /// Pinned by the first attempt.
    pub generation: Option<u64>,
    /// The last attempt's number; also the fencing epoch.
    pub attempt: u32,
    pub lease: Option<Lease>,
    /// Attempts ended by a fault of their own since the last retry.
    pub faults: u32,
    /// The class of the last attempt if it was such a fault and no step finished live since.
    pub fault_class: Option<Class>,
    /// How many attempts in a row ended with that class and no step finished live between.
    pub fault_repeats: u32,
    /// Who held it last.
    pub last_instance: Option<String>,
    /// A call of this attempt was broken by the hub's death or a provider: its exit is no crash.
    pub cut_off: Option<u32>,
    /// The attempt in which a provider failed last, and how many attempts in a row ended by that
    /// with no step finished live between.
    pub provider_failed: Option<u32>,
    pub provider_cuts: u32,
    pub last_exit: Option<Exit>,
    /// A refusal that stands: the task fails with it if the attempt that got it fails.
    pub refused: Option<Refused>,
    pub diverged_at: Option<u32>,
    pub repeated: u32,
    pub usage: Usage,
    pub cost: Cost,
    /// Delivered to the attempt that ended the task, and how many of those came from the journal.
    pub delivered: u32,
    pub replayed: u32,
    /// It is somewhere else now. Left out of the row where it isn't: rows of logs that know no
    /// moving stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// A task with its steps in intent order; `steps[i].n == i + 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecord {
    pub task: Task,
    pub steps: Vec<Step>,
}

impl TaskRecord {
    /// The step of that number.
    #[must_use]
    pub fn step(&self, n: u32) -> Option<&Step> {
        self.steps.get((n as usize).checked_sub(1)?)
    }

    /// Steps delivered to the current attempt, and those of them that came from the journal.
    ///
    /// `completed`: an attempt that ended well has read what it asked for, also where the mark
    /// that says so died with a hub or is still on its way. Matching never assumes that: there, in
    /// doubt, the answer is repeated.
    #[must_use]
    pub fn counts(&self, completed: bool) -> (u32, u32) {
        let mut counts = (0, 0);
        for step in &self.steps {
            let mark = step.mark_in(self.task.attempt);
            let read = completed && mark.used && step.state == StepState::Finished;
            if mark.delivered || read {
                counts.0 += 1;
                counts.1 += u32::from(mark.replayed);
            }
        }
        counts
    }
}
