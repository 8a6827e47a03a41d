//! Rows of steps: the calls that a task made, numbered within it.

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;
use crate::reader::Reader;
use crate::row::to_sql;

/// A step of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    pub task: String,
    pub n: u64,
    pub body: Vec<u8>,
}

impl Reader {
    /// Every step of a task, by number.
    pub fn steps(&self, task: &str) -> Result<Vec<StepRow>, StoreError> {
        let sql = "SELECT task, n, body FROM step WHERE task = ?1 ORDER BY n";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows = statement.query_map([task], from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    pub fn step(&self, task: &str, n: u64) -> Result<Option<StepRow>, StoreError> {
        let sql = "SELECT task, n, body FROM step WHERE task = ?1 AND n = ?2";
        let mut statement = self.connection().prepare_cached(sql)?;
        Ok(statement
            .query_row(params![task, to_sql(n)], from_row)
            .optional()?)
    }
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<StepRow> {
    Ok(StepRow {
        task: row.get(0)?,
        n: row.get::<_, i64>(1)?.cast_unsigned(),
        body: row.get(2)?,
    })
}

pub(crate) fn put(connection: &Connection, row: &StepRow) -> rusqlite::Result<()> {
    let sql = "INSERT INTO step (task, n, body) VALUES (?1, ?2, ?3) ON CONFLICT (task, n) DO UPDATE SET body = ?3";
    connection
        .prepare_cached(sql)?
        .execute(params![row.task, to_sql(row.n), row.body])?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, task: &str, n: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM step WHERE task = ?1 AND n = ?2")?
        .execute(params![task, to_sql(n)])?;
    Ok(())
}
