//! The kind `Agent`: what runs, what it may use, and within which bounds.

use crate::credential::SecretEnv;
use crate::duration::Duration;
use crate::placement::{PlacementSpec, ResourcesSpec};
use crate::quantity::Quantity;
use crate::scale::ScaleSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AgentSpec {
    /// provider/model; the first serves when the agent asks for none of them.
    #[schemars(length(max = 64), inner(regex(pattern = "^[^/]+/.+$")), extend("x-unique" = true))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// What the agent is told first; not with prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The same from a pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptRefSpec>,
    /// registry/tool; naming an MCP server brings in all the tools it allows.
    #[schemars(length(max = 128), inner(regex(pattern = "^[^/]+/.+$")), extend("x-unique" = true))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Left out: builtin.
    pub runtime: RuntimeSpec,
    /// A directory or file, copied by hash, read-only; the working directory. Relative paths start at the manifest's
    /// directory.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The image whose file system the agent runs in, on Kubernetes. Builtin needs none.
    #[schemars(extend("format" = "mainstay-image"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Environment variables; nothing else is inherited.
    #[schemars(extend("maxProperties" = 256))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets as environment variables; the agent can read them.
    #[schemars(extend("maxProperties" = 256))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, SecretEnv>,
    /// How many instances.
    #[schemars(range(min = 0, max = 200))]
    pub replicas: u32,
    /// How many follow from the load; not with replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleSpec>,
    /// Tasks at once per instance.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: u32,
    /// Tasks that wait.
    pub queue: QueueSpec,
    /// A directory kept per instance across restarts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
    /// What an instance may use.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: ResourcesSpec,
    /// Where instances run.
    #[serde(skip_serializing_if = "is_default")]
    pub placement: PlacementSpec,
    /// When to give up.
    pub restart: RestartSpec,
    /// How a new attempt is matched with what earlier ones did.
    pub replay: ReplaySpec,
    /// What may be used.
    pub budget: BudgetSpec,
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            instructions: None,
            prompt: None,
            tools: Vec::new(),
            runtime: RuntimeSpec::default(),
            source: None,
            image: None,
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            replicas: 1,
            scale: None,
            concurrency: 1,
            queue: QueueSpec::default(),
            volume: None,
            resources: ResourcesSpec::default(),
            placement: PlacementSpec::default(),
            restart: RestartSpec::default(),
            replay: ReplaySpec::default(),
            budget: BudgetSpec::default(),
        }
    }
}

/// A prompt of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromptRefSpec {
    /// The pack's name.
    #[schemars(extend("format" = "mainstay-name"))]
    pub pack: String,
    /// The prompt's name in it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Left out: the pack's present version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// At most one of builtin, exec and service; none is builtin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("maxProperties" = 1))]
pub struct RuntimeSpec {
    /// The loop that comes with Mainstay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builtin: Option<BuiltinSpec>,
    /// A process per task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecSpec>,
    /// A long-running process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSpec>,
}

/// The built-in loop has no settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuiltinSpec {}

/// A process per task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecSpec {
    /// Program and arguments; relative commands start in source.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub command: Vec<String>,
}

/// A long-running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Program and arguments; relative commands start in source.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub command: Vec<String>,
    /// How it is given tasks.
    #[serde(default)]
    pub protocol: ServiceProtocol,
    /// Where it listens, for openai and http; left out: at PORT.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// How a service is given tasks: it dials in over the contract, or is called as Chat Completions, or by POST /.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProtocol {
    #[default]
    Attach,
    Openai,
    Http,
}

/// Tasks that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QueueSpec {
    /// Beyond it tasks are refused with 429.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: u32,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self { max: 1000 }
    }
}

/// A directory kept per instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSpec {
    /// How much it is meant to hold: `mainstay doctor` says when it holds more.
    #[schemars(extend("x-minimum" = "1Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Where it is mounted, on Kubernetes; left out: where MAINSTAY_VOLUME says.
    #[schemars(extend("format" = "mainstay-path"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// When to give up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestartSpec {
    /// Attempts ended by a crash of their own, then the task fails.
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: u32,
    /// From SIGTERM to SIGKILL.
    #[schemars(extend("x-maximum" = "1h"))]
    pub grace: Duration,
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            grace: Duration::from_seconds(30),
        }
    }
}

/// How a new attempt is matched with what earlier ones did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplaySpec {
    /// What happens when an attempt would do again what an earlier one did differently.
    pub on_divergence: OnDivergence,
    /// Values in prompts that may differ between attempts.
    pub mask: BTreeSet<Mask>,
}

impl Default for ReplaySpec {
    fn default() -> Self {
        Self {
            on_divergence: OnDivergence::Ask,
            mask: BTreeSet::from([Mask::Now]),
        }
    }
}

/// Ask a person, or go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDivergence {
    #[default]
    Ask,
    Continue,
}

/// A kind of value that may differ between attempts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    Now,
    Uuid,
}

/// What may be used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BudgetSpec {
    /// By one task: the next call is refused, and the task ended when its time is up.
    pub task: TaskBudgetSpec,
}

/// Bounds of one task; what is left out has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskBudgetSpec {
    /// US dollars; needs known prices.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Input and output together.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Model calls and tool calls together.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// From the task's submission, less the time it waits for a person.
    #[schemars(extend("x-minimum" = "1ms"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Duration>,
}
