//! The steps of opening a log on a server for writing: the schema and the lease, the log or its creation, and whether
//! the heads that this machine knows are there. The rest is `open`'s.

use std::path::Path;

use crate::database::{Database, DatabaseError, Writing};
use crate::directory::heads_path;
use crate::error::OpenError;
use crate::ground::Ground;
use crate::heads::{HeadsFile, Tail, record};
use crate::health::Health;
use crate::log::Options;
use crate::open::{self, End, io_error};
use crate::postgres::{FORMAT, Found, Holder, Postgres, Server};
use crate::reader::Reader;

/// Connects, takes the lease, and makes the log where there is none and the caller says so.
pub(crate) fn database(
    server: &Server,
    dir: &Path,
    options: &Options,
    ground: &dyn Ground,
) -> Result<(Reader, Health), OpenError> {
    let holder = holder(dir, options.address.clone())?;
    let postgres = Postgres::writer(server, &holder).map_err(|error| failed(server, error))?;
    check_format(&postgres, server)?;
    let size = (&postgres as &dyn Database).number("SELECT count(*) FROM head", &[]);
    let size = size.map_err(|error| open::unread(&server.shown(), error))?;
    if size == 0 {
        open::refuse_if_heads_know_more(dir, 0).map_err(|error| lost(server, error))?;
        if !options.create {
            return Err(OpenError::NotFound {
                path: server.shown(),
            });
        }
        open::first_entry(options, ground, &|prepared| {
            let writing = Writing {
                prepared,
                erasures: &[],
                rows: Some(&[]),
            };
            let written = postgres.write(&writing, &|_| Ok(()));
            written.map_err(|error| failed(server, error))
        })?;
    }
    let health = postgres.health();
    let reader = Reader::on_server(postgres, server)?;
    Ok((reader, health))
}

/// Connects for reading.
pub(crate) fn reader(server: &Server) -> Result<Reader, OpenError> {
    let postgres = Postgres::reader(server).map_err(|error| failed(server, error))?;
    check_format(&postgres, server)?;
    Reader::on_server(postgres, server)
}

/// Connects and takes the lease of a log that is there.
pub(crate) fn exclusive(server: &Server, dir: &Path) -> Result<Reader, OpenError> {
    reader(server)?;
    let holder = holder(dir, None)?;
    let postgres = Postgres::writer(server, &holder).map_err(|error| failed(server, error))?;
    Reader::on_server(postgres, server)
}

fn holder(dir: &Path, address: Option<String>) -> Result<Holder, OpenError> {
    Holder::of(dir, address).map_err(|source| io_error(dir, source))
}

fn check_format(postgres: &Postgres, server: &Server) -> Result<(), OpenError> {
    let path = server.shown();
    match postgres.found().map_err(|error| failed(server, error))? {
        Found::Known => Ok(()),
        Found::Nothing => Err(OpenError::NotFound { path }),
        Found::Newer(found) => Err(OpenError::NewerFormat {
            path,
            found,
            known: FORMAT,
        }),
    }
}

fn failed(server: &Server, error: DatabaseError) -> OpenError {
    let path = server.shown();
    match error {
        DatabaseError::LeaseHeld {
            holder,
            address,
            left_ms,
        } => OpenError::LeaseHeld {
            path,
            holder,
            address,
            left_ms,
        },
        source => OpenError::Database { path, source },
    }
}

/// What the heads know and the server doesn't, it has lost.
fn lost(server: &Server, error: OpenError) -> OpenError {
    match error {
        OpenError::EntriesMissing {
            log_size,
            heads_size,
            head_number,
            path,
        } => OpenError::EntriesLost {
            path: server.shown(),
            heads: heads_path(&path),
            log_size,
            heads_size,
            head_number,
        },
        error => error,
    }
}

/// Compares the newest head that this machine knows with the log's, and begins the file anew with the log's newest:
/// other machines wrote between, and the table has all of them.
pub(crate) fn heads(
    dir: &Path,
    server: &Server,
    reader: &Reader,
    end: &End,
) -> Result<(HeadsFile, u64), OpenError> {
    open::refuse_if_heads_know_more(dir, end.head_count)
        .map_err(|error| lost(server, open::with_log_size(error, end.edge.size())))?;
    let path = heads_path(dir);
    let damaged = |number: u64| OpenError::Damaged {
        path: path.clone(),
        what: format!("head {number}"),
    };
    let last = end.head_count.saturating_sub(1);
    let mut file = HeadsFile::open(&path).map_err(|source| io_error(&path, source))?;
    let mut new = 0;
    match file.tail().map_err(|source| io_error(&path, source))? {
        Tail::Empty | Tail::Torn { .. } => {}
        Tail::Damaged => return Err(damaged(last)),
        Tail::Record { number, bytes } => {
            let head = reader.head(number);
            let head = head.map_err(|error| open::unread(&server.shown(), error))?;
            let ours = record(number, &head.ok_or_else(|| damaged(number))?);
            if !ours.starts_with(&bytes) {
                return Err(damaged(number));
            }
            new = last.saturating_sub(number);
        }
    }
    let begun = HeadsFile::begin(&path, last, &end.last_head);
    Ok((begun.map_err(|source| io_error(&path, source))?, new))
}
