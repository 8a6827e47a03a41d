//! The three wire dialects that agents speak to the gateway and the gateway to providers.
//! Only names live here: what a dialect means is in the folder of that name.

use serde::{Deserialize, Serialize};

/// A wire dialect, on either side of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// OpenAI Chat Completions, and every server compatible with it.
    #[serde(rename = "openai-chat")]
    OpenAiChat,
    /// OpenAI Responses.
    #[serde(rename = "openai-responses")]
    OpenAiResponses,
    /// Anthropic Messages.
    Anthropic,
}

impl Dialect {
    pub const ALL: [Dialect; 3] = [
        Dialect::OpenAiChat,
        Dialect::OpenAiResponses,
        Dialect::Anthropic,
    ];

    /// The name used in logs and match keys; never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::OpenAiChat => "openai-chat",
            Dialect::OpenAiResponses => "openai-responses",
            Dialect::Anthropic => "anthropic",
        }
    }

    /// The path below a provider's base URL, as its own SDK builds it (OpenAI's base ends in `/v1`, Anthropic's doesn't).
    pub fn path(self) -> &'static str {
        match self {
            Dialect::OpenAiChat => "/chat/completions",
            Dialect::OpenAiResponses => "/responses",
            Dialect::Anthropic => "/v1/messages",
        }
    }

    /// The body field that holds the conversation.
    pub(crate) fn messages_field(self) -> &'static str {
        match self {
            Dialect::OpenAiChat | Dialect::Anthropic => "messages",
            Dialect::OpenAiResponses => "input",
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}
