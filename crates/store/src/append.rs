//! Turns a batch into what is written, and writes it: entries, payloads, authors, rows, head, edge and watermark in the
//! caller's one transaction.
//!
//! `prepare` does all that can be refused and touches nothing, so that a refused batch leaves no trace.

use std::collections::BTreeMap;

use ledger::{
    Edge, Entry, EntryError, Head, PayloadDigest, SALT_BYTES, SignedHead, SigningKey, cbor,
    leaf_hash, payload_digest,
};

use crate::batch::NewEntry;
use crate::database::{Database, DatabaseError, Param};
use crate::error::StoreError;
use crate::row::{self, Row, payload_id, to_sql};

pub(crate) const META_EDGE: &str = "edge";
pub(crate) const META_WATERMARK: &str = "watermark";
/// Rows of table meta.
pub(crate) const META_ROWS: u64 = 2;

/// What the log holds before the batch, and what salts the batch.
pub(crate) trait Before {
    fn counter(&self, author: &str) -> Result<u64, StoreError>;
    /// Fills with random bytes.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), StoreError>;
}

/// Where the log ends before the batch.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) edge: &'a Edge,
    pub(crate) head_count: u64,
    pub(crate) origin: &'a str,
    pub(crate) key: &'a SigningKey,
}

/// A batch ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    entries: Vec<PreparedEntry<'a>>,
    /// Counters of the authors in the batch, after it.
    pub(crate) authors: BTreeMap<&'a str, u64>,
    pub(crate) edge: Edge,
    pub(crate) head_number: u64,
    pub(crate) head: SignedHead,
}

/// A payload and its place.
pub(crate) struct NewPayload<'a> {
    pub(crate) seq: u64,
    pub(crate) at: usize,
    pub(crate) name: &'a str,
    pub(crate) salt: &'a [u8; SALT_BYTES],
    pub(crate) bytes: &'a [u8],
}

#[derive(Debug)]
struct PreparedEntry<'a> {
    seq: u64,
    bytes: Vec<u8>,
    payloads: Vec<PreparedPayload<'a>>,
}

#[derive(Debug)]
struct PreparedPayload<'a> {
    name: &'a str,
    salt: [u8; SALT_BYTES],
    bytes: &'a [u8],
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(
        end: &End<'_>,
        before: &dyn Before,
        entries: &[&'a NewEntry],
    ) -> Result<Prepared<'a>, StoreError> {
        let mut edge = end.edge.clone();
        let mut authors = BTreeMap::new();
        let mut salts = Salts::new(before, entries)?;
        let mut prepared = Vec::with_capacity(entries.len());
        for (index, new) in entries.iter().enumerate() {
            let next = match authors.get(new.author.as_str()) {
                Some(next) => *next,
                None => before.counter(&new.author)?,
            };
            let payloads = PreparedPayload::all(new, &mut salts);
            let entry = PreparedEntry::new(new, payloads, edge.size(), next)
                .map_err(|source| StoreError::Entry { index, source })?;
            edge.push(leaf_hash(&entry.bytes));
            authors.insert(new.author.as_str(), next + 1);
            prepared.push(entry);
        }
        let head = Head {
            origin: end.origin.to_owned(),
            size: edge.size(),
            root: edge.root(),
        };
        let head = SignedHead::sign(head, end.key).map_err(StoreError::Sign)?;
        Ok(Prepared {
            entries: prepared,
            authors,
            edge,
            head_number: end.head_count,
            head,
        })
    }

    /// Sequence and bytes of each entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let entries = self.entries.iter();
        entries.map(|entry| (entry.seq, entry.bytes.as_slice()))
    }

    pub(crate) fn payloads(&self) -> impl Iterator<Item = NewPayload<'_>> {
        self.entries.iter().flat_map(|entry| {
            let payloads = entry.payloads.iter().enumerate();
            payloads.map(|(at, payload)| NewPayload {
                seq: entry.seq,
                at,
                name: payload.name,
                salt: &payload.salt,
                bytes: payload.bytes,
            })
        })
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        let entries = self.entries.iter();
        entries
            .flat_map(|entry| &entry.payloads)
            .map(|payload| payload.bytes.len() as u64)
            .sum()
    }

    /// Writes all of it but the rows, in the caller's transaction.
    pub(crate) fn write(&self, database: &dyn Database) -> Result<(), DatabaseError> {
        self.write_entries(database)?;
        for (name, counter) in &self.authors {
            let sql = "INSERT INTO author (name, counter) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET counter = ?2";
            database.execute(sql, &[Param::Text(name), Param::Integer(to_sql(*counter))])?;
        }
        write_head(database, self.head_number, &self.head)?;
        write_meta(database, META_EDGE, &self.edge.encode())
    }
}

impl Prepared<'_> {
    fn write_entries(&self, database: &dyn Database) -> Result<(), DatabaseError> {
        let entry_row = "INSERT INTO entry (seq, bytes) VALUES (?1, ?2)";
        let payload_row = "INSERT INTO payload (id, name, salt, bytes) VALUES (?1, ?2, ?3, ?4)";
        for entry in &self.entries {
            let params = [Param::Integer(to_sql(entry.seq)), Param::Blob(&entry.bytes)];
            database.execute(entry_row, &params)?;
            for (at, payload) in entry.payloads.iter().enumerate() {
                let params = [
                    Param::Integer(payload_id(entry.seq, at)),
                    Param::Text(payload.name),
                    Param::Blob(&payload.salt),
                    Param::Blob(payload.bytes),
                ];
                database.execute(payload_row, &params)?;
            }
        }
        Ok(())
    }
}

impl<'a> PreparedEntry<'a> {
    fn new(
        new: &'a NewEntry,
        payloads: Vec<PreparedPayload<'a>>,
        seq: u64,
        author_seq: u64,
    ) -> Result<PreparedEntry<'a>, EntryError> {
        let entry = Entry {
            seq,
            time_ms: new.time_ms,
            kind: new.kind.clone(),
            version: new.version,
            subject: new.subject.clone(),
            author: new.author.clone(),
            author_seq,
            traceparent: new.traceparent.clone(),
            data: new.data.clone(),
            payloads: payloads.iter().map(PreparedPayload::digest).collect(),
        };
        let bytes = entry.encode()?;
        Ok(PreparedEntry {
            seq,
            bytes,
            payloads,
        })
    }
}

impl<'a> PreparedPayload<'a> {
    /// An entry's payloads by name, each with a new salt.
    fn all(new: &'a NewEntry, salts: &mut Salts) -> Vec<PreparedPayload<'a>> {
        let prepared = new.payloads.iter().map(|(name, bytes)| PreparedPayload {
            name,
            salt: salts.next(),
            bytes,
        });
        let mut payloads: Vec<_> = prepared.collect();
        payloads.sort_by_key(|payload| payload.name);
        payloads
    }

    fn digest(&self) -> PayloadDigest {
        PayloadDigest {
            name: self.name.to_owned(),
            length: self.bytes.len() as u64,
            digest: payload_digest(&self.salt, self.bytes),
        }
    }
}

/// Salts of a whole batch, drawn at once: the source of chance is asked once for each commit.
struct Salts {
    bytes: Vec<u8>,
    used: usize,
}

impl Salts {
    fn new(before: &dyn Before, entries: &[&NewEntry]) -> Result<Salts, StoreError> {
        let count: usize = entries.iter().map(|entry| entry.payloads.len()).sum();
        let mut bytes = vec![0; count * SALT_BYTES];
        before.fill(&mut bytes)?;
        Ok(Salts { bytes, used: 0 })
    }

    fn next(&mut self) -> [u8; SALT_BYTES] {
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&self.bytes[self.used..self.used + SALT_BYTES]);
        self.used += SALT_BYTES;
        salt
    }
}

fn write_meta(database: &dyn Database, key: &str, value: &[u8]) -> Result<(), DatabaseError> {
    let sql =
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    database.execute(sql, &[Param::Text(key), Param::Blob(value)])
}

fn write_head(
    database: &dyn Database,
    number: u64,
    signed: &SignedHead,
) -> Result<(), DatabaseError> {
    let sql = "INSERT INTO head (number, size, root, signature) VALUES (?1, ?2, ?3, ?4)";
    // A head made here has exactly one signature, the log's.
    let signature = signed.signatures.first();
    let params = [
        Param::Integer(to_sql(number)),
        Param::Integer(to_sql(signed.head.size)),
        Param::Blob(&signed.head.root),
        Param::Blob(signature.map_or(&[], |line| line.signature.as_slice())),
    ];
    database.execute(sql, &params)
}

pub(crate) fn write_rows(database: &dyn Database, rows: &[Row]) -> Result<(), DatabaseError> {
    rows.iter().try_for_each(|row| row::apply(database, row))
}

/// In the transaction with whose rows the tables say what all entries below it do.
pub(crate) fn write_watermark(
    database: &dyn Database,
    watermark: u64,
) -> Result<(), DatabaseError> {
    write_meta(database, META_WATERMARK, &watermark_bytes(watermark))
}

pub(crate) fn watermark_bytes(watermark: u64) -> Vec<u8> {
    let mut value = cbor::Writer::new();
    value.uint(watermark);
    value.finish()
}

/// Entries below this are in the projections' tables.
pub(crate) fn read_watermark(database: &dyn Database) -> Result<u64, StoreError> {
    let bytes = read_meta(database, META_WATERMARK)?;
    let mut value = cbor::Reader::new(&bytes);
    let watermark = value.uint();
    watermark
        .and_then(|watermark| value.finish().map(|()| watermark))
        .map_err(|_| StoreError::Damaged {
            what: "watermark (table meta)".to_owned(),
        })
}

fn read_meta(database: &dyn Database, key: &str) -> Result<Vec<u8>, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let found = database.first(sql, &[Param::Text(key)], |row| Ok(row.blob(0)?.to_owned()))?;
    found.ok_or_else(|| StoreError::Damaged {
        what: format!("{key} (table meta)"),
    })
}

/// The tree's right edge as the last commit left it.
pub(crate) fn read_edge(database: &dyn Database) -> Result<Edge, StoreError> {
    let bytes = read_meta(database, META_EDGE)?;
    Edge::decode(&bytes).map_err(|_| StoreError::Damaged {
        what: "the tree's edge (table meta)".to_owned(),
    })
}
