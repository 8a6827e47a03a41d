//! One connection to a Postgres, on a runtime of its own: whoever asks waits on his own thread.
//!
//! Nothing runs here between two calls. The connection is made so that a commit means what it means in SQLite: the
//! server has flushed, whatever its own default says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::server::Server;
use crate::database::{DatabaseError, Each, Param};
use crate::error::StoreError;

/// Statements of one text differ by nothing else; there are some fifty texts.
const STATEMENTS_KEPT: usize = 256;
/// A commit that the server answers before it flushed is none.
const SETTINGS: &str = "SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// A statement with its values.
pub(super) struct Call<'a> {
    pub(super) sql: &'a str,
    pub(super) types: Vec<Type>,
    pub(super) values: Vec<Box<dyn ToSql + Sync + 'a>>,
}

pub(super) struct Link {
    client: Client,
    statements: RefCell<HashMap<String, Statement>>,
    /// Last, so that it outlives the client; taken when the link is dropped.
    runtime: Option<Runtime>,
}

impl Link {
    pub(super) fn connect(server: &Server) -> Result<Link, DatabaseError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(DatabaseError::Runtime)?;
        let connecting = async {
            let (client, connection) = server.config.connect(server.tls.clone()).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to Postgres ended");
                }
            });
            let path = format!("SET search_path TO {}", server.quoted_schema());
            client.batch_execute(&path).await?;
            client.batch_execute(SETTINGS).await?;
            Ok::<_, tokio_postgres::Error>(client)
        };
        let client = match runtime.block_on(connecting) {
            Ok(client) => client,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error.into());
            }
        };
        Ok(Link {
            client,
            statements: RefCell::default(),
            runtime: Some(runtime),
        })
    }

    /// Waits for what is done with the client.
    pub(super) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DatabaseError> {
        match &self.runtime {
            Some(runtime) => Ok(runtime.block_on(work)?),
            None => Err(DatabaseError::Closed),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs SQL without values.
    pub(super) fn run(&self, sql: &str) -> Result<(), DatabaseError> {
        self.wait(self.client.batch_execute(sql))
    }

    pub(super) fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
        each: &mut Each<'_>,
    ) -> Result<(), StoreError> {
        let statement = self.wait(self.prepared(sql, &types_of(params)))?;
        let rows = self.wait(self.client.query_raw(&statement, values_of(params)))?;
        let mut rows = pin!(rows);
        while let Some(row) = self.wait(rows.try_next())? {
            if let ControlFlow::Break(()) = each(&row)? {
                break;
            }
        }
        Ok(())
    }

    /// All rows of a statement that is text alone, and whose columns are others the next time.
    pub(super) fn fetch(&self, sql: &str) -> Result<Vec<Row>, DatabaseError> {
        self.wait(self.client.query_typed(sql, &[]))
    }

    /// Returns how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, DatabaseError> {
        self.wait(async {
            let statement = self.prepared(sql, &types_of(params)).await?;
            let values = values_of(params);
            self.client.execute_raw(&statement, values).await
        })
    }

    /// Sends the beginning of a transaction and all calls at once, and waits for all answers. Returns how many rows
    /// each changed.
    pub(super) fn transaction(&self, calls: &[Call<'_>]) -> Result<Vec<u64>, DatabaseError> {
        self.wait(async {
            let mut statements = Vec::with_capacity(calls.len());
            for call in calls {
                statements.push(self.prepared(call.sql, &call.types).await?);
            }
            let begin = self.client.batch_execute("BEGIN");
            let sent = calls.iter().zip(&statements).map(|(call, statement)| {
                let values = call.values.iter().map(AsRef::as_ref);
                self.client
                    .execute_raw::<_, &(dyn ToSql + Sync), _>(statement, values)
            });
            // Each is sent when it is first asked, which is in this order.
            let begun = async { begin.await.map(|()| 0_u64) };
            let all: Vec<std::pin::Pin<Box<dyn Future<Output = _>>>> =
                std::iter::once(Box::pin(begun) as _)
                    .chain(sent.map(|call| Box::pin(call) as _))
                    .collect();
            let answers = join_all(all).await;
            answers.into_iter().skip(1).collect()
        })
    }

    async fn prepared(
        &self,
        sql: &str,
        types: &[Type],
    ) -> Result<Statement, tokio_postgres::Error> {
        if let Some(known) = self.statements.borrow().get(sql) {
            return Ok(known.clone());
        }
        let text = sql.replace('?', "$");
        let statement = self.client.prepare_typed(&text, types).await?;
        let mut known = self.statements.borrow_mut();
        if known.len() >= STATEMENTS_KEPT {
            known.clear();
        }
        known.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A runtime that is dropped waits, which nobody may where others are served.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

fn types_of(params: &[Param<'_>]) -> Vec<Type> {
    let types = params.iter().map(|param| match param {
        Param::Integer(_) => Type::INT8,
        Param::Text(_) | Param::OptionalText(_) => Type::TEXT,
        Param::Blob(_) => Type::BYTEA,
    });
    types.collect()
}

fn values_of<'a>(params: &'a [Param<'a>]) -> impl ExactSizeIterator<Item = &'a (dyn ToSql + Sync)> {
    params.iter().map(|param| -> &(dyn ToSql + Sync) {
        match param {
            Param::Integer(number) => number,
            Param::Text(text) => text,
            Param::OptionalText(text) => text,
            Param::Blob(bytes) => bytes,
        }
    })
}

/// What an error says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server isn't there, or is about to go: what was asked may have been done.
    Away,
    /// It has no room: nothing was done.
    Full,
    /// It refused.
    Refused,
}

pub(super) fn verdict(error: &DatabaseError) -> Verdict {
    let DatabaseError::Postgres(error) = error else {
        return match error {
            DatabaseError::Closed => Verdict::Away,
            _ => Verdict::Refused,
        };
    };
    let Some(said) = error.as_db_error() else {
        let source = std::error::Error::source(error);
        let is_cut =
            error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>());
        return if is_cut {
            Verdict::Away
        } else {
            Verdict::Refused
        };
    };
    let code = said.code();
    if [SqlState::DISK_FULL, SqlState::OUT_OF_MEMORY].contains(code) {
        return Verdict::Full;
    }
    let is_going = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
        // After a fail-over of the server's own this one is a copy.
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_SESSION_TIMEOUT,
    ];
    if is_going.contains(code) || code.code().starts_with("08") {
        Verdict::Away
    } else {
        Verdict::Refused
    }
}

/// Between two tries to reach a server that is away.
pub(super) fn pause(tries: u32) -> Duration {
    Duration::from_millis(50 << tries.min(4))
}
