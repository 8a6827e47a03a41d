//! A log's database on SQLite: one file, its WAL, and a connection to it.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::PathBuf;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use crate::checkpoint::Checkpoints;
use crate::database::{
    Columns, Database, DatabaseError, Each, Param, Reach, Rows, Value, Walk, Writing,
};
use crate::error::StoreError;
use crate::ground::Stage;
use crate::{append, erase, schema};

/// A connection, and what its writer has to do besides.
#[derive(Debug)]
pub(crate) struct Sqlite {
    connection: Connection,
    dir: PathBuf,
    checkpoints: RefCell<Checkpoints>,
}

impl Sqlite {
    pub(crate) fn new(connection: Connection, dir: PathBuf) -> Sqlite {
        Sqlite {
            connection,
            dir,
            checkpoints: RefCell::default(),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Database for Sqlite {
    fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
        each: &mut Each<'_>,
    ) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(sqlite)?;
        bind(&mut statement, params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(sqlite)? {
            if let ControlFlow::Break(()) = each(row)? {
                break;
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<(), DatabaseError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        bind(&mut statement, params)?;
        statement.raw_execute()?;
        Ok(())
    }

    fn walk(&self, queries: &[&str], walk: &mut Walk<'_>) -> Result<(), DatabaseError> {
        let mut statements = Vec::with_capacity(queries.len());
        for sql in queries {
            statements.push(self.connection.prepare(sql)?);
        }
        let mut rows: Vec<rusqlite::Rows<'_>> =
            statements.iter_mut().map(Statement::raw_query).collect();
        let mut rows: Vec<&mut dyn Rows> =
            rows.iter_mut().map(|rows| rows as &mut dyn Rows).collect();
        walk(&mut rows);
        Ok(())
    }

    fn snapshot(&self, read: &mut dyn FnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let transaction = self.connection.unchecked_transaction().map_err(sqlite)?;
        read()?;
        transaction.finish().map_err(sqlite)?;
        Ok(())
    }

    fn write(&self, writing: &Writing<'_>, reach: &Reach<'_>) -> Result<(), DatabaseError> {
        let reach = |stage| reach(stage).map_err(|source| disk(&source));
        reach(Stage::Begin)?;
        let has_erasures = !writing.erasures.is_empty();
        if has_erasures {
            self.connection.pragma_update(None, "secure_delete", true)?;
        }
        let transaction = self.connection.unchecked_transaction()?;
        writing.prepared.write(self)?;
        erase::erase(self, writing.erasures)?;
        if let Some(rows) = writing.rows {
            append::write_rows(self, rows)?;
            append::write_watermark(self, writing.prepared.edge.size())?;
        }
        reach(Stage::Written)?;
        transaction.commit()?;
        let mut checkpoints = self.checkpoints.borrow_mut();
        if has_erasures {
            self.connection
                .pragma_update(None, "secure_delete", false)?;
            checkpoints.after_erasure(&self.connection)?;
        } else {
            let bytes = writing.prepared.payload_bytes();
            checkpoints.after_commit(&self.connection, &self.dir, bytes)?;
        }
        Ok(())
    }

    fn begin_writing(&self) -> Result<(), DatabaseError> {
        Ok(schema::begin_writing(&self.connection)?)
    }

    fn begin(&self) -> Result<(), DatabaseError> {
        Ok(self.connection.execute_batch("BEGIN")?)
    }

    fn commit(&self) -> Result<(), DatabaseError> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    fn structure(&self) -> Result<Option<String>, DatabaseError> {
        let sql = "PRAGMA integrity_check(1)";
        let finding: String = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok((finding != "ok").then_some(finding))
    }

    fn abandon(&self) -> Result<(), DatabaseError> {
        // Closing would checkpoint, which is a flush: none is tried again after one has failed.
        Ok(schema::leave_wal_alone(&self.connection)?)
    }

    fn close(&self) -> Result<(), DatabaseError> {
        Ok(Checkpoints::truncate(&self.connection)?)
    }
}

fn sqlite(source: rusqlite::Error) -> DatabaseError {
    DatabaseError::Sqlite(source)
}

/// What a ground says of its disk, as SQLite would.
fn disk(source: &std::io::Error) -> DatabaseError {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
    rusqlite::Error::SqliteFailure(code, Some(source.to_string())).into()
}

fn bind(statement: &mut Statement<'_>, params: &[Param<'_>]) -> Result<(), DatabaseError> {
    for (at, param) in params.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, param)?;
    }
    Ok(())
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match *self {
            Param::Integer(number) => ValueRef::Integer(number),
            Param::Text(text) | Param::OptionalText(Some(text)) => ValueRef::Text(text.as_bytes()),
            Param::OptionalText(None) => ValueRef::Null,
            Param::Blob(bytes) => ValueRef::Blob(bytes),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

impl Rows for rusqlite::Rows<'_> {
    fn next(&mut self) -> Result<Option<&dyn Columns>, DatabaseError> {
        let row = rusqlite::Rows::next(self)?;
        Ok(row.map(|row| row as &dyn Columns))
    }
}

impl Columns for rusqlite::Row<'_> {
    fn integer(&self, at: usize) -> Result<i64, DatabaseError> {
        Ok(self.get(at)?)
    }

    fn text(&self, at: usize) -> Result<&str, DatabaseError> {
        let value = self.get_ref(at)?;
        Ok(value.as_str().map_err(rusqlite::Error::from)?)
    }

    fn optional_text(&self, at: usize) -> Result<Option<&str>, DatabaseError> {
        let value = self.get_ref(at)?;
        Ok(value.as_str_or_null().map_err(rusqlite::Error::from)?)
    }

    fn blob(&self, at: usize) -> Result<&[u8], DatabaseError> {
        // Text that stands where bytes were written is damage.
        let value = self.get_ref(at)?;
        Ok(value.as_blob().map_err(rusqlite::Error::from)?)
    }

    fn value(&self, at: usize) -> Result<Value, DatabaseError> {
        Ok(match self.get_ref(at)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Text(_) => Value::Text(self.text(at)?.to_owned()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
            ValueRef::Real(_) => return Err(DatabaseError::column(at, "value of a known kind")),
        })
    }
}
