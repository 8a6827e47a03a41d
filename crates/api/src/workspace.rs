//! The kind `Workspace`: what holds for everything in one namespace. Its name is the namespace it owns.

use crate::cpu::Cpu;
use crate::duration::Duration;
use crate::quantity::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A workspace's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkspaceSpec {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How long payloads are kept; proofs stay.
    pub retention: RetentionSpec,
    /// Who may do what in the namespace, on Kubernetes.
    #[schemars(length(max = 256), extend("x-unique" = "subject"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberSpec>,
    /// What all agents together may use, on Kubernetes; left out: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaSpec>,
    /// Where the hub keeps its log, on Kubernetes; left out: sqlite on a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreSpec>,
}

/// How long payloads are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetentionSpec {
    /// Older payloads are erased; left out: never.
    #[schemars(extend("x-minimum" = "1s"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payloads: Option<Duration>,
    /// Beyond it the oldest payloads are erased; left out: no limit.
    #[schemars(extend("x-minimum" = "1Mi"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Quantity>,
}

/// Somebody, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberSpec {
    /// `user:NAME`, `group:NAME` or `serviceAccount:NAMESPACE/NAME`.
    #[schemars(extend("format" = "mainstay-subject"))]
    pub subject: String,
    /// Each may do what those before it may.
    pub role: Role,
}

/// What a member may do: look; send tasks; change agents and what they use; everything in the namespace.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    User,
    Operator,
    Owner,
}

/// What all agents together may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QuotaSpec {
    /// How many agents.
    #[schemars(range(min = 0, max = 100_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<u32>,
    /// CPUs.
    #[schemars(extend("x-minimum" = "1m"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[schemars(extend("x-minimum" = "1Mi"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// Where the hub keeps its log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StoreSpec {
    /// On a volume of its own: one hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteSpec>,
}

/// A database file on a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SqliteSpec {
    /// The volume's size.
    #[schemars(extend("x-minimum" = "64Mi"))]
    pub size: Quantity,
}

impl Default for SqliteSpec {
    fn default() -> Self {
        Self {
            size: Quantity::from_bytes(5 << 30),
        }
    }
}
