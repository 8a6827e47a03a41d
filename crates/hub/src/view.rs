//! The shapes the API prints. Clients rely on each word: fields are added, never renamed or removed.

use mainstay_core::step::{StepKind, StepState};
use mainstay_core::task::TaskRecord;
use serde::Serialize;

/// A page of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// A task as `run`, `task show` and the API print it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    pub id: String,
    pub agent: String,
    pub session: String,
    pub state: String,
    /// Text, or JSON when the agent answered with JSON; `null` while there is none.
    pub output: serde_json::Value,
    pub attempts: u32,
    pub steps: u32,
    pub replayed: u32,
    pub repeated: u32,
    pub diverged_at: Option<u32>,
    pub usage: UsageView,
    pub cost: CostView,
    pub reason: Option<String>,
    pub error: Option<ErrorView>,
    pub input: serde_json::Value,
    pub created: String,
    pub updated: String,
    pub generation: Option<u64>,
    /// The step a person is asked about, when parked for one.
    pub asked_step: Option<u32>,
    pub parent: Option<String>,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageView {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    pub estimated: bool,
}

impl From<mainstay_core::usage::Usage> for UsageView {
    fn from(usage: mainstay_core::usage::Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            estimated: usage.estimated,
        }
    }
}

/// Dollars; `null` when a price is unknown.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CostView {
    pub usd: Option<f64>,
}

/// Why it failed or waits.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorView {
    pub code: String,
    pub message: String,
}

/// A step.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    pub n: u32,
    pub id: String,
    pub kind: &'static str,
    pub name: String,
    pub state: &'static str,
    pub attempt: u32,
    pub replayed: bool,
    pub repeated: u32,
    pub model: Option<String>,
    pub usage: UsageView,
    pub cost: CostView,
    pub started: String,
    pub ended: Option<String>,
}

/// A session with its turns.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    pub id: String,
    pub agent: String,
    pub created: String,
    pub updated: String,
    /// Left out in lists, like the turns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<TurnView>,
}

/// What an import came to.
#[derive(Clone, Debug, Serialize)]
pub struct ImportView {
    pub session: String,
    pub agent: String,
    /// Of the log that it comes from.
    pub origin: String,
    /// Entries appended.
    pub entries: u64,
    /// Payloads that had been erased there.
    pub erased: usize,
    pub tasks: Vec<ImportedTaskView>,
}

/// A task of an import, as it stands now.
#[derive(Clone, Debug, Serialize)]
pub struct ImportedTaskView {
    pub id: String,
    pub agent: String,
    pub session: String,
    pub state: String,
    pub reason: Option<String>,
    /// `new` here; `continued`: it left from here and has more behind it now; `returned` as it
    /// left; `known`: it was imported before.
    pub change: &'static str,
}

/// One side of a turn, as `history` on standard input has it.
#[derive(Clone, Debug, Serialize)]
pub struct TurnView {
    pub role: &'static str,
    pub content: serde_json::Value,
}

/// An agent and how it stands.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    pub name: String,
    pub runtime: &'static str,
    pub state: &'static str,
    pub models: Vec<String>,
    /// Models that play a script instead of thinking.
    pub scripted: bool,
    pub tools: Vec<String>,
    pub replicas: u32,
    pub ready: u32,
    pub queued: u64,
    pub working: u64,
    pub generation: Option<u64>,
    /// Names of secrets its processes can read.
    pub exposed_secrets: Vec<String>,
}

/// An instance.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    pub name: String,
    pub agent: String,
    pub pid: Option<u32>,
    pub state: &'static str,
    pub isolation: String,
    pub restarts: u64,
    /// How its process ended last, unless it was asked to.
    pub last_error: Option<String>,
    pub task: Option<String>,
    pub gateway_port: u16,
    pub shim_pid: u32,
}

/// The newest signed head.
#[derive(Clone, Debug, Serialize)]
pub struct HeadView {
    pub origin: String,
    pub size: u64,
    pub root: String,
    /// The signed note itself: what `log verify --since` takes.
    pub text: String,
    /// The key that signs, to be kept elsewhere.
    pub key: String,
}

/// One log entry without its payloads.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryView {
    pub seq: u64,
    pub time: String,
    pub kind: String,
    pub version: u16,
    pub subject: String,
    pub author: String,
    pub data: serde_json::Value,
    pub payloads: Vec<PayloadView>,
}

/// A payload by name and size; its content is read through the task or step it belongs to.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadView {
    pub name: String,
    pub bytes: u64,
    pub erased: bool,
}

/// What an apply, a diff or a delete came to.
#[derive(Clone, Debug, Serialize)]
pub struct ApplyView {
    pub generation: Option<u64>,
    pub problems: Vec<String>,
    pub summary: Vec<String>,
}

/// Milliseconds since the epoch as RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| "1970-01-01T00:00:00Z".into(), |at| at.to_string())
}

/// The step's kind as clients see it: a local tool is a tool.
#[must_use]
pub fn kind_word(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Model => "model",
        StepKind::Tool | StepKind::Local => "tool",
    }
}

/// The step's state as clients see it.
#[must_use]
pub fn state_word(state: StepState) -> &'static str {
    match state {
        StepState::InFlight => "in-flight",
        StepState::Finished => "finished",
        StepState::Failed => "failed",
        StepState::Unknown => "unknown",
        StepState::Released => "released",
        StepState::Held => "held",
        StepState::Parked => "parked",
    }
}

/// The steps of a task.
#[must_use]
pub fn steps(record: &TaskRecord) -> Vec<StepView> {
    let attempt = record.task.attempt;
    record
        .steps
        .iter()
        .map(|step| StepView {
            n: step.n,
            id: step.id.clone(),
            kind: kind_word(step.kind),
            name: step.name.clone(),
            state: state_word(step.state),
            attempt: step.attempt,
            replayed: step.mark_in(attempt).replayed,
            repeated: step.repeated,
            model: step.model.clone(),
            usage: step.usage.into(),
            cost: CostView {
                usd: step.cost.usd(),
            },
            started: rfc3339(step.intended_ms),
            ended: step.ended_ms.map(rfc3339),
        })
        .collect()
}
