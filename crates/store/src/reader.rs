//! Reads a log on a read-only connection: entries, payloads and heads. Rows of projections are read in the files
//! named after them.
//!
//! Each call is one short transaction, so no reader holds the WAL back. `snapshot` spans several, for as long as its
//! closure runs: keep that short.

use std::ops::ControlFlow;
use std::path::Path;

use ledger::{Entry, Head, PublicKey, SaltedPayload, SignedHead};

use crate::append;
use crate::batch::KIND_CREATED;
use crate::create::Created;
use crate::database::{Columns, Database, DatabaseError, Param};
use crate::directory::database_path;
use crate::error::{OpenError, StoreError};
use crate::open_server;
use crate::place::Place;
use crate::postgres::{Postgres, Server};
use crate::row::{payload_ids, to_sql};
use crate::schema::{self, Format};
use crate::sqlite::Sqlite;

/// A page of entries ends once it holds this much.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A connection for reading, with what entry 0 says about the log.
#[derive(Debug)]
pub struct Reader {
    database: Box<dyn Database>,
    key: PublicKey,
}

impl Reader {
    /// Opens a log for reading, whether or not a writer has it open.
    pub fn open(dir: &Path) -> Result<Reader, OpenError> {
        Reader::open_at(&dir.into())
    }

    /// The same wherever it lies.
    pub fn open_at(place: &Place) -> Result<Reader, OpenError> {
        match place {
            Place::Directory(dir) => Reader::open_file(dir),
            Place::Server { server, .. } => open_server::reader(server),
        }
    }

    fn open_file(dir: &Path) -> Result<Reader, OpenError> {
        let path = database_path(dir);
        if !path.is_file() {
            return Err(OpenError::NotFound { path });
        }
        let connection = schema::open_reader(&path).map_err(|source| OpenError::Database {
            path: path.clone(),
            source: source.into(),
        })?;
        Reader::on_sqlite(Sqlite::new(connection, dir.to_owned()), &path)
    }

    /// Checks that the connection is to a log of a known format.
    pub(crate) fn on_sqlite(sqlite: Sqlite, path: &Path) -> Result<Reader, OpenError> {
        let format = schema::format_of(sqlite.connection()).map_err(DatabaseError::from);
        Reader::new(Box::new(sqlite), format, path)
    }

    /// The format was looked at.
    pub(crate) fn on_server(postgres: Postgres, server: &Server) -> Result<Reader, OpenError> {
        Reader::new(Box::new(postgres), Ok(Format::Known), &server.shown())
    }

    fn new(
        database: Box<dyn Database>,
        format: Result<Format, DatabaseError>,
        path: &Path,
    ) -> Result<Reader, OpenError> {
        let path = path.to_owned();
        match format {
            Err(source) => return Err(OpenError::Database { path, source }),
            Ok(Format::Empty) => return Err(OpenError::NotFound { path }),
            Ok(Format::Newer(found)) => {
                return Err(OpenError::NewerFormat {
                    path,
                    found,
                    known: schema::FORMAT,
                });
            }
            Ok(Format::Damaged(what)) => return Err(OpenError::Damaged { path, what }),
            Ok(Format::Known) => {}
        }
        let created = created(database.as_ref());
        let key = created.and_then(|created| created.public_key().map_err(|_| damaged("entry 0")));
        match key {
            Ok(key) => Ok(Reader { database, key }),
            Err(StoreError::Read(source)) => Err(OpenError::Database { path, source }),
            Err(_) => Err(OpenError::Damaged {
                path,
                what: "entry 0".to_owned(),
            }),
        }
    }

    pub(crate) fn database(&self) -> &dyn Database {
        self.database.as_ref()
    }

    /// Runs several reads on one state of the log.
    pub fn snapshot<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (mut read, mut result) = (Some(read), None);
        self.database.snapshot(&mut || {
            result = read.take().map(|read| read(self)).transpose()?;
            Ok(())
        })?;
        result.ok_or_else(|| damaged("a snapshot"))
    }

    /// The origin line of the log's heads.
    pub fn origin(&self) -> &str {
        self.key.name()
    }

    /// The key that the log says its heads are signed with. It proves something only if it is compared with one that
    /// came from elsewhere.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Entries in the log.
    pub fn size(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(seq) + 1, 0) FROM entry";
        self.database.number(sql, &[])
    }

    /// Up to `limit` entries from `from` on; fewer if they are large, none only at the end.
    pub fn entries(&self, from: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let sql = "SELECT seq, bytes FROM entry WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
        let params = [
            Param::Integer(to_sql(from)),
            Param::Integer(to_sql(limit as u64)),
        ];
        let (mut entries, mut page_bytes) = (Vec::new(), 0);
        self.database.query(sql, &params, &mut |row| {
            let bytes = row.blob(1)?;
            entries.push(decode(row.integer(0)?, bytes)?);
            page_bytes += bytes.len();
            Ok(if page_bytes >= PAGE_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        Ok(entries)
    }

    pub fn entry(&self, seq: u64) -> Result<Option<Entry>, StoreError> {
        entry(self.database(), seq)
    }

    /// A payload's bytes; `None` if the entry has none of this name or it was erased.
    pub fn payload(&self, seq: u64, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT bytes FROM payload WHERE id BETWEEN ?1 AND ?2 AND name = ?3";
        let bytes = |row: &dyn Columns| Ok(row.blob(0)?.to_owned());
        self.database.first(sql, &payload_params(seq, name), bytes)
    }

    /// A payload with its salt: what proves to others that its entry names it.
    pub fn salted_payload(
        &self,
        seq: u64,
        name: &str,
    ) -> Result<Option<SaltedPayload>, StoreError> {
        let sql = "SELECT salt, bytes FROM payload WHERE id BETWEEN ?1 AND ?2 AND name = ?3";
        self.database
            .first(sql, &payload_params(seq, name), |row| Ok(salted(row, 0)?))
    }

    /// Whether a payload is there, without reading it.
    pub fn has_payload(&self, seq: u64, name: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM payload WHERE id BETWEEN ?1 AND ?2 AND name = ?3";
        let params = payload_params(seq, name);
        let found = self.database.first(sql, &params, |_| Ok(()))?;
        Ok(found.is_some())
    }

    /// Entries below this are in the projections' tables; rows that follow from later ones are still their writer's.
    pub fn watermark(&self) -> Result<u64, StoreError> {
        append::read_watermark(self.database())
    }

    /// How many heads the log has; they are numbered from 0.
    pub fn head_count(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(number) + 1, 0) FROM head";
        self.database.number(sql, &[])
    }

    pub fn last_head(&self) -> Result<Option<SignedHead>, StoreError> {
        let sql = "SELECT size, root, signature FROM head ORDER BY number DESC LIMIT 1";
        self.database.first(sql, &[], |row| self.head_from(row))
    }

    pub fn head(&self, number: u64) -> Result<Option<SignedHead>, StoreError> {
        let sql = "SELECT size, root, signature FROM head WHERE number = ?1";
        let params = [Param::Integer(to_sql(number))];
        self.database.first(sql, &params, |row| self.head_from(row))
    }

    /// Up to `limit` heads from this number on, each with its own.
    pub(crate) fn heads(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, SignedHead)>, StoreError> {
        let sql = "SELECT size, root, signature, number FROM head WHERE number >= ?1 ORDER BY number LIMIT ?2";
        let params = [
            Param::Integer(to_sql(from)),
            Param::Integer(to_sql(limit as u64)),
        ];
        self.database.all(sql, &params, |row| {
            Ok((row.integer(3)?.cast_unsigned(), self.head_from(row)?))
        })
    }

    /// `row` begins with size, root and signature.
    fn head_from(&self, row: &dyn Columns) -> Result<SignedHead, StoreError> {
        let size = row.integer(0)?.cast_unsigned();
        let head = Head {
            origin: self.origin().to_owned(),
            size,
            root: bytes_of(row, 1)?,
        };
        Ok(SignedHead::with_signature(head, &self.key, row.blob(2)?))
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged {
        what: what.to_owned(),
    }
}

pub(crate) fn decode(seq: i64, bytes: &[u8]) -> Result<Entry, StoreError> {
    let entry = Entry::decode(bytes).map_err(|_| damaged(&format!("entry {seq}")))?;
    if to_sql(entry.seq) == seq {
        Ok(entry)
    } else {
        Err(damaged(&format!("entry {seq}")))
    }
}

fn entry(database: &dyn Database, seq: u64) -> Result<Option<Entry>, StoreError> {
    let sql = "SELECT bytes FROM entry WHERE seq = ?1";
    let seq = to_sql(seq);
    database.first(sql, &[Param::Integer(seq)], |row| decode(seq, row.blob(0)?))
}

fn payload_params(seq: u64, name: &str) -> [Param<'_>; 3] {
    let (first, last) = payload_ids(seq);
    [
        Param::Integer(first),
        Param::Integer(last),
        Param::Text(name),
    ]
}

/// The salt in this column and the bytes in the next.
pub(crate) fn salted(row: &dyn Columns, at: usize) -> Result<SaltedPayload, DatabaseError> {
    Ok(SaltedPayload {
        salt: bytes_of(row, at)?,
        bytes: row.blob(at + 1)?.to_owned(),
    })
}

fn bytes_of<const N: usize>(row: &dyn Columns, at: usize) -> Result<[u8; N], DatabaseError> {
    let bytes = row.blob(at)?;
    bytes
        .try_into()
        .map_err(|_| DatabaseError::column(at, "bytes of the length written"))
}

/// What entry 0 says about the log.
fn created(database: &dyn Database) -> Result<Created, StoreError> {
    let first = entry(database, 0)?.filter(|entry| entry.kind == KIND_CREATED);
    let first = first.ok_or_else(|| damaged("entry 0"))?;
    Created::decode(&first.data).map_err(|_| damaged("entry 0"))
}
