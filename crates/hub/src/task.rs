//! Tasks as clients ask for them: submit, show, wait for, and a person's word on them, a file each.
//!
//! Every change is a job of the writer that checks first and emits afterwards, with whoever asked
//! as the entry's author. Reading goes past the writer wherever the store knows enough. Who works
//! on a task is `dispatch.rs`; what becomes of its calls is `step.rs`.

mod person;
mod show;
mod submit;
mod wait;

use mainstay_core::task::ResumeAs;

pub use submit::is_session_name;

/// A unit of work from a client.
#[derive(Clone, Debug, Default)]
pub struct SubmitTask {
    pub agent: String,
    /// A string for plain text, else a list of A2A parts.
    pub input: serde_json::Value,
    /// A name of the client's choosing; a fresh session when left out.
    pub session: Option<String>,
    /// Unix milliseconds.
    pub deadline_ms: Option<i64>,
    pub idempotency_key: Option<String>,
    /// Who asks, for the log: `owner`, `cli:uid=0` …
    pub author: String,
    pub traceparent: Option<String>,
}

/// Which tasks to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    pub agent: Option<String>,
    pub state: Option<String>,
    pub cursor: Option<String>,
    /// At most 200; 50 when zero.
    pub limit: usize,
}

/// What a person says about the step a task waits for.
#[derive(Clone, Debug)]
pub struct Resume {
    pub step: u32,
    pub how: ResumeAs,
    /// The result to use with `done`.
    pub result: Option<serde_json::Value>,
    /// Who says it, for the log.
    pub author: String,
}
