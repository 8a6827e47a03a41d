//! Where a log lies: in a directory, or on a server with a directory beside it.
//!
//! The directory beside a server holds nothing that the log needs. It holds the newest heads that this machine has
//! signed or seen: a server that was restored from a backup, or that failed over to a copy which lagged, comes back
//! without its last commits and without a word, and only what lies outside of it notices.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::directory::database_path;
use crate::postgres::Server;

#[derive(Debug, Clone)]
pub enum Place {
    Directory(PathBuf),
    Server {
        server: Server,
        /// For the heads; it may be empty at each start, and then it notices nothing of the time before.
        dir: PathBuf,
    },
}

impl Place {
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Place::Directory(dir) | Place::Server { dir, .. } => dir,
        }
    }

    /// How errors name it.
    pub(crate) fn shown(&self) -> PathBuf {
        match self {
            Place::Directory(dir) => database_path(dir),
            Place::Server { server, .. } => server.shown(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Directory(dir) => write!(f, "{}", dir.display()),
            Place::Server { server, .. } => write!(f, "{server}"),
        }
    }
}

impl From<&Path> for Place {
    fn from(dir: &Path) -> Place {
        Place::Directory(dir.to_owned())
    }
}
