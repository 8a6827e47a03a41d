//! Rows of tasks, and of the idempotency keys that made them.

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;
use crate::reader::Reader;
use crate::row::to_sql;

/// States that a task doesn't leave; every other one is open.
pub const TERMINAL_STATES: [&str; 4] = ["completed", "failed", "canceled", "rejected"];

const COLUMNS: &str = "id, agent, session, state, created_ms, updated_seq, body";

/// A task as it is listed and loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    pub id: String,
    pub agent: String,
    pub session: String,
    pub state: String,
    pub created_ms: i64,
    /// Sequence of the last entry that changed it.
    pub updated_seq: u64,
    pub body: Vec<u8>,
}

/// Which tasks to list, newest first; `None` is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    pub agent: Option<String>,
    pub session: Option<String>,
    pub state: Option<String>,
    /// Only tasks older than this one.
    pub before: Option<TaskCursor>,
}

/// A place in the list of tasks: the last row of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCursor {
    pub created_ms: i64,
    pub id: String,
}

impl Reader {
    pub fn task(&self, id: &str) -> Result<Option<TaskRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM task WHERE id = ?1");
        let mut statement = self.connection().prepare_cached(&sql)?;
        Ok(statement.query_row([id], from_row).optional()?)
    }

    /// Newest first.
    pub fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<TaskRow>, StoreError> {
        let (created_ms, id) = match &filter.before {
            Some(cursor) => (cursor.created_ms, Some(&cursor.id)),
            None => (i64::MAX, None),
        };
        // Without a condition on the agent the planner must be free to take `task_by_time`, so the text varies.
        let agent = if filter.agent.is_some() {
            "agent = ?1"
        } else {
            "?1 IS NULL"
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM task WHERE {agent} AND (?2 IS NULL OR session = ?2) AND (?3 IS NULL OR state = ?3) \
             AND (?5 IS NULL OR (created_ms, id) < (?4, ?5)) ORDER BY created_ms DESC, id DESC LIMIT ?6"
        );
        let mut statement = self.connection().prepare_cached(&sql)?;
        let limit = to_sql(limit as u64);
        let rows = statement.query_map(
            params![
                filter.agent,
                filter.session,
                filter.state,
                created_ms,
                id,
                limit
            ],
            from_row,
        )?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Every task that is not in a terminal state, oldest first: what a start takes up again.
    pub fn open_tasks(&self) -> Result<Vec<TaskRow>, StoreError> {
        let states = TERMINAL_STATES.map(|state| format!("'{state}'")).join(", ");
        let sql = format!(
            "SELECT {COLUMNS} FROM task WHERE state NOT IN ({states}) ORDER BY created_ms, id"
        );
        let mut statement = self.connection().prepare_cached(&sql)?;
        let rows = statement.query_map([], from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The task that this idempotency key made.
    pub fn idempotent_task(&self, key: &str) -> Result<Option<String>, StoreError> {
        let mut statement = self
            .connection()
            .prepare_cached("SELECT task FROM idempotency WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TaskRow> {
    Ok(TaskRow {
        id: row.get(0)?,
        agent: row.get(1)?,
        session: row.get(2)?,
        state: row.get(3)?,
        created_ms: row.get(4)?,
        updated_seq: row.get::<_, i64>(5)?.cast_unsigned(),
        body: row.get(6)?,
    })
}

pub(crate) fn put(connection: &Connection, row: &TaskRow) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO task (id, agent, session, state, created_ms, updated_seq, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (id) DO UPDATE SET agent = ?2, session = ?3, state = ?4, created_ms = ?5, updated_seq = ?6, body = ?7",
    )?;
    let updated_seq = to_sql(row.updated_seq);
    statement.execute(params![
        row.id,
        row.agent,
        row.session,
        row.state,
        row.created_ms,
        updated_seq,
        row.body
    ])?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM task WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

pub(crate) fn put_idempotency(
    connection: &Connection,
    key: &str,
    task: &str,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO idempotency (key, task) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET task = ?2";
    connection.prepare_cached(sql)?.execute([key, task])?;
    Ok(())
}

pub(crate) fn delete_idempotency(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM idempotency WHERE key = ?1")?
        .execute([key])?;
    Ok(())
}
