//! Why a log can't be opened, appended to or read.

use std::io;
use std::path::PathBuf;

use ledger::{EntryError, HeadError};
use thiserror::Error;

use crate::database::DatabaseError;

/// Why a log can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("{} is not there", path.display())]
    NotFound { path: PathBuf },
    #[error("{} is in use by process {pid}", path.display())]
    LogLocked { path: PathBuf, pid: String },
    #[error("{} lies on a network file system ({kind}), where locks and flushes can't be relied on", path.display())]
    NetworkFileSystem { path: PathBuf, kind: &'static str },
    #[error("{} has format {found}; this version knows formats up to {known}", path.display())]
    NewerFormat {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("{} is of workspace {found}, not {wanted}", path.display())]
    OtherWorkspace {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("{} is signed by another key than the one given", path.display())]
    OtherKey { path: PathBuf },
    #[error("{what} is damaged in {}", path.display())]
    Damaged { path: PathBuf, what: String },
    /// The heads file knows of commits that the database has lost.
    #[error(
        "{} ends at entry count {log_size}, but head {head_number} in the heads file was signed at {heads_size}: \
         the last {} entries are missing (a damaged log.db or log.db-wal drops them silently)",
        path.display(), heads_size.saturating_sub(*log_size)
    )]
    EntriesMissing {
        path: PathBuf,
        log_size: u64,
        heads_size: u64,
        head_number: u64,
    },
    /// The heads of this machine know of commits that the server no longer has.
    #[error(
        "{} ends at entry count {log_size}, but head {head_number} in {} was signed at {heads_size}: the server has lost \
         the last {} entries (a restore, or a fail-over to a copy that lagged, does that)",
        path.display(), heads.display(), heads_size.saturating_sub(*log_size)
    )]
    EntriesLost {
        path: PathBuf,
        heads: PathBuf,
        log_size: u64,
        heads_size: u64,
        head_number: u64,
    },
    #[error("{} is written by {holder}, whose lease ends in {left_ms} ms unless it is renewed", path.display())]
    LeaseHeld {
        path: PathBuf,
        holder: String,
        /// Where that one is found.
        address: Option<String>,
        left_ms: i64,
    },
    #[error("failed to use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("failed to read or write {}", path.display())]
    Database {
        path: PathBuf,
        source: DatabaseError,
    },
    #[error("workspace name can't stand in a log's origin")]
    Workspace(#[source] HeadError),
    #[error("failed to write the log's first entry")]
    FirstEntry(#[source] StoreError),
}

/// Why an append or a read failed. See [`StoreError::is_fatal`].
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("entry {index} of the batch can't be written")]
    Entry { index: usize, source: EntryError },
    #[error("batch is refused: {reason}")]
    Batch { reason: &'static str },
    #[error("failed to commit to the log")]
    Commit(#[source] DatabaseError),
    #[error("failed to append to the heads file")]
    Heads(#[source] io::Error),
    #[error("failed to sign the head")]
    Sign(#[source] HeadError),
    #[error("failed to get random bytes for a salt")]
    Random,
    #[error("an earlier commit failed: the log takes nothing more until it is opened again")]
    Failed,
    #[error("failed to read from the log")]
    Read(#[source] DatabaseError),
    #[error("{what} can't be read as it was written")]
    Damaged { what: String },
}

impl StoreError {
    /// After a fatal error nobody knows what is durable: the process must end and the log be opened anew.
    pub fn is_fatal(&self) -> bool {
        match self {
            StoreError::Entry { .. } | StoreError::Batch { .. } => false,
            StoreError::Read(_) | StoreError::Damaged { .. } => false,
            StoreError::Commit(_) | StoreError::Heads(_) | StoreError::Failed => true,
            StoreError::Sign(_) | StoreError::Random => true,
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(source: DatabaseError) -> StoreError {
        StoreError::Read(source)
    }
}
