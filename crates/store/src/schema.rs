//! Tables of `log.db`, and how connections to it are set up.
//!
//! The schema's text is compared with what the file says, so a damaged schema is noticed like a damaged row. A new
//! format gets a new number, and its projections are rebuilt from entries, not migrated.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub(crate) const FORMAT: i64 = 1;
/// "MSLG", so that `file` and a stray database don't pass for a log.
const APPLICATION_ID: i64 = 0x4d53_4c47;
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Passive checkpoints alone let the WAL grow to a gigabyte while readers come and go.
pub(crate) const WAL_LIMIT_BYTES: u64 = 64 * 1024 * 1024;
const STATEMENTS_CACHED: usize = 64;

/// Name and text of each table and index. `sqlite_schema` keeps the text as it is written here.
const OBJECTS: [(&str, &str); 13] = [
    (
        "meta",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        "entry",
        "CREATE TABLE entry (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT",
    ),
    (
        "payload",
        "CREATE TABLE payload (id INTEGER PRIMARY KEY, name TEXT NOT NULL, salt BLOB NOT NULL, bytes BLOB NOT NULL) STRICT",
    ),
    (
        "author",
        "CREATE TABLE author (name TEXT PRIMARY KEY, counter INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        "head",
        "CREATE TABLE head (number INTEGER PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, \
         signature BLOB NOT NULL) STRICT",
    ),
    (
        "task",
        "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL, \
         state TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_seq INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
    ),
    (
        "task_by_time",
        "CREATE INDEX task_by_time ON task (created_ms, id)",
    ),
    (
        "task_by_agent",
        "CREATE INDEX task_by_agent ON task (agent, created_ms, id)",
    ),
    (
        "task_open",
        "CREATE INDEX task_open ON task (created_ms, id) \
         WHERE state NOT IN ('completed', 'failed', 'canceled', 'rejected')",
    ),
    (
        "step",
        "CREATE TABLE step (task TEXT NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (task, n)) STRICT",
    ),
    (
        "session",
        "CREATE TABLE session (id TEXT PRIMARY KEY NOT NULL, agent TEXT, body BLOB NOT NULL) STRICT",
    ),
    (
        "idempotency",
        "CREATE TABLE idempotency (key TEXT PRIMARY KEY, task TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        "state",
        "CREATE TABLE state (kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, \
         PRIMARY KEY (kind, key)) STRICT",
    ),
];

/// The writer's connection. It must not checkpoint when it closes until the log is known to be whole: a WAL with a
/// damaged frame would lose what stands behind it.
pub(crate) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    set_up(&connection)?;
    Ok(connection)
}

/// What only the writer sets, once the log is known to be whole.
pub(crate) fn begin_writing(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        match row.get_ref(0)?.as_str()? {
            "wal" => Ok(()),
            _ => Err(rusqlite::Error::ExecuteReturnedResults),
        }
    })?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES.cast_signed())?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Until the connection closes and beyond, the WAL stays as it is.
pub(crate) fn leave_wal_alone(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map(drop)
}

/// A connection that can't write. In a directory where SQLite can't make its helper files, on a read-only medium for
/// instance, the database is read as it stands, provided that nothing of it is in a WAL.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_read_only(path)?;
    let error = match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        Err(error) if is_refused(&error) => error,
        // Damage is reported where it can be named.
        _ => return Ok(connection),
    };
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    match std::fs::metadata(&wal) {
        Ok(metadata) if metadata.len() > 0 => Err(error),
        _ => open_read_only(&immutable_uri(path)),
    }
}

fn is_refused(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

fn immutable_uri(path: &Path) -> PathBuf {
    let escape = |byte: &u8| match byte {
        b'%' | b'?' | b'#' => format!("%{byte:02X}").into_bytes(),
        _ => vec![*byte],
    };
    let mut uri = b"file:".to_vec();
    uri.extend(path.as_os_str().as_bytes().iter().flat_map(escape));
    uri.extend(b"?immutable=1");
    PathBuf::from(OsString::from_vec(uri))
}

fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    set_up(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Makes the tables, in the caller's transaction.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    for (_, sql) in OBJECTS {
        connection.execute_batch(sql)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)
}

/// Makes the projections' tables alone, for a rebuild beside the log.
pub(crate) fn create_projections(connection: &Connection) -> rusqlite::Result<()> {
    for (name, sql) in OBJECTS {
        if crate::row::PROJECTIONS
            .iter()
            .any(|projection| projection.table == name)
        {
            connection.execute_batch(sql)?;
        }
    }
    Ok(())
}

/// What a database file says it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// No table yet: a creation that did not get to its commit.
    Empty,
    Known,
    Newer(i64),
    /// Not a log, or its schema is not what was written.
    Damaged(String),
}

pub(crate) fn format_of(connection: &Connection) -> rusqlite::Result<Format> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let found = statement
        .query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if found.is_empty() && version == 0 && application == 0 {
        return Ok(Format::Empty);
    }
    if application != APPLICATION_ID {
        return Ok(Format::Damaged(
            "application id in the database header".to_owned(),
        ));
    }
    if version > FORMAT {
        return Ok(Format::Newer(version));
    }
    let pairs = found
        .iter()
        .map(|(name, sql)| (name.as_str(), sql.as_str()));
    if version != FORMAT || !pairs.eq(OBJECTS) {
        return Ok(Format::Damaged("schema".to_owned()));
    }
    Ok(Format::Known)
}
