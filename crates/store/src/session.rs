//! Rows of sessions: the conversations that tasks stand in.

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;
use crate::reader::Reader;
use crate::row::to_sql;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub id: String,
    pub agent: Option<String>,
    pub body: Vec<u8>,
}

impl Reader {
    pub fn session(&self, id: &str) -> Result<Option<SessionRow>, StoreError> {
        let mut statement = self
            .connection()
            .prepare_cached("SELECT id, agent, body FROM session WHERE id = ?1")?;
        Ok(statement.query_row([id], from_row).optional()?)
    }

    /// By falling id, which for time-ordered ids is newest first; `before` is the last id of the page before.
    pub fn sessions(
        &self,
        agent: Option<&str>,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let sql = "SELECT id, agent, body FROM session WHERE (?1 IS NULL OR agent = ?1) AND (?2 IS NULL OR id < ?2) \
                   ORDER BY id DESC LIMIT ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows = statement.query_map(params![agent, before, to_sql(limit as u64)], from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get(0)?,
        agent: row.get(1)?,
        body: row.get(2)?,
    })
}

pub(crate) fn put(connection: &Connection, row: &SessionRow) -> rusqlite::Result<()> {
    let sql = "INSERT INTO session (id, agent, body) VALUES (?1, ?2, ?3) \
               ON CONFLICT (id) DO UPDATE SET agent = ?2, body = ?3";
    connection
        .prepare_cached(sql)?
        .execute(params![row.id, row.agent, row.body])?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM session WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}
