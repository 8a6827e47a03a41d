//! An agent, resolved: what it runs, which models and tools it may use, within which bounds.

use super::{
    Mask, ModelFacts, ModelRef, OnDivergence, Placement, Resources, SecretRef, ServiceProtocol,
    is_default,
};
use crate::scale::{ScaleBy, ScaleStep};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// The first serves when the agent asks for none of them. Empty only for `exec` and `service`.
    pub models: Vec<ModelRef>,
    /// By `provider/model`: every model of `models`, and every model that a fallback from one of them leads to.
    pub model_facts: BTreeMap<String, ModelFacts>,
    /// Written here, or the prompt's text where `prompt` is set and its pack has that version.
    pub instructions: String,
    pub prompt: Option<PromptRef>,
    pub tools: Vec<AgentTool>,
    pub runtime: Runtime,
    pub source: Option<Source>,
    /// The image whose file system it runs in; read on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    pub env: BTreeMap<String, String>,
    pub secret_env: BTreeMap<String, SecretRef>,
    pub replicas: u32,
    /// Who changes `replicas`, and by what; read on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Tasks at once per instance.
    pub concurrency: u32,
    pub queue_max: u32,
    pub volume: Option<Volume>,
    /// Read on Kubernetes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// Read on Kubernetes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    pub max_attempts: u32,
    pub grace_ms: u64,
    pub on_divergence: OnDivergence,
    pub mask: BTreeSet<Mask>,
    pub budget: TaskBudget,
}

/// How many instances follow from the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    pub min: u32,
    pub max: u32,
    /// Rising.
    pub steps: Vec<ScaleStep>,
    pub idle_after_ms: u64,
    pub by: ScaleBy,
}

/// A prompt of a pack; a version only where the agent pins one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptRef {
    pub pack: String,
    pub name: String,
    pub version: Option<String>,
}

/// A tool the agent may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTool {
    /// `registry/tool`, a key of the fleet's `tools`.
    pub tool: String,
    /// The name the model sees. For an MCP server: what is put before each of the server's own tool names,
    /// which is nothing where the agent has one registry only.
    pub exposed: String,
}

/// How the agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    Builtin,
    /// A process per task.
    Exec {
        command: Vec<String>,
    },
    /// A long-running process.
    Service {
        command: Vec<String>,
        protocol: ServiceProtocol,
        port: Option<u16>,
    },
}

/// The agent's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Absolute, or relative to the manifest's directory and joined with it.
    pub path: String,
    /// The artifact that it is: filled in by whoever copied it, or, on Kubernetes, what the object says.
    pub hash: Option<String>,
}

/// A directory kept per instance across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What it is meant to hold; nothing is said of more.
    pub size_bytes: Option<u64>,
    /// Where it is mounted; read on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What one task may use; the call after the one that reaches it is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskBudget {
    pub usd: Option<f64>,
    pub tokens: Option<u64>,
    pub steps: Option<u64>,
    pub time_ms: Option<u64>,
}
