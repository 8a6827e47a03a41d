//! The kind `PromptPack`: named prompts, versioned together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Named prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromptPackSpec {
    /// Left out, the content's hash is the version and editing is free; written, the content of a version never changes.
    #[schemars(length(min = 1, max = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Text by name.
    #[schemars(extend("minProperties" = 1))]
    pub prompts: BTreeMap<String, String>,
}
