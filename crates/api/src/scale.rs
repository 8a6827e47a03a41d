//! What of a manifest says how many instances there are when nobody writes a number.

use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many instances follow from the load. `replicas` then belongs to the one that `by` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScaleSpec {
    /// The fewest; with 0 the first task or connection starts one.
    #[schemars(range(min = 0, max = 200))]
    pub min: u32,
    /// The most.
    #[schemars(range(min = 1, max = 200))]
    pub max: u32,
    /// Up to so many open tasks, so many instances; above the last step, max.
    #[schemars(length(max = 16))]
    pub steps: Vec<ScaleStep>,
    /// There are fewer only after the load has been lower for so long.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "24h"))]
    pub idle_after: Duration,
    /// Who writes replicas.
    pub by: ScaleBy,
}

/// A step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleStep {
    /// Open tasks.
    #[schemars(range(min = 1, max = 100_000))]
    pub up_to: u32,
    /// Instances.
    #[schemars(range(min = 1, max = 200))]
    pub replicas: u32,
}

/// Mainstay itself, or an autoscaler of the cluster, which then alone decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleBy {
    #[default]
    Mainstay,
    Hpa,
    Keda,
}

impl Default for ScaleSpec {
    fn default() -> Self {
        let step = |up_to, replicas| ScaleStep { up_to, replicas };
        Self {
            min: 0,
            max: 10,
            steps: vec![step(5, 2), step(20, 5)],
            idle_after: Duration::from_seconds(300),
            by: ScaleBy::default(),
        }
    }
}
