//! Why a task's attempt ends without an answer, and which exit code says so.
//!
//! Two codes matter to whoever started us: 78 fails the task for good, because the same request
//! would be refused in the same way in every attempt; 1 ends this attempt only.

use std::fmt::Write;
use std::process::ExitCode;

/// `EX_CONFIG`: the task can't be done as it stands.
const EXIT_FINAL: u8 = 78;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("failed to read the task from standard input")]
    ReadAssignment(#[source] std::io::Error),
    #[error("standard input is not a task")]
    ParseAssignment(#[source] serde_json::Error),
    #[error("variable {0} is not set: the built-in loop runs behind a gateway only")]
    Variable(&'static str),
    #[error("{name} is {value}, not an http address")]
    Address { name: &'static str, value: String },
    #[error("failed to start")]
    Start(#[source] std::io::Error),
    #[error("the task's {what} can't be given to a model: {reason}")]
    Input { what: &'static str, reason: String },
    #[error("the request can't be written for the model")]
    Request(#[from] llm::Refusal),
    /// The gateway's or the provider's own words.
    #[error("{what} was refused ({status}): {message}")]
    Refused {
        what: String,
        status: u16,
        message: String,
        is_final: bool,
    },
    #[error("{what} broke off: {message}")]
    Broken { what: String, message: String },
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        let is_final = match self {
            Self::Input { .. } | Self::Request(_) => true,
            Self::Refused { is_final, .. } => *is_final,
            Self::ReadAssignment(_)
            | Self::ParseAssignment(_)
            | Self::Variable(_)
            | Self::Address { .. }
            | Self::Start(_)
            | Self::Broken { .. } => false,
        };
        if is_final {
            ExitCode::from(EXIT_FINAL)
        } else {
            ExitCode::FAILURE
        }
    }
}

/// The error and what caused it, on one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _infallible = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
