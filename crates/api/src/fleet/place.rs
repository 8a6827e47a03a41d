//! What only the home on Kubernetes reads: where pods run, what they may use, and who may do what.

use super::{Role, Toleration};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an instance may use; `None` is not bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u32>,
}

/// Which nodes may run an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
}

/// Somebody, as Kubernetes' role bindings know them, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `user:NAME`, `group:NAME` or `serviceAccount:NAMESPACE/NAME`.
    pub subject: String,
    pub role: Role,
}

/// What all agents together may use; `None` is not bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub agents: Option<u32>,
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
}

/// Where the hub keeps its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// On a volume of this size.
    Sqlite { size_bytes: u64 },
}

impl Default for Store {
    fn default() -> Self {
        Self::Sqlite {
            size_bytes: crate::workspace::SqliteSpec::default().size.bytes,
        }
    }
}
