//! Reads a log on a read-only connection: entries, payloads and heads. Rows of projections are read in the files
//! named after them.
//!
//! Each call is one short transaction, so no reader holds the WAL back. `snapshot` spans several, for as long as its
//! closure runs: keep that short.

use std::path::Path;

use ledger::{Entry, Head, PublicKey, SaltedPayload, SignedHead};
use rusqlite::{Connection, OptionalExtension, params};

use crate::append;
use crate::batch::KIND_CREATED;
use crate::create::Created;
use crate::directory::database_path;
use crate::error::{OpenError, StoreError};
use crate::row::{payload_ids, to_sql};
use crate::schema::{self, Format};

/// A page of entries ends once it holds this much.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A connection for reading, with what entry 0 says about the log.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    key: PublicKey,
}

impl Reader {
    /// Opens a log for reading, whether or not a writer has it open.
    pub fn open(dir: &Path) -> Result<Reader, OpenError> {
        let path = database_path(dir);
        if !path.is_file() {
            return Err(OpenError::NotFound { path });
        }
        let connection = schema::open_reader(&path).map_err(|source| OpenError::Database {
            path: path.clone(),
            source,
        })?;
        Reader::new(connection, &path)
    }

    /// Checks that the connection is to a log of a known format.
    pub(crate) fn new(connection: Connection, path: &Path) -> Result<Reader, OpenError> {
        let path = path.to_owned();
        match schema::format_of(&connection) {
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
        let created = created(&connection);
        let key = created.and_then(|created| created.public_key().map_err(|_| damaged("entry 0")));
        match key {
            Ok(key) => Ok(Reader { connection, key }),
            Err(StoreError::Read(source)) => Err(OpenError::Database { path, source }),
            Err(_) => Err(OpenError::Damaged {
                path,
                what: "entry 0".to_owned(),
            }),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs several reads on one state of the log.
    pub fn snapshot<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        let result = read(self)?;
        transaction.finish()?;
        Ok(result)
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
        let mut statement = self
            .connection
            .prepare_cached("SELECT coalesce(max(seq) + 1, 0) FROM entry")?;
        Ok(statement
            .query_row([], |row| row.get::<_, i64>(0))?
            .cast_unsigned())
    }

    /// Up to `limit` entries from `from` on; fewer if they are large, none only at the end.
    pub fn entries(&self, from: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let sql = "SELECT seq, bytes FROM entry WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![to_sql(from), to_sql(limit as u64)])?;
        let (mut entries, mut page_bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let bytes = row.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?;
            entries.push(decode(row.get(0)?, bytes)?);
            page_bytes += bytes.len();
            if page_bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(entries)
    }

    pub fn entry(&self, seq: u64) -> Result<Option<Entry>, StoreError> {
        entry(&self.connection, seq)
    }

    /// A payload's bytes; `None` if the entry has none of this name or it was erased.
    pub fn payload(&self, seq: u64, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT bytes FROM payload WHERE id BETWEEN ?1 AND ?2 AND name = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let (first, last) = payload_ids(seq);
        Ok(statement
            .query_row(params![first, last, name], |row| row.get(0))
            .optional()?)
    }

    /// A payload with its salt: what proves to others that its entry names it.
    pub fn salted_payload(
        &self,
        seq: u64,
        name: &str,
    ) -> Result<Option<SaltedPayload>, StoreError> {
        let sql = "SELECT salt, bytes FROM payload WHERE id BETWEEN ?1 AND ?2 AND name = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let (first, last) = payload_ids(seq);
        let found = statement.query_row(params![first, last, name], |row| {
            Ok(SaltedPayload {
                salt: row.get(0)?,
                bytes: row.get(1)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Whether a payload is there, without reading it.
    pub fn has_payload(&self, seq: u64, name: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM payload WHERE id BETWEEN ?1 AND ?2 AND name = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let (first, last) = payload_ids(seq);
        Ok(statement.exists(params![first, last, name])?)
    }

    /// Entries below this are in the projections' tables; rows that follow from later ones are still their writer's.
    pub fn watermark(&self) -> Result<u64, StoreError> {
        append::read_watermark(&self.connection)
    }

    /// How many heads the log has; they are numbered from 0.
    pub fn head_count(&self) -> Result<u64, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT coalesce(max(number) + 1, 0) FROM head")?;
        Ok(statement
            .query_row([], |row| row.get::<_, i64>(0))?
            .cast_unsigned())
    }

    pub fn last_head(&self) -> Result<Option<SignedHead>, StoreError> {
        let sql = "SELECT size, root, signature FROM head ORDER BY number DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement
            .query_row([], |row| self.head_from(row))
            .optional()?)
    }

    pub fn head(&self, number: u64) -> Result<Option<SignedHead>, StoreError> {
        let sql = "SELECT size, root, signature FROM head WHERE number = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement
            .query_row([to_sql(number)], |row| self.head_from(row))
            .optional()?)
    }

    /// `row` begins with size, root and signature.
    pub(crate) fn head_from(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<SignedHead> {
        let size = row.get::<_, i64>(0)?.cast_unsigned();
        let head = Head {
            origin: self.origin().to_owned(),
            size,
            root: row.get(1)?,
        };
        Ok(SignedHead::with_signature(
            head,
            &self.key,
            &row.get::<_, Vec<u8>>(2)?,
        ))
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

fn entry(connection: &Connection, seq: u64) -> Result<Option<Entry>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM entry WHERE seq = ?1")?;
    let bytes: Option<Vec<u8>> = statement
        .query_row([to_sql(seq)], |row| row.get(0))
        .optional()?;
    bytes.map(|bytes| decode(to_sql(seq), &bytes)).transpose()
}

/// What entry 0 says about the log.
fn created(connection: &Connection) -> Result<Created, StoreError> {
    let first = entry(connection, 0)?.filter(|entry| entry.kind == KIND_CREATED);
    let first = first.ok_or_else(|| damaged("entry 0"))?;
    Created::decode(&first.data).map_err(|_| damaged("entry 0"))
}
