//! Exit codes and the one error type of the command line.
//!
//! Every way to fail is a [`Failure`]: an exit code from the table, a sentence, and what to do next.
//! Results go to standard output and never through here.

use std::fmt::Write;
use std::process::ExitCode;

/// What the process ends with. The numbers are part of the contract with users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// The work failed.
    Failed = 1,
    /// The command is wrong.
    Usage = 2,
    /// A manifest is wrong.
    Manifest = 3,
    NotFound = 4,
    NotAllowed = 5,
    /// Cannot reach the hub.
    Unreachable = 6,
    /// Waiting for a person.
    Waiting = 7,
    /// The task goes on.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    /// A fragment, or several lines that were rendered for a person elsewhere.
    pub message: String,
    pub hint: Option<String>,
    /// Boxed: any room's error may be underneath.
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// The command is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Prints it to standard error and gives the code to end with.
    pub fn report(&self) -> ExitCode {
        eprint!("{}", self.rendered());
        self.exit.into()
    }

    fn rendered(&self) -> String {
        let mut text = format!("error: {self}");
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let _infallible = write!(text, ": {cause}");
            source = cause.source();
        }
        text.push('\n');
        if let Some(hint) = &self.hint {
            let _infallible = writeln!(text, "hint: {hint}");
        }
        text
    }
}

/// What a command comes to: a code, or why not.
pub type Outcome = Result<Exit, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_causes_and_what_to_do() {
        let failure = Failure::new(Exit::Failed, "failed to read f")
            .because(std::io::Error::other("disk is gone"))
            .with_hint("look for it");
        assert_eq!(
            failure.rendered(),
            "error: failed to read f: disk is gone\nhint: look for it\n"
        );
    }
}
