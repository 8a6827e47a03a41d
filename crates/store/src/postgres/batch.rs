//! A batch as statements that take many rows each: one for every table it touches, whatever its size.
//!
//! A statement can't change one row twice, so of a row's changes only the last is written.

use std::collections::BTreeMap;

use tokio_postgres::types::{ToSql, Type};

use super::link::Call;
use crate::append::{META_EDGE, META_WATERMARK, watermark_bytes};
use crate::database::{DatabaseError, Writing};
use crate::row::{Row, RowKey, payload_id, payload_ids, to_sql};

const ENTRIES: &str = "INSERT INTO entry (seq, bytes) SELECT * FROM unnest(?1, ?2)";
const PAYLOADS: &str =
    "INSERT INTO payload (id, name, salt, bytes) SELECT * FROM unnest(?1, ?2, ?3, ?4)";
const AUTHORS: &str = "INSERT INTO author (name, counter) SELECT * FROM unnest(?1, ?2) \
    ON CONFLICT (name) DO UPDATE SET counter = excluded.counter";
const HEAD: &str = "INSERT INTO head (number, size, root, signature) VALUES (?1, ?2, ?3, ?4)";
const META: &str = "INSERT INTO meta (key, value) SELECT * FROM unnest(?1, ?2) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const ERASED: &str = "DELETE FROM payload USING unnest(?1, ?2, ?3) AS gone (first, last, name) \
    WHERE payload.id BETWEEN gone.first AND gone.last AND payload.name = gone.name";
const TASKS: &str = "INSERT INTO task (id, agent, session, state, created_ms, updated_seq, body) \
    SELECT * FROM unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET agent = excluded.agent, \
    session = excluded.session, state = excluded.state, created_ms = excluded.created_ms, \
    updated_seq = excluded.updated_seq, body = excluded.body";
const STEPS: &str = "INSERT INTO step (task, n, body) SELECT * FROM unnest(?1, ?2, ?3) \
    ON CONFLICT (task, n) DO UPDATE SET body = excluded.body";
const SESSIONS: &str = "INSERT INTO session (id, agent, body) SELECT * FROM unnest(?1, ?2, ?3) \
    ON CONFLICT (id) DO UPDATE SET agent = excluded.agent, body = excluded.body";
const KEYS: &str = "INSERT INTO idempotency (key, task) SELECT * FROM unnest(?1, ?2) \
    ON CONFLICT (key) DO UPDATE SET task = excluded.task";
const STATES: &str = "INSERT INTO state (kind, key, body) SELECT * FROM unnest(?1, ?2, ?3) \
    ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body";
const TASKS_GONE: &str = "DELETE FROM task WHERE id = ANY(?1)";
const STEPS_GONE: &str = "DELETE FROM step USING unnest(?1, ?2) AS gone (task, n) \
    WHERE step.task = gone.task AND step.n = gone.n";
const SESSIONS_GONE: &str = "DELETE FROM session WHERE id = ANY(?1)";
const KEYS_GONE: &str = "DELETE FROM idempotency WHERE key = ANY(?1)";
const STATES_GONE: &str = "DELETE FROM state USING unnest(?1, ?2) AS gone (kind, key) \
    WHERE state.kind = gone.kind AND state.key = gone.key";

/// A column of many rows, or one value.
trait Column: ToSql + Sync + Send {
    fn sql_type(&self) -> Type;
}

macro_rules! column {
    ($kind:ty, $sql:ident) => {
        impl Column for $kind {
            fn sql_type(&self) -> Type {
                Type::$sql
            }
        }
    };
}

column!(i64, INT8);
column!(&[u8], BYTEA);
column!(Vec<i64>, INT8_ARRAY);
column!(Vec<&str>, TEXT_ARRAY);
column!(Vec<Option<&str>>, TEXT_ARRAY);
column!(Vec<&[u8]>, BYTEA_ARRAY);
column!(Vec<Vec<u8>>, BYTEA_ARRAY);

macro_rules! call {
    ($sql:expr, $($value:expr),+) => {{
        let mut call = Call { sql: $sql, types: Vec::new(), values: Vec::new() };
        $(
            let value = $value;
            call.types.push(value.sql_type());
            call.values.push(Box::new(value));
        )+
        call
    }};
}

/// Postgres' text has no byte zero. Nothing that is written here does; what it would be is refused before anything is.
pub(super) fn check(writing: &Writing<'_>) -> Result<(), DatabaseError> {
    let rows = writing.rows.unwrap_or_default();
    let payloads = writing.prepared.payloads().map(|payload| payload.name);
    let authors = writing.prepared.authors.keys().copied();
    let texts = rows.iter().flat_map(texts).chain(payloads).chain(authors);
    let mut texts = texts;
    if texts.any(|text| text.contains('\0')) {
        return Err(DatabaseError::ZeroByte);
    }
    Ok(())
}

fn texts(row: &Row) -> Vec<&str> {
    match row {
        Row::Task(row) => vec![&row.id, &row.agent, &row.session, &row.state],
        Row::Step(row) => vec![&row.task],
        Row::Session(row) => vec![&row.id, row.agent.as_deref().unwrap_or_default()],
        Row::Idempotency { key, task } => vec![key, task],
        Row::State(row) => vec![&row.kind, &row.key],
        // What can't have been put isn't there to be deleted, but the statement would fail all the same.
        Row::Delete(RowKey::Step { task: id, .. } | RowKey::Task(id) | RowKey::Session(id)) => {
            vec![id]
        }
        Row::Delete(RowKey::Idempotency(key)) => vec![key],
        Row::Delete(RowKey::State { kind, key }) => vec![kind, key],
    }
}

/// Everything that a batch changes.
pub(super) fn calls<'a>(writing: &'a Writing<'a>) -> Vec<Call<'a>> {
    let prepared = writing.prepared;
    let mut calls = log(writing);
    let mut meta = vec![(META_EDGE, prepared.edge.encode())];
    if let Some(rows) = writing.rows {
        calls.extend(projections(rows));
        meta.push((META_WATERMARK, watermark_bytes(prepared.edge.size())));
    }
    let (keys, values): (Vec<&str>, Vec<Vec<u8>>) = meta.into_iter().unzip();
    calls.push(call!(META, keys, values));
    calls
}

/// Entries, payloads, authors, the head, and what is erased.
fn log<'a>(writing: &'a Writing<'a>) -> Vec<Call<'a>> {
    let prepared = writing.prepared;
    let mut calls = Vec::new();
    let entries: (Vec<i64>, Vec<&[u8]>) = prepared
        .entries()
        .map(|(seq, bytes)| (to_sql(seq), bytes))
        .unzip();
    if !entries.0.is_empty() {
        calls.push(call!(ENTRIES, entries.0, entries.1));
        let authors = prepared.authors.iter();
        let authors: (Vec<&str>, Vec<i64>) = authors
            .map(|(name, counter)| (*name, to_sql(*counter)))
            .unzip();
        calls.push(call!(AUTHORS, authors.0, authors.1));
    }
    let payloads: Vec<_> = prepared.payloads().collect();
    if !payloads.is_empty() {
        let ids: Vec<i64> = payloads
            .iter()
            .map(|payload| payload_id(payload.seq, payload.at))
            .collect();
        let names: Vec<&str> = payloads.iter().map(|payload| payload.name).collect();
        let salts: Vec<&[u8]> = payloads.iter().map(|payload| &payload.salt[..]).collect();
        let bytes: Vec<&[u8]> = payloads.iter().map(|payload| payload.bytes).collect();
        calls.push(call!(PAYLOADS, ids, names, salts, bytes));
    }
    if !writing.erasures.is_empty() {
        let ids = writing
            .erasures
            .iter()
            .map(|erasure| payload_ids(erasure.seq));
        let (first, last): (Vec<i64>, Vec<i64>) = ids.unzip();
        let names = writing.erasures.iter().map(|erasure| erasure.name.as_str());
        calls.push(call!(ERASED, first, last, names.collect::<Vec<&str>>()));
    }
    let head = &prepared.head;
    let signature = head.signatures.first();
    let signature = signature.map_or(&[][..], |line| line.signature.as_slice());
    let (number, size) = (to_sql(prepared.head_number), to_sql(head.head.size));
    calls.push(call!(HEAD, number, size, &head.head.root[..], signature));
    calls
}

/// The last change of each row, by table.
fn projections(rows: &[Row]) -> Vec<Call<'_>> {
    let last = last_changes(rows);
    let mut tasks = Vec::new();
    let mut steps = Vec::new();
    let mut sessions = Vec::new();
    let mut keys: (Vec<&str>, Vec<&str>) = Default::default();
    let mut states = Vec::new();
    let mut gone = Gone::default();
    for row in last {
        match row {
            Row::Task(row) => tasks.push(row),
            Row::Step(row) => steps.push(row),
            Row::Session(row) => sessions.push(row),
            Row::Idempotency { key, task } => {
                keys.0.push(key);
                keys.1.push(task);
            }
            Row::State(row) => states.push(row),
            Row::Delete(key) => gone.note(key),
        }
    }
    let mut calls = gone.calls();
    if !tasks.is_empty() {
        calls.push(call!(
            TASKS,
            tasks.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(),
            tasks
                .iter()
                .map(|row| row.agent.as_str())
                .collect::<Vec<_>>(),
            tasks
                .iter()
                .map(|row| row.session.as_str())
                .collect::<Vec<_>>(),
            tasks
                .iter()
                .map(|row| row.state.as_str())
                .collect::<Vec<_>>(),
            tasks.iter().map(|row| row.created_ms).collect::<Vec<_>>(),
            tasks
                .iter()
                .map(|row| to_sql(row.updated_seq))
                .collect::<Vec<_>>(),
            tasks
                .iter()
                .map(|row| row.body.as_slice())
                .collect::<Vec<_>>()
        ));
    }
    if !steps.is_empty() {
        calls.push(call!(
            STEPS,
            steps
                .iter()
                .map(|row| row.task.as_str())
                .collect::<Vec<_>>(),
            steps.iter().map(|row| to_sql(row.n)).collect::<Vec<_>>(),
            steps
                .iter()
                .map(|row| row.body.as_slice())
                .collect::<Vec<_>>()
        ));
    }
    if !sessions.is_empty() {
        calls.push(call!(
            SESSIONS,
            sessions
                .iter()
                .map(|row| row.id.as_str())
                .collect::<Vec<_>>(),
            sessions
                .iter()
                .map(|row| row.agent.as_deref())
                .collect::<Vec<_>>(),
            sessions
                .iter()
                .map(|row| row.body.as_slice())
                .collect::<Vec<_>>()
        ));
    }
    if !keys.0.is_empty() {
        calls.push(call!(KEYS, keys.0, keys.1));
    }
    if !states.is_empty() {
        calls.push(call!(
            STATES,
            states
                .iter()
                .map(|row| row.kind.as_str())
                .collect::<Vec<_>>(),
            states
                .iter()
                .map(|row| row.key.as_str())
                .collect::<Vec<_>>(),
            states
                .iter()
                .map(|row| row.body.as_slice())
                .collect::<Vec<_>>()
        ));
    }
    calls
}

fn last_changes(rows: &[Row]) -> impl Iterator<Item = &Row> {
    let mut last: BTreeMap<(u8, &str, &str, u64), &Row> = BTreeMap::new();
    for row in rows {
        last.insert(place(row), row);
    }
    last.into_values()
}

/// Table and key of the row that is changed.
fn place(row: &Row) -> (u8, &str, &str, u64) {
    match row {
        Row::Task(row) => (0, &row.id, "", 0),
        Row::Delete(RowKey::Task(id)) => (0, id, "", 0),
        Row::Step(row) => (1, &row.task, "", row.n),
        Row::Delete(RowKey::Step { task, n }) => (1, task, "", *n),
        Row::Session(row) => (2, &row.id, "", 0),
        Row::Delete(RowKey::Session(id)) => (2, id, "", 0),
        Row::Idempotency { key, .. } | Row::Delete(RowKey::Idempotency(key)) => (3, key, "", 0),
        Row::State(row) => (4, &row.kind, &row.key, 0),
        Row::Delete(RowKey::State { kind, key }) => (4, kind, key, 0),
    }
}

/// Keys of rows that are deleted.
#[derive(Default)]
struct Gone<'a> {
    tasks: Vec<&'a str>,
    steps: (Vec<&'a str>, Vec<i64>),
    sessions: Vec<&'a str>,
    keys: Vec<&'a str>,
    states: (Vec<&'a str>, Vec<&'a str>),
}

impl<'a> Gone<'a> {
    fn note(&mut self, key: &'a RowKey) {
        match key {
            RowKey::Task(id) => self.tasks.push(id),
            RowKey::Step { task, n } => {
                self.steps.0.push(task);
                self.steps.1.push(to_sql(*n));
            }
            RowKey::Session(id) => self.sessions.push(id),
            RowKey::Idempotency(key) => self.keys.push(key),
            RowKey::State { kind, key } => {
                self.states.0.push(kind);
                self.states.1.push(key);
            }
        }
    }

    fn calls(self) -> Vec<Call<'a>> {
        let mut calls = Vec::new();
        if !self.tasks.is_empty() {
            calls.push(call!(TASKS_GONE, self.tasks));
        }
        if !self.steps.0.is_empty() {
            calls.push(call!(STEPS_GONE, self.steps.0, self.steps.1));
        }
        if !self.sessions.is_empty() {
            calls.push(call!(SESSIONS_GONE, self.sessions));
        }
        if !self.keys.is_empty() {
            calls.push(call!(KEYS_GONE, self.keys));
        }
        if !self.states.0.is_empty() {
            calls.push(call!(STATES_GONE, self.states.0, self.states.1));
        }
        calls
    }
}
