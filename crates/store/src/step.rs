//! Rows of steps: the calls that a task made, numbered within it.

use crate::database::{Columns, Database, DatabaseError, Param};
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
        self.database().all(sql, &[Param::Text(task)], from_row)
    }

    pub fn step(&self, task: &str, n: u64) -> Result<Option<StepRow>, StoreError> {
        let sql = "SELECT task, n, body FROM step WHERE task = ?1 AND n = ?2";
        let params = [Param::Text(task), Param::Integer(to_sql(n))];
        self.database().first(sql, &params, from_row)
    }
}

fn from_row(row: &dyn Columns) -> Result<StepRow, StoreError> {
    Ok(StepRow {
        task: row.text(0)?.to_owned(),
        n: row.integer(1)?.cast_unsigned(),
        body: row.blob(2)?.to_owned(),
    })
}

pub(crate) fn put(database: &dyn Database, row: &StepRow) -> Result<(), DatabaseError> {
    let sql = "INSERT INTO step (task, n, body) VALUES (?1, ?2, ?3) ON CONFLICT (task, n) DO UPDATE SET body = ?3";
    let params = [
        Param::Text(&row.task),
        Param::Integer(to_sql(row.n)),
        Param::Blob(&row.body),
    ];
    database.execute(sql, &params)
}

pub(crate) fn delete(database: &dyn Database, task: &str, n: u64) -> Result<(), DatabaseError> {
    let sql = "DELETE FROM step WHERE task = ?1 AND n = ?2";
    database.execute(sql, &[Param::Text(task), Param::Integer(to_sql(n))])
}
