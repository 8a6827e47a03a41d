//! Changes of projection rows, and the list of projections that a rebuild compares.
//!
//! Bodies are opaque bytes. Columns beside them exist only to be looked up by.

use ledger::MAX_PAYLOADS;

use crate::database::{Database, DatabaseError};
use crate::session::{self, SessionRow};
use crate::state::{self, StateRow};
use crate::step::{self, StepRow};
use crate::task::{self, TaskRow};

/// One change: a whole row put in its place, or a row taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    Task(TaskRow),
    Step(StepRow),
    Session(SessionRow),
    /// Which task an `Idempotency-Key` made.
    Idempotency {
        key: String,
        task: String,
    },
    State(StateRow),
    Delete(RowKey),
}

/// Names a row to delete. Deleting what isn't there is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    Task(String),
    Step { task: String, n: u64 },
    Session(String),
    Idempotency(String),
    State { kind: String, key: String },
}

/// A projection's table as a rebuild reads it.
#[derive(Debug)]
pub(crate) struct Projection {
    pub(crate) table: &'static str,
    /// The primary key's columns come first.
    pub(crate) columns: &'static [&'static str],
    pub(crate) key_columns: usize,
}

pub(crate) const PROJECTIONS: [Projection; 5] = [
    Projection {
        table: "task",
        columns: &[
            "id",
            "agent",
            "session",
            "state",
            "created_ms",
            "updated_seq",
            "body",
        ],
        key_columns: 1,
    },
    Projection {
        table: "step",
        columns: &["task", "n", "body"],
        key_columns: 2,
    },
    Projection {
        table: "session",
        columns: &["id", "agent", "body"],
        key_columns: 1,
    },
    Projection {
        table: "idempotency",
        columns: &["key", "task"],
        key_columns: 1,
    },
    Projection {
        table: "state",
        columns: &["kind", "key", "body"],
        key_columns: 2,
    },
];

/// SQLite's integers are signed; sequences and counters never come near the end of them.
pub(crate) fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Payloads lie in the order of their entries, so that new ones are always put at the table's end: one tree to write,
/// and no page of it but the last.
pub(crate) fn payload_id(seq: u64, at: usize) -> i64 {
    to_sql(
        seq.saturating_mul(MAX_PAYLOADS as u64)
            .saturating_add(at as u64),
    )
}

/// First and last id of an entry's payloads.
pub(crate) fn payload_ids(seq: u64) -> (i64, i64) {
    (payload_id(seq, 0), payload_id(seq, MAX_PAYLOADS - 1))
}

/// An entry's sequence, and a payload's place in it, by the payload's id.
pub(crate) fn payload_place(id: i64) -> (u64, usize) {
    let (id, width) = (id.cast_unsigned(), MAX_PAYLOADS as u64);
    (id / width, usize::try_from(id % width).unwrap_or(0))
}

pub(crate) fn apply(database: &dyn Database, row: &Row) -> Result<(), DatabaseError> {
    match row {
        Row::Task(row) => task::put(database, row),
        Row::Step(row) => step::put(database, row),
        Row::Session(row) => session::put(database, row),
        Row::Idempotency { key, task } => task::put_idempotency(database, key, task),
        Row::State(row) => state::put(database, row),
        Row::Delete(RowKey::Task(id)) => task::delete(database, id),
        Row::Delete(RowKey::Step { task, n }) => step::delete(database, task, *n),
        Row::Delete(RowKey::Session(id)) => session::delete(database, id),
        Row::Delete(RowKey::Idempotency(key)) => task::delete_idempotency(database, key),
        Row::Delete(RowKey::State { kind, key }) => state::delete(database, kind, key),
    }
}
