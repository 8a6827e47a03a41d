//! Proves that projections follow from entries: folds the whole log again and compares the rows, or puts them in place
//! of what is stored.
//!
//! Projections are never migrated. When the code that makes rows changes, the log is folded again.

use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ledger::Entry;
use rusqlite::Connection;
use thiserror::Error;

use crate::append;
use crate::database::{Database, DatabaseError, Rows, Value};
use crate::directory::{self, database_path};
use crate::error::{OpenError, StoreError};
use crate::open;
use crate::open_server;
use crate::place::Place;
use crate::reader::Reader;
use crate::row::{PROJECTIONS, Projection, Row};
use crate::schema;
use crate::sqlite::Sqlite;
use crate::verify::{VerifyError, integrity};

const PAGE: usize = 256;

/// The code that applies entries: the same that makes the rows of a [`crate::Batch`].
pub trait Fold {
    /// Rows that follow from this entry, given all before it. Payloads are read from `log`; an erased one is `None`.
    fn apply(
        &mut self,
        entry: &Entry,
        log: &Reader,
    ) -> Result<Vec<Row>, Box<dyn Error + Send + Sync>>;

    /// Rows that follow from all entries so far and that no call of [`Fold::apply`] gave.
    fn rest(&mut self) -> Vec<Row> {
        Vec::new()
    }
}

/// What to do with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildMode {
    /// Compare them with what is stored, which is what follows from the entries below the watermark. Also works beside
    /// a running writer.
    Check,
    /// Put them in place of what is stored. Nobody may run the log.
    Write,
}

/// What was folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    pub entries: u64,
    pub rows: u64,
}

/// Why projections could not be rebuilt, or are not what the entries say.
#[derive(Debug, Error)]
pub enum RebuildError {
    #[error("row {key} of table {table} is not what the entries say: column {column} differs")]
    Differs {
        table: &'static str,
        key: String,
        column: &'static str,
    },
    #[error("row {key} of table {table} is missing")]
    Missing { table: &'static str, key: String },
    #[error("row {key} of table {table} follows from no entry")]
    Unexpected { table: &'static str, key: String },
    #[error("failed to apply entry {seq}")]
    Fold {
        seq: u64,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("failed to open the log")]
    Open(#[from] OpenError),
    #[error("failed to read the log")]
    Read(#[from] StoreError),
    #[error("failed to use the database")]
    Database(#[from] DatabaseError),
    #[error("structure of the database is damaged")]
    Structure(#[source] VerifyError),
}

/// Folds the log in `dir` from its first entry.
pub fn rebuild(
    dir: &Path,
    fold: &mut dyn Fold,
    mode: RebuildMode,
) -> Result<Rebuilt, RebuildError> {
    rebuild_at(&dir.into(), fold, mode)
}

/// The same wherever it lies.
pub fn rebuild_at(
    place: &Place,
    fold: &mut dyn Fold,
    mode: RebuildMode,
) -> Result<Rebuilt, RebuildError> {
    match (mode, place) {
        (RebuildMode::Check, place) => check(place, fold),
        (RebuildMode::Write, Place::Directory(dir)) => write(dir, fold),
        (RebuildMode::Write, Place::Server { server, dir }) => {
            directory::prepare(dir, true)?;
            let _lock = directory::lock(dir)?;
            let reader = open_server::exclusive(server, dir)?;
            open::end(&place.shown(), &reader)?;
            let rebuilt = replace_all(&reader, fold)?;
            reader.database().close()?;
            Ok(rebuilt)
        }
    }
}

fn check(place: &Place, fold: &mut dyn Fold) -> Result<Rebuilt, RebuildError> {
    let reader = Reader::open_at(place)?;
    let mut checked = None;
    reader.database().snapshot(&mut || {
        checked = Some(compare_all(&reader, fold));
        Ok(())
    })?;
    checked.ok_or(StoreError::Failed)?
}

fn compare_all(reader: &Reader, fold: &mut dyn Fold) -> Result<Rebuilt, RebuildError> {
    let beside = beside()?;
    let watermark = reader.watermark()?;
    replay(reader, fold, 0..watermark, &beside)?;
    append::write_rows(&beside, &fold.rest())?;
    let mut rows = 0;
    for projection in &PROJECTIONS {
        rows += compare(projection, reader.database(), &beside)?;
    }
    integrity(reader.database()).map_err(RebuildError::Structure)?;
    // What follows from later entries is in no table yet; that it follows is proven all the same.
    let entries = replay(reader, fold, watermark..u64::MAX, &beside)?;
    Ok(Rebuilt { entries, rows })
}

/// Tables of projections beside the log. An empty name is a temporary file that SQLite unlinks at once: projections may
/// not fit in memory. Its transaction is never committed.
fn beside() -> Result<Sqlite, DatabaseError> {
    let beside = Connection::open("")?;
    beside.pragma_update(None, "journal_mode", "OFF")?;
    beside.execute_batch("BEGIN")?;
    schema::create_projections(&beside)?;
    Ok(Sqlite::new(beside, PathBuf::new()))
}

fn write(dir: &Path, fold: &mut dyn Fold) -> Result<Rebuilt, RebuildError> {
    directory::prepare(dir, false)?;
    let _lock = directory::lock(dir)?;
    let path = database_path(dir);
    let connection = schema::open_writer(&path).map_err(|source| OpenError::Database {
        path: path.clone(),
        source: source.into(),
    })?;
    let sqlite = Sqlite::new(connection, dir.to_owned());
    let reader = Reader::on_sqlite(sqlite, &path)?;
    let end = open::end(&path, &reader)?;
    open::heads(dir, &reader, &end)?;
    reader.database().begin_writing()?;
    replace_all(&reader, fold)
}

fn replace_all(reader: &Reader, fold: &mut dyn Fold) -> Result<Rebuilt, RebuildError> {
    let database = reader.database();
    database.begin()?;
    for projection in &PROJECTIONS {
        database.execute(&format!("DELETE FROM {}", projection.table), &[])?;
    }
    let entries = replay(reader, fold, 0..u64::MAX, database)?;
    append::write_rows(database, &fold.rest())?;
    append::write_watermark(database, entries)?;
    let mut rows = 0;
    for projection in &PROJECTIONS {
        let sql = format!("SELECT count(*) FROM {}", projection.table);
        rows += database.number(&sql, &[])?;
    }
    database.commit()?;
    Ok(Rebuilt { entries, rows })
}

/// Applies the rows of these entries to `target`; returns where the entries ended.
fn replay(
    reader: &Reader,
    fold: &mut dyn Fold,
    entries: Range<u64>,
    target: &dyn Database,
) -> Result<u64, RebuildError> {
    let mut from = entries.start;
    loop {
        let mut page = reader.entries(from, PAGE)?;
        page.retain(|entry| entry.seq < entries.end);
        for entry in &page {
            let seq = entry.seq;
            let rows = fold
                .apply(entry, reader)
                .map_err(|source| RebuildError::Fold { seq, source })?;
            append::write_rows(target, &rows)?;
            from = seq + 1;
        }
        if page.is_empty() {
            return Ok(from);
        }
    }
}

/// Walks both tables in key order; returns how many rows they share.
fn compare(
    projection: &'static Projection,
    stored: &dyn Database,
    built: &dyn Database,
) -> Result<u64, RebuildError> {
    let keys = projection.columns[..projection.key_columns].join(", ");
    let columns = projection.columns.join(", ");
    let sql = format!("SELECT {columns} FROM {} ORDER BY {keys}", projection.table);
    let (mut compared, mut beside) = (Ok(0), Ok(()));
    stored.walk(&[&sql], &mut |stored| {
        beside = built.walk(&[&sql], &mut |built| {
            if let ([stored], [built]) = (&mut *stored, built) {
                compared = compare_rows(projection, *stored, *built);
            }
        });
    })?;
    beside?;
    compared
}

fn compare_rows(
    projection: &'static Projection,
    stored: &mut dyn Rows,
    built: &mut dyn Rows,
) -> Result<u64, RebuildError> {
    let mut rows = 0;
    loop {
        match (next(stored, projection)?, next(built, projection)?) {
            (None, None) => return Ok(rows),
            (Some(stored), Some(built)) if stored == built => rows += 1,
            (stored, built) => return Err(difference(projection, stored, built)),
        }
    }
}

fn next(rows: &mut dyn Rows, projection: &Projection) -> Result<Option<Vec<Value>>, DatabaseError> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let columns = 0..projection.columns.len();
    columns
        .map(|column| row.value(column))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Names the first difference. Tables are walked in key order, so the smaller key is the one without a partner.
fn difference(
    projection: &'static Projection,
    stored: Option<Vec<Value>>,
    built: Option<Vec<Value>>,
) -> RebuildError {
    let table = projection.table;
    let key = |row: &[Value]| {
        row[..projection.key_columns]
            .iter()
            .map(shown)
            .collect::<Vec<_>>()
    };
    let text = |row: &[Value]| {
        key(row)
            .iter()
            .map(|(_, text)| text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    match (stored, built) {
        (Some(stored), Some(built)) if key(&stored) == key(&built) => {
            let at = stored
                .iter()
                .zip(&built)
                .position(|(stored, built)| stored != built)
                .unwrap_or(0);
            RebuildError::Differs {
                table,
                key: text(&stored),
                column: projection.columns[at],
            }
        }
        (Some(stored), Some(built)) if key(&stored) < key(&built) => RebuildError::Unexpected {
            table,
            key: text(&stored),
        },
        (_, Some(built)) => RebuildError::Missing {
            table,
            key: text(&built),
        },
        (stored, None) => RebuildError::Unexpected {
            table,
            key: stored.map_or_else(String::new, |row| text(&row)),
        },
    }
}

/// A key's value as the databases order it, and as it is shown.
fn shown(value: &Value) -> (i64, String) {
    match value {
        Value::Integer(number) => (*number, number.to_string()),
        Value::Text(text) => (0, text.clone()),
        other => (0, format!("{other:?}")),
    }
}
