//! Where a credential is read from, as written in a manifest; never the credential itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exactly one of secretRef, env and file. Read by the hub, never by an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["secretRef"]}, {"required": ["env"]}, {"required": ["file"]}]))]
pub struct CredentialSpec {
    /// A secret stored with `mainstay secret set NAME/KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
    /// The name of an environment variable of `mainstay up`.
    #[schemars(extend("format" = "mainstay-env"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file that holds the secret; a relative path starts at the manifest's directory.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// One key of a stored secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    /// The secret's name.
    #[schemars(extend("format" = "mainstay-key"))]
    pub name: String,
    /// The key in it.
    #[schemars(extend("format" = "mainstay-key"))]
    pub key: String,
}

/// A secret an agent is given as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretEnv {
    /// A secret stored with `mainstay secret set NAME/KEY`.
    pub secret_ref: SecretKey,
}
