//! What a log needs of its database: statements with values, rows one after another, one state for several reads, and
//! a batch written as one transaction.
//!
//! Texts of statements are SQL that both databases read, with parameters as `?1`. What differs between them (how a
//! transaction is kept, how it is made durable, who may write) stays behind this trait; nothing here knows what a log is.

use std::fmt::Debug;
use std::io;
use std::ops::ControlFlow;

use thiserror::Error;

use crate::append::Prepared;
use crate::batch::Erasure;
use crate::error::StoreError;
use crate::ground::Stage;
use crate::row::Row;

/// A value given to a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Param<'a> {
    Integer(i64),
    Text(&'a str),
    OptionalText(Option<&'a str>),
    Blob(&'a [u8]),
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// A row's columns, by place from 0.
pub(crate) trait Columns {
    fn integer(&self, at: usize) -> Result<i64, DatabaseError>;
    fn text(&self, at: usize) -> Result<&str, DatabaseError>;
    fn optional_text(&self, at: usize) -> Result<Option<&str>, DatabaseError>;
    fn blob(&self, at: usize) -> Result<&[u8], DatabaseError>;
    fn value(&self, at: usize) -> Result<Value, DatabaseError>;
}

/// Rows of a query that is walked while others are.
pub(crate) trait Rows {
    fn next(&mut self) -> Result<Option<&dyn Columns>, DatabaseError>;
}

/// What is done with each row, until it says that it has enough.
pub(crate) type Each<'a> = dyn FnMut(&dyn Columns) -> Result<ControlFlow<()>, StoreError> + 'a;

/// What is done with queries that are walked together.
pub(crate) type Walk<'a> = dyn FnMut(&mut [&mut dyn Rows]) + 'a;

/// Told of the stages of a commit; an error there is the disk's.
pub(crate) type Reach<'a> = dyn Fn(Stage) -> io::Result<()> + 'a;

/// A batch as it is written.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    pub(crate) prepared: &'a Prepared<'a>,
    pub(crate) erasures: &'a [Erasure],
    /// What follows from all entries up to and with these; `None` if it comes later.
    pub(crate) rows: Option<&'a [Row]>,
}

/// A connection to the database of one log.
pub(crate) trait Database: Debug + Send {
    /// Gives `each` the rows of a query.
    fn query(&self, sql: &str, params: &[Param<'_>], each: &mut Each<'_>)
    -> Result<(), StoreError>;

    /// Runs a statement that gives no rows.
    fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<(), DatabaseError>;

    /// Walks several queries without parameters at once. An error is of their preparation; what the rows themselves
    /// are like is the walk's to judge.
    fn walk(&self, queries: &[&str], walk: &mut Walk<'_>) -> Result<(), DatabaseError>;

    /// Runs what reads on one state of the log.
    fn snapshot(&self, read: &mut dyn FnMut() -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// Writes a batch in one transaction. When it returns, the batch is durable.
    fn write(&self, writing: &Writing<'_>, reach: &Reach<'_>) -> Result<(), DatabaseError>;

    /// What a writer needs, once the log is known to be whole.
    fn begin_writing(&self) -> Result<(), DatabaseError>;

    /// Begins a transaction that changes rows. It is undone unless [`Database::commit`] ends it.
    fn begin(&self) -> Result<(), DatabaseError>;

    fn commit(&self) -> Result<(), DatabaseError>;

    /// What the database itself finds wrong with the structure of its tables.
    fn structure(&self) -> Result<Option<String>, DatabaseError>;

    /// A commit has failed: nothing is flushed again, not by closing either.
    fn abandon(&self) -> Result<(), DatabaseError>;

    /// Ends in good order.
    fn close(&self) -> Result<(), DatabaseError>;
}

impl dyn Database + '_ {
    /// The first row of a query.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        mut read: impl FnMut(&dyn Columns) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut found = None;
        self.query(sql, params, &mut |row| {
            found = Some(read(row)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// All rows of a query.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        mut read: impl FnMut(&dyn Columns) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        self.query(sql, params, &mut |row| {
            found.push(read(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// A query whose one row has one number.
    pub(crate) fn number(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        let number = self.first(sql, params, |row| Ok(row.integer(0)?.cast_unsigned()))?;
        number.ok_or_else(|| StoreError::Damaged {
            what: "a count".to_owned(),
        })
    }
}

/// Why a database did not do what it was asked.
#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{}", said(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("connection to Postgres is closed")]
    Closed,
    #[error("failed to start what waits for Postgres")]
    Runtime(#[source] io::Error),
    #[error("disk fails")]
    Ground(#[source] io::Error),
    #[error("Postgres runs with fsync off: nothing that it says is durable")]
    NotDurable,
    #[error(
        "role {role} may not make schema {schema}: let its owner run CREATE SCHEMA {schema} AUTHORIZATION {role}"
    )]
    NoSchema { schema: String, role: String },
    #[error("text has a byte of value zero, which Postgres can't hold")]
    ZeroByte,
    #[error("{holder} has the lease, for {left_ms} ms unless it is renewed")]
    LeaseHeld {
        holder: String,
        /// Where it is found.
        address: Option<String>,
        left_ms: i64,
    },
    #[error("lease is lost to {holder}")]
    LeaseLost { holder: String },
    #[error("log was opened without its lease")]
    NoLease,
    #[error("column {at} has no {wanted}")]
    Column { at: usize, wanted: &'static str },
}

/// What a server says is in the error below the driver's, or in its own fields.
fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("Postgres says {}: {}", said.code().code(), said.message()),
        None => error.to_string(),
    }
}

impl DatabaseError {
    /// The rows say something else than what was written.
    pub(crate) fn column(at: usize, wanted: &'static str) -> DatabaseError {
        DatabaseError::Column { at, wanted }
    }
}
