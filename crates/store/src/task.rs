//! Rows of tasks, and of the idempotency keys that made them.

use crate::database::{Columns, Database, DatabaseError, Param};
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
        self.database().first(&sql, &[Param::Text(id)], from_row)
    }

    /// Newest first.
    pub fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<TaskRow>, StoreError> {
        let (created_ms, id) = match &filter.before {
            Some(cursor) => (cursor.created_ms, Some(cursor.id.as_str())),
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
        let params = [
            Param::OptionalText(filter.agent.as_deref()),
            Param::OptionalText(filter.session.as_deref()),
            Param::OptionalText(filter.state.as_deref()),
            Param::Integer(created_ms),
            Param::OptionalText(id),
            Param::Integer(to_sql(limit as u64)),
        ];
        self.database().all(&sql, &params, from_row)
    }

    /// Every task that is not in a terminal state, oldest first: what a start takes up again.
    pub fn open_tasks(&self) -> Result<Vec<TaskRow>, StoreError> {
        let states = TERMINAL_STATES.map(|state| format!("'{state}'")).join(", ");
        let sql = format!(
            "SELECT {COLUMNS} FROM task WHERE state NOT IN ({states}) ORDER BY created_ms, id"
        );
        self.database().all(&sql, &[], from_row)
    }

    /// The task that this idempotency key made.
    pub fn idempotent_task(&self, key: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT task FROM idempotency WHERE key = ?1";
        let task = |row: &dyn Columns| Ok(row.text(0)?.to_owned());
        self.database().first(sql, &[Param::Text(key)], task)
    }
}

fn from_row(row: &dyn Columns) -> Result<TaskRow, StoreError> {
    Ok(TaskRow {
        id: row.text(0)?.to_owned(),
        agent: row.text(1)?.to_owned(),
        session: row.text(2)?.to_owned(),
        state: row.text(3)?.to_owned(),
        created_ms: row.integer(4)?,
        updated_seq: row.integer(5)?.cast_unsigned(),
        body: row.blob(6)?.to_owned(),
    })
}

pub(crate) fn put(database: &dyn Database, row: &TaskRow) -> Result<(), DatabaseError> {
    let sql = "INSERT INTO task (id, agent, session, state, created_ms, updated_seq, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (id) DO UPDATE SET agent = ?2, session = ?3, state = ?4, created_ms = ?5, updated_seq = ?6, body = ?7";
    let params = [
        Param::Text(&row.id),
        Param::Text(&row.agent),
        Param::Text(&row.session),
        Param::Text(&row.state),
        Param::Integer(row.created_ms),
        Param::Integer(to_sql(row.updated_seq)),
        Param::Blob(&row.body),
    ];
    database.execute(sql, &params)
}

pub(crate) fn delete(database: &dyn Database, id: &str) -> Result<(), DatabaseError> {
    database.execute("DELETE FROM task WHERE id = ?1", &[Param::Text(id)])
}

pub(crate) fn put_idempotency(
    database: &dyn Database,
    key: &str,
    task: &str,
) -> Result<(), DatabaseError> {
    let sql = "INSERT INTO idempotency (key, task) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET task = ?2";
    database.execute(sql, &[Param::Text(key), Param::Text(task)])
}

pub(crate) fn delete_idempotency(database: &dyn Database, key: &str) -> Result<(), DatabaseError> {
    database.execute(
        "DELETE FROM idempotency WHERE key = ?1",
        &[Param::Text(key)],
    )
}
