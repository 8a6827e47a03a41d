//! Tables of a log in Postgres, and how they came to be: a list of migrations and the number of the last one made.
//!
//! Text is compared byte by byte, as SQLite does, so that pages and rebuilds have one order in both.

use tokio_postgres::error::SqlState;

use super::link::Link;
use super::server::Server;
use crate::database::{DatabaseError, Param};
use crate::error::StoreError;

/// The last migration that this version knows.
pub(crate) const FORMAT: i64 = 1;

/// In order. One that was released is never changed; the next is made by a writer that holds the lease.
const MIGRATIONS: [&str; 1] = [r#"
CREATE TABLE lease (
    one boolean PRIMARY KEY CHECK (one), epoch bigint NOT NULL, holder text NOT NULL, name text NOT NULL, address text,
    expires timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO lease VALUES (true, 0, 'nobody', 'nobody', NULL, clock_timestamp() - interval '1 s');
CREATE TABLE meta (key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 50);
CREATE TABLE entry (seq bigint PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE payload (
    id bigint PRIMARY KEY, name text COLLATE "C" NOT NULL, salt bytea NOT NULL, bytes bytea NOT NULL
);
ALTER TABLE payload ALTER COLUMN bytes SET STORAGE EXTERNAL;
CREATE TABLE author (name text COLLATE "C" PRIMARY KEY, counter bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE head (number bigint PRIMARY KEY, size bigint NOT NULL, root bytea NOT NULL, signature bytea NOT NULL);
CREATE TABLE task (
    id text COLLATE "C" PRIMARY KEY, agent text COLLATE "C" NOT NULL, session text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL, created_ms bigint NOT NULL, updated_seq bigint NOT NULL, body bytea NOT NULL
);
CREATE INDEX task_by_time ON task (created_ms, id);
CREATE INDEX task_by_agent ON task (agent, created_ms, id);
CREATE INDEX task_open ON task (created_ms, id)
    WHERE state NOT IN ('completed', 'failed', 'canceled', 'rejected');
CREATE TABLE step (
    task text COLLATE "C" NOT NULL, n bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (task, n)
);
CREATE TABLE session (id text COLLATE "C" PRIMARY KEY, agent text COLLATE "C", body bytea NOT NULL);
CREATE TABLE idempotency (key text COLLATE "C" PRIMARY KEY, task text COLLATE "C" NOT NULL);
CREATE TABLE state (
    kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, body bytea NOT NULL, PRIMARY KEY (kind, key)
);
"#];

/// One at a time makes a schema, whichever log it is for.
const ALONE: &str = "SELECT pg_advisory_xact_lock(5568427014)";

/// What there is of a log's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Known,
    Newer(i64),
}

pub(super) fn found(link: &Link, server: &Server) -> Result<Found, DatabaseError> {
    Ok(match version(link, server)? {
        None => Found::Nothing,
        Some(version) if version > FORMAT => Found::Newer(version),
        Some(_) => Found::Known,
    })
}

fn version(link: &Link, server: &Server) -> Result<Option<i64>, DatabaseError> {
    let table = "SELECT count(*) FROM information_schema.tables WHERE table_schema = ?1 AND table_name = 'migration'";
    if number(link, table, &[Param::Text(server.schema())])? == 0 {
        return Ok(None);
    }
    Ok(Some(number(
        link,
        "SELECT coalesce(max(number), 0) FROM migration",
        &[],
    )?))
}

/// Makes the schema where there is none, and what it lacks. Refuses a server on which nothing is durable.
pub(super) fn prepare(link: &Link, server: &Server) -> Result<(), DatabaseError> {
    let unsafe_server = "SELECT count(*) FROM pg_settings WHERE name = 'fsync' AND setting = 'off'";
    if number(link, unsafe_server, &[])? > 0 {
        return Err(DatabaseError::NotDurable);
    }
    let made = version(link, server)?;
    if made.is_some_and(|version| version >= FORMAT) {
        return Ok(());
    }
    link.run("BEGIN")?;
    let migrated = migrate(link, server);
    link.run(if migrated.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    })?;
    migrated
}

fn migrate(link: &Link, server: &Server) -> Result<(), DatabaseError> {
    link.run(ALONE)?;
    let name = Param::Text(server.schema());
    let schema = "SELECT count(*) FROM pg_namespace WHERE nspname = ?1";
    if number(link, schema, &[name])? == 0 {
        let made = link.run(&format!("CREATE SCHEMA {}", server.quoted_schema()));
        made.map_err(|error| may_not(error, server))?;
    }
    let made = match version(link, server)? {
        None => {
            let table =
                "CREATE TABLE migration (number bigint PRIMARY KEY, made timestamptz NOT NULL)";
            link.run(table).map_err(|error| may_not(error, server))?;
            0
        }
        Some(made) => made,
    };
    for (number, sql) in (1..).zip(MIGRATIONS) {
        if number > made {
            link.run(sql)?;
            let note = "INSERT INTO migration VALUES (?1, clock_timestamp())";
            link.execute(note, &[Param::Integer(number)])?;
        }
    }
    Ok(())
}

fn may_not(error: DatabaseError, server: &Server) -> DatabaseError {
    let is_refused = match &error {
        DatabaseError::Postgres(error) => error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE),
        _ => false,
    };
    if is_refused {
        return DatabaseError::NoSchema {
            schema: server.quoted_schema(),
            role: server.role(),
        };
    }
    error
}

fn number(link: &Link, sql: &str, params: &[Param<'_>]) -> Result<i64, DatabaseError> {
    let mut found = 0;
    let asked = link.query(sql, params, &mut |row| {
        found = row.integer(0)?;
        Ok(std::ops::ControlFlow::Continue(()))
    });
    match asked {
        Err(StoreError::Read(error)) => Err(error),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_number_of_the_last_migration() {
        assert_eq!(i64::try_from(MIGRATIONS.len()), Ok(FORMAT));
    }
}
