//! Walks a whole log, on a state that nobody runs or beside a running writer, and names the first thing that is not
//! what was signed.
//!
//! Entries, payloads and heads are judged by `ledger::Verifier`; here they are fetched, and what lies around them is
//! compared: the heads file record by record, the tree's edge, authors, the blob index, the tables' structure. The walk
//! holds one read transaction, so a running writer can't cut its WAL meanwhile. Projections are `rebuild`'s to check.

mod derived;
mod heads;
mod walk;

pub(crate) use derived::integrity;

use std::io;
use std::path::Path;

use ledger::{HeadError, PublicKey, SignedHead};
use thiserror::Error;

use crate::database::DatabaseError;
use crate::directory::{database_path, heads_path, length_of};
use crate::error::{OpenError, StoreError};
use crate::heads::HeadsReader;
use crate::place::Place;
use crate::reader::Reader;

/// What came from elsewhere to compare the log with.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    pub public_key: Option<PublicKey>,
    /// An earlier head of this log, as text, kept outside of it.
    pub since: Option<String>,
}

/// A log that is consistent: everything in it is what its own heads say.
#[derive(Debug, Clone)]
pub struct Report {
    pub size: u64,
    pub heads: u64,
    pub last_head: SignedHead,
    /// Payloads that are there and match.
    pub payloads: u64,
    /// Payloads that an entry says were erased.
    pub erased: u64,
    /// Entries below this are authentic: they match a key or head that came from elsewhere. `None` if none was given;
    /// a consistent log may still be one that somebody made up whole.
    pub authentic_size: Option<u64>,
}

/// The first place where the log is not what it should be.
#[derive(Debug, Error)]
pub enum Mismatch {
    #[error(transparent)]
    Log(#[from] ledger::Mismatch),
    #[error("entry {seq} is missing")]
    EntryMissing { seq: u64 },
    #[error("entries from {from} on are covered by no head")]
    EntriesUnsigned { from: u64 },
    #[error(
        "log.db ends at entry count {log_size}, but head {number} in the heads file was signed at {heads_size}: the entries between are missing"
    )]
    EntriesMissing {
        log_size: u64,
        heads_size: u64,
        number: u64,
    },
    #[error("table head lacks number {number}")]
    HeadMissing { number: u64 },
    #[error("heads file differs at head {number}")]
    HeadsFileDiffers { number: u64 },
    #[error("heads file ends before head {number}; the log has {count} heads")]
    HeadsFileShort { number: u64, count: u64 },
    #[error("payload {name} of entry {seq} is there, but the entry names none such")]
    PayloadUnknown { seq: u64, name: String },
    #[error("{what} in log.db is not what the entries say")]
    Derived { what: String },
    #[error("{place} in log.db can't be read")]
    Unreadable {
        place: String,
        source: DatabaseError,
    },
    #[error("{what} in log.db is damaged")]
    Damaged { what: String },
    #[error("log.db fails its integrity check: {finding}")]
    Integrity { finding: String },
    #[error("log is signed by another key than the one given")]
    OtherKey,
    #[error("head given is of another log: {found}")]
    SinceOtherLog { found: String },
    #[error("head given is not signed by this log's key")]
    SinceSignature,
    #[error("log is shorter than the head given: {size} entries, not {since}")]
    SinceBeyond { size: u64, since: u64 },
    #[error(
        "head given, of size {since}, does not match the tree: entries before it were changed since it was signed"
    )]
    SinceRoot { since: u64 },
}

/// Why a verification has no result, or a bad one.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The log is not what it should be.
    #[error("log does not verify")]
    Mismatch(#[from] Mismatch),
    #[error("failed to open the log")]
    Open(#[source] OpenError),
    #[error("failed to read the heads file")]
    Heads(#[source] io::Error),
    #[error("head given is not a head of a log")]
    Since(#[source] HeadError),
    /// The log could not be read just now, for a reason that says nothing about its content.
    #[error("failed to read the log")]
    Read(#[source] DatabaseError),
}

/// Verifies the log in `dir`.
pub fn verify(dir: &Path, options: &VerifyOptions) -> Result<Report, VerifyError> {
    verify_at(&dir.into(), options)
}

/// The same wherever it lies. Of a log on a server this machine's heads file has the newest heads only, or none.
pub fn verify_at(place: &Place, options: &VerifyOptions) -> Result<Report, VerifyError> {
    let since = options
        .since
        .as_deref()
        .map(SignedHead::parse)
        .transpose()
        .map_err(VerifyError::Since)?;
    if let Place::Directory(dir) = place {
        let length = length_of(&database_path(dir)).map_err(VerifyError::Heads)?;
        if length == 0 {
            refuse_if_entries_were_signed(dir)?;
        }
    }
    let reader = open(place)?;
    check_elsewhere(&reader, options.public_key.as_ref(), since.as_ref())?;
    let mut walked = None;
    let one_state = reader.database().snapshot(&mut || {
        walked = Some(walk::run(place, &reader, since.as_ref()));
        Ok(())
    });
    one_state.map_err(|error| from_store("log", error))?;
    let mut report = walked.ok_or_else(|| Mismatch::Damaged {
        what: "log".to_owned(),
    })??;
    if options.public_key.is_some() {
        report.authentic_size = Some(report.size);
    }
    Ok(report)
}

/// The database is gone, or nothing can be read in it: heads tell whether that was always so.
fn refuse_if_entries_were_signed(dir: &Path) -> Result<(), VerifyError> {
    let file = HeadsReader::open(&heads_path(dir)).map_err(VerifyError::Heads)?;
    let Some(mut file) = file else {
        return Ok(());
    };
    let Some(beyond) = file.beyond().map_err(VerifyError::Heads)? else {
        return Ok(());
    };
    let heads_size = beyond.head.map_or(1, |head| head.head.size);
    Err(Mismatch::EntriesMissing {
        log_size: 0,
        heads_size,
        number: beyond.number.unwrap_or(0),
    }
    .into())
}

fn open(place: &Place) -> Result<Reader, VerifyError> {
    let opened = match Reader::open_at(place) {
        // With the first pages of a write-ahead log all that was committed is lost.
        Err(error @ OpenError::NotFound { .. }) => {
            refuse_if_entries_were_signed(place.dir())?;
            Err(error)
        }
        opened => opened,
    };
    opened.map_err(|error| match error {
        OpenError::Damaged { what, .. } => Mismatch::Damaged { what }.into(),
        OpenError::Database { source, .. } => unreadable("header, schema or entry 0", source),
        error => VerifyError::Open(error),
    })
}

/// Compares what came from elsewhere with what the log says of itself.
fn check_elsewhere(
    reader: &Reader,
    public_key: Option<&PublicKey>,
    since: Option<&SignedHead>,
) -> Result<(), Mismatch> {
    if public_key.is_some_and(|key| key != reader.public_key()) {
        return Err(Mismatch::OtherKey);
    }
    let Some(since) = since else { return Ok(()) };
    if since.head.origin != reader.origin() {
        return Err(Mismatch::SinceOtherLog {
            found: since.head.origin.clone(),
        });
    }
    if since.is_signed_by(reader.public_key()) {
        Ok(())
    } else {
        Err(Mismatch::SinceSignature)
    }
}

/// Sorts what the database says: a busy or unreachable one is no statement about the log; anything else is.
fn unreadable(place: &str, source: impl Into<DatabaseError>) -> VerifyError {
    let source = source.into();
    if is_passing(&source) {
        return VerifyError::Read(source);
    }
    Mismatch::Unreadable {
        place: place.to_owned(),
        source,
    }
    .into()
}

fn is_passing(error: &DatabaseError) -> bool {
    use rusqlite::ErrorCode;
    let error = match error {
        DatabaseError::Sqlite(error) => error,
        // A server that can't be asked says nothing about the log; damage has codes of its own.
        DatabaseError::Postgres(error) => {
            return !error
                .code()
                .is_some_and(|code| code.code().starts_with("XX"));
        }
        _ => return !matches!(error, DatabaseError::Column { .. }),
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::DiskFull,
        )
    ) && !is_short_read(error)
}

/// The file ends before the page: it was cut.
fn is_short_read(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ)
}

fn from_store(place: &str, error: StoreError) -> VerifyError {
    match error {
        StoreError::Read(source) => unreadable(place, source),
        _ => Mismatch::Damaged {
            what: place.to_owned(),
        }
        .into(),
    }
}
