//! What `up` is told, what it says when it is ready, and how it ends.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use api::{Knowledge, Problems};

use crate::hub::HubCommand;
use crate::state::StateError;

/// Everything `up` is told.
pub struct Options {
    pub state: PathBuf,
    /// Files and directories; may be empty, then what was applied or ran before runs.
    pub manifests: Vec<PathBuf>,
    pub listen: SocketAddr,
    /// Where metrics are read without a token, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Our own binary: runs as `PROGRAM runtime` for built-in agents.
    pub program: PathBuf,
    pub hub: HubCommand,
    pub knowledge: Knowledge,
    /// Called once, when the first hub is ready.
    pub on_ready: Box<dyn FnMut(&Ready)>,
}

/// What a person wants to know when the fleet is up.
#[derive(Clone, Debug)]
pub struct Ready {
    pub state: PathBuf,
    pub address: String,
    /// Monitors' own port, if there is one.
    pub metrics: Option<String>,
    pub isolation: String,
}

/// How `up` ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM.
    Stopped,
    /// SIGINT.
    Interrupted,
}

impl Ended {
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Interrupted => 130,
        }
    }
}

/// Why `up` ended otherwise.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error("{0}")]
    Manifests(Problems),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "cannot listen on {address}: something else does; stop it, or choose another address with {option}"
    )]
    Busy {
        address: SocketAddr,
        option: &'static str,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the hub cannot start; what it said stands above")]
    Hub { code: i32 },
    #[error("the kernel refuses what the keeper needs")]
    Kernel(#[from] io::Error),
}

impl UpError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Manifests(_) => 3,
            Self::Hub { code } => u8::try_from(*code).unwrap_or(1),
            Self::State(_) | Self::Busy { .. } | Self::Listen { .. } | Self::Kernel(_) => 1,
        }
    }
}
