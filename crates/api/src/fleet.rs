//! The `Fleet`: a whole set of manifests, resolved.
//!
//! Everything in here is final: defaults are filled, references checked, units in the field names.
//! Its JSON is what a generation stores and hashes, so all maps are ordered. Nothing here knows
//! YAML, files or places; a fleet never says where a value was written.

mod agent;
mod place;
mod provider;
mod tool;

pub use agent::{Agent, AgentTool, PromptRef, Runtime, Scale, Source, TaskBudget, Volume};
pub use place::{Member, Placement, Quota, Resources, Store};
pub use provider::{
    Credential, Limits, ModelFacts, ModelRef, Price, Provider, ProviderKind, SecretRef,
};
pub use tool::{KeyPlace, ReadBack, Tool, ToolKind};

pub use crate::agent::{Mask, OnDivergence, ServiceProtocol};
pub use crate::placement::{TaintEffect, Toleration, TolerationOperator};
pub use crate::scale::{ScaleBy, ScaleStep};
pub use crate::tool_registry::Effect;
pub use crate::workspace::Role;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One workspace's agents and everything they need, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    pub workspace: String,
    pub description: String,
    pub retention: Retention,
    /// Who may do what; read on Kubernetes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Read on Kubernetes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quota: Quota,
    /// Where the hub keeps its log; read on Kubernetes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub store: Store,
    pub providers: BTreeMap<String, Provider>,
    pub agents: BTreeMap<String, Agent>,
    /// By `registry/tool`.
    pub tools: BTreeMap<String, Tool>,
    pub prompt_packs: BTreeMap<String, PromptPack>,
}

/// How long payloads are kept; proofs always stay. `None` means without end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    pub payloads_seconds: Option<u64>,
    pub max_bytes: Option<u64>,
}

/// The prompts of one pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptPack {
    /// As written, else the first 12 hex digits of the content's hash.
    pub version: String,
    pub prompts: BTreeMap<String, String>,
}

/// What a fleet of an earlier version didn't have is not written either, so that its hash stays.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Fleet {
    /// A workspace without any object.
    pub fn empty(workspace: &str) -> Self {
        Self {
            workspace: workspace.to_owned(),
            description: String::new(),
            retention: Retention::default(),
            members: Vec::new(),
            quota: Quota::default(),
            store: Store::default(),
            providers: BTreeMap::new(),
            agents: BTreeMap::new(),
            tools: BTreeMap::new(),
            prompt_packs: BTreeMap::new(),
        }
    }

    /// SHA-256, in hex, of the fleet's canonical JSON: the same for any order of files, documents and keys.
    pub fn hash(&self) -> String {
        let value =
            serde_json::to_value(self).expect("a fleet has only string keys and finite numbers");
        crate::canonical::hash(&value)
    }
}
