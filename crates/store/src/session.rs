//! Rows of sessions: the conversations that tasks stand in.

use crate::database::{Columns, Database, DatabaseError, Param};
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
        let sql = "SELECT id, agent, body FROM session WHERE id = ?1";
        self.database().first(sql, &[Param::Text(id)], from_row)
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
        let params = [
            Param::OptionalText(agent),
            Param::OptionalText(before),
            Param::Integer(to_sql(limit as u64)),
        ];
        self.database().all(sql, &params, from_row)
    }
}

fn from_row(row: &dyn Columns) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        id: row.text(0)?.to_owned(),
        agent: row.optional_text(1)?.map(str::to_owned),
        body: row.blob(2)?.to_owned(),
    })
}

pub(crate) fn put(database: &dyn Database, row: &SessionRow) -> Result<(), DatabaseError> {
    let sql = "INSERT INTO session (id, agent, body) VALUES (?1, ?2, ?3) \
               ON CONFLICT (id) DO UPDATE SET agent = ?2, body = ?3";
    let params = [
        Param::Text(&row.id),
        Param::OptionalText(row.agent.as_deref()),
        Param::Blob(&row.body),
    ];
    database.execute(sql, &params)
}

pub(crate) fn delete(database: &dyn Database, id: &str) -> Result<(), DatabaseError> {
    database.execute("DELETE FROM session WHERE id = ?1", &[Param::Text(id)])
}
