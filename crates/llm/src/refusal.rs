//! What this room says when a request can't be served as it stands: the field, and why.
//! A refusal is the agent's to fix (status 400); it is never sent upstream.

/// A request that can't be carried, with the field that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Refusal {
    /// Path of the field in the agent's body, such as `tools[2].type`.
    pub field: String,
    /// A lowercase fragment that says why.
    pub message: String,
}

impl Refusal {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal {
            field: field.into(),
            message: message.into(),
        }
    }
}
