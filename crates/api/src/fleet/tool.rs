//! A tool, resolved: what it calls, what that does outside, and how the call may be repeated.

use super::{Credential, Effect};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tool, or an MCP server with many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    pub registry: String,
    pub name: String,
    pub kind: ToolKind,
    pub description: String,
    /// Always there for `Http` and `Agent`; never for MCP servers, whose tools bring their own.
    pub input_schema: Option<serde_json::Value>,
    /// For an MCP server: of those of its tools that `effects` doesn't name.
    pub effect: Effect,
    pub key: Option<KeyPlace>,
    pub timeout_ms: u64,
    /// A longer result is an error.
    pub result_bytes: u64,
    /// For an MCP server: the only tools of it that may be called. `None`: all.
    pub allow: Option<Vec<String>>,
    /// For an MCP server: by its own tool names.
    pub effects: BTreeMap<String, Effect>,
}

/// Where a `keyed` call carries the step's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlace {
    Header(String),
    Argument(String),
}

/// What a tool calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    McpHttp {
        url: String,
        credential: Option<Credential>,
    },
    McpStdio {
        command: Vec<String>,
        env: BTreeMap<String, String>,
        /// The image it runs in; read on Kubernetes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
    },
    Http {
        /// In capitals.
        method: String,
        /// With `{argument}` and `{stepId}` placeholders after the host only.
        url: String,
        body: Option<serde_json::Value>,
        credential: Option<Credential>,
        read_back: Option<ReadBack>,
    },
    Agent {
        agent: String,
    },
}

/// How a `queryable` call's outcome is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    pub method: String,
    pub url: String,
    /// CEL over `status` and `body`: true if the call took effect.
    pub found: String,
}
