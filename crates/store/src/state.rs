//! Rows of every projection that is small and looked up by one key: generations, stopped agents and the like.

use crate::database::{Columns, Database, DatabaseError, Param};
use crate::error::StoreError;
use crate::reader::Reader;

/// A value under a kind and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    pub kind: String,
    pub key: String,
    pub body: Vec<u8>,
}

impl Reader {
    pub fn state(&self, kind: &str, key: &str) -> Result<Option<StateRow>, StoreError> {
        let sql = "SELECT kind, key, body FROM state WHERE kind = ?1 AND key = ?2";
        let params = [Param::Text(kind), Param::Text(key)];
        self.database().first(sql, &params, from_row)
    }

    /// Every value of a kind, by key.
    pub fn states(&self, kind: &str) -> Result<Vec<StateRow>, StoreError> {
        let sql = "SELECT kind, key, body FROM state WHERE kind = ?1 ORDER BY key";
        self.database().all(sql, &[Param::Text(kind)], from_row)
    }
}

fn from_row(row: &dyn Columns) -> Result<StateRow, StoreError> {
    Ok(StateRow {
        kind: row.text(0)?.to_owned(),
        key: row.text(1)?.to_owned(),
        body: row.blob(2)?.to_owned(),
    })
}

pub(crate) fn put(database: &dyn Database, row: &StateRow) -> Result<(), DatabaseError> {
    let sql = "INSERT INTO state (kind, key, body) VALUES (?1, ?2, ?3) ON CONFLICT (kind, key) DO UPDATE SET body = ?3";
    let params = [
        Param::Text(&row.kind),
        Param::Text(&row.key),
        Param::Blob(&row.body),
    ];
    database.execute(sql, &params)
}

pub(crate) fn delete(database: &dyn Database, kind: &str, key: &str) -> Result<(), DatabaseError> {
    let sql = "DELETE FROM state WHERE kind = ?1 AND key = ?2";
    database.execute(sql, &[Param::Text(kind), Param::Text(key)])
}
