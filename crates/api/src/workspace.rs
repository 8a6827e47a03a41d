//! The kind `Workspace`: what holds for everything in one namespace. Its name is the namespace it owns.

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
