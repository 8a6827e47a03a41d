//! Rows of every projection that is small and looked up by one key: generations, stopped agents and the like.

use rusqlite::{Connection, OptionalExtension, params};

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
        let mut statement = self.connection().prepare_cached(sql)?;
        Ok(statement.query_row([kind, key], from_row).optional()?)
    }

    /// Every value of a kind, by key.
    pub fn states(&self, kind: &str) -> Result<Vec<StateRow>, StoreError> {
        let sql = "SELECT kind, key, body FROM state WHERE kind = ?1 ORDER BY key";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows = statement.query_map([kind], from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<StateRow> {
    Ok(StateRow {
        kind: row.get(0)?,
        key: row.get(1)?,
        body: row.get(2)?,
    })
}

pub(crate) fn put(connection: &Connection, row: &StateRow) -> rusqlite::Result<()> {
    let sql = "INSERT INTO state (kind, key, body) VALUES (?1, ?2, ?3) ON CONFLICT (kind, key) DO UPDATE SET body = ?3";
    connection
        .prepare_cached(sql)?
        .execute(params![row.kind, row.key, row.body])?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, kind: &str, key: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM state WHERE kind = ?1 AND key = ?2")?
        .execute([kind, key])?;
    Ok(())
}
