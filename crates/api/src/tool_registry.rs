//! The kind `ToolRegistry`: what agents may call, and what each call does outside.

use crate::credential::CredentialSpec;
use crate::duration::Duration;
use crate::quantity::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A set of tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolRegistrySpec {
    /// Agents name them as registry/tool.
    #[schemars(length(max = 1000), extend("x-unique" = "name"))]
    pub tools: Vec<ToolSpec>,
}

/// What a call does outside, and so how it may be repeated.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    Pure,
    Keyed,
    Queryable,
    #[default]
    Opaque,
}

/// A tool, or an MCP server with many. Exactly one of mcp, http and agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["mcp"]}, {"required": ["http"]}, {"required": ["agent"]}]))]
pub struct ToolSpec {
    /// Letters, digits, underscore and hyphen.
    #[schemars(extend("format" = "mainstay-tool-name"))]
    pub name: String,
    /// What the model reads; required but for MCP servers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A server with tools of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpSpec>,
    /// A request with the arguments filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSpec>,
    /// Another agent of the workspace; a call is a task of its own.
    #[schemars(extend("format" = "mainstay-name"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// JSON Schema of the arguments, for http; arguments are validated before the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<serde_json::Map<String, serde_json::Value>>,
    /// Left out: opaque, for agents keyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Where a keyed call carries the step's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySpec>,
    /// How a queryable call's outcome is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<ReadBackSpec>,
    /// The server's tools that may be called; left out: all.
    #[schemars(length(max = 1000), extend("x-unique" = true))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// By the server's tool names; what is not named here is opaque.
    #[schemars(extend("maxProperties" = 1000))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effects: BTreeMap<String, Effect>,
    /// Bounds of one call.
    #[serde(default)]
    pub limits: ToolLimitsSpec,
}

/// An MCP server. Exactly one of url (streamable HTTP) and command (standard input and output).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{"required": ["url"]}, {"required": ["command"]}]))]
pub struct McpSpec {
    /// Where it is reached.
    #[schemars(extend("format" = "mainstay-url"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// With url only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialSpec>,
    /// Started, supervised and restarted like an agent.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// With command only: the image it runs in, on Kubernetes.
    #[schemars(extend("format" = "mainstay-image"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// With command only; nothing else is inherited.
    #[schemars(extend("maxProperties" = 256))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// A request with {name} for an argument and {stepId} for the step's id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSpec {
    /// Left out: GET.
    #[serde(default)]
    pub method: Method,
    /// Arguments are percent-encoded; none may stand in the host.
    #[schemars(
        length(min = 1, max = 4096),
        regex(pattern = "^https?://[^\\s/?#@:{}][^\\s/?#@{}]*([/?][^\\s#]*)?$")
    )]
    pub url: String,
    /// A value that is just "{name}" keeps the argument's JSON type. Left out, GET and DELETE put the arguments
    /// that the URL doesn't name in the query, and the others send them as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
    /// Left out, the request is sent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialSpec>,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// In capitals, as it is sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Exactly one of header and argument.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{"required": ["header"]}, {"required": ["argument"]}]))]
pub struct KeySpec {
    /// A request header.
    #[schemars(extend("format" = "mainstay-header"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// An argument, added by Mainstay; the model doesn't see it.
    #[schemars(length(min = 1, max = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
}

/// A request whose answer tells whether the call took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadBackSpec {
    /// Left out: GET.
    #[serde(default)]
    pub method: Method,
    /// With {stepId} or arguments, like the call's own.
    #[schemars(
        length(min = 1, max = 4096),
        regex(pattern = "^https?://[^\\s/?#@:{}][^\\s/?#@{}]*([/?][^\\s#]*)?$")
    )]
    pub url: String,
    /// CEL over status and body; true if the call took effect.
    #[schemars(length(min = 1, max = 4096))]
    pub found: String,
}

/// Bounds of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ToolLimitsSpec {
    /// Left out: 60s, for agents 10m.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1d"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// A longer result is an error. Left out: 256Ki.
    #[schemars(extend("x-minimum" = "1", "x-maximum" = "32Mi"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Quantity>,
}
