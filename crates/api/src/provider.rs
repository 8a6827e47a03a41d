//! The kind `Provider`: where models are, how they are reached, and what they cost.

use crate::credential::CredentialSpec;
use crate::duration::Duration;
use crate::fleet::ProviderKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A provider of models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProviderSpec {
    /// Which interface it speaks; left out, the provider's own name if that is one of these.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProviderKind>,
    /// What the provider's own SDK takes (openai's ends in /v1); left out, the provider's public address.
    #[schemars(extend("format" = "mainstay-url"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Left out, requests are sent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialSpec>,
    /// Prices and context windows, over what the built-in table says.
    #[schemars(length(max = 1000), extend("x-unique" = "name"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelSpec>,
    /// How hard it may be used, over all agents.
    pub limits: LimitsSpec,
    /// Models (provider/model) to try in this order when this provider fails.
    #[schemars(length(max = 64), inner(regex(pattern = "^[^/]+/.+$")), extend("x-unique" = true))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// The transcript to play, for type script only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptSpec>,
}

/// A model's price and context window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSpec {
    /// As the provider calls it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// US dollars per million tokens. A part that is left out comes from the built-in table; unknown is never zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceSpec>,
    /// The context window, in tokens.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
}

/// US dollars per million tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PriceSpec {
    /// Input that was not cached.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<f64>,
    /// Output, reasoning included.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<f64>,
    /// Input read from the provider's cache; left out, the price of input.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Input written to the provider's cache; left out, the price of input.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
}

/// How hard a provider may be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// Calls at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: u32,
    /// Left out: no limit.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Left out: no limit.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// For one call, from its start to its last byte.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1d"))]
    pub timeout: Duration,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            concurrency: 32,
            requests_per_minute: None,
            tokens_per_minute: None,
            timeout: Duration::from_seconds(600),
        }
    }
}

/// A transcript instead of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptSpec {
    /// The transcript; a relative path starts at the manifest's directory.
    #[schemars(length(min = 1))]
    pub file: String,
}
