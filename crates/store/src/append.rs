//! Turns a batch into what is written, and writes it: entries, payloads, blob index, authors, rows, head and edge in
//! the caller's one transaction.
//!
//! `prepare` does all that can be refused and touches nothing, so that a refused batch leaves no trace.

use std::collections::{BTreeMap, BTreeSet};

use ledger::{
    Edge, Entry, EntryError, Head, PayloadDigest, SALT_BYTES, SignedHead, SigningKey, leaf_hash,
    payload_digest,
};
use rusqlite::{Connection, params};

use crate::batch::{NewEntry, mac_of_blob_name};
use crate::error::StoreError;
use crate::row::{self, Row, to_sql};

const META_EDGE: &str = "edge";

/// What the log holds before the batch, and what salts the batch.
pub(crate) trait Before {
    fn counter(&self, author: &str) -> Result<u64, StoreError>;
    fn has_blob(&self, subject: &str, mac: &[u8; 32]) -> Result<bool, StoreError>;
    /// A new one.
    fn salt(&self) -> Result<[u8; SALT_BYTES], StoreError>;
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

#[derive(Debug)]
struct PreparedEntry<'a> {
    seq: u64,
    subject: &'a str,
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
        let mut blobs = BTreeSet::new();
        let mut prepared = Vec::with_capacity(entries.len());
        for (index, new) in entries.iter().enumerate() {
            let next = match authors.get(new.author.as_str()) {
                Some(next) => *next,
                None => before.counter(&new.author)?,
            };
            let payloads = PreparedPayload::all(new, before, &mut blobs)?;
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

    pub(crate) fn payload_bytes(&self) -> u64 {
        let entries = self.entries.iter();
        entries
            .flat_map(|entry| &entry.payloads)
            .map(|payload| payload.bytes.len() as u64)
            .sum()
    }

    /// Writes all of it but the rows, in the caller's transaction.
    pub(crate) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        for entry in &self.entries {
            entry.write(connection)?;
        }
        for (name, counter) in &self.authors {
            let sql = "INSERT INTO author (name, counter) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET counter = ?2";
            connection
                .prepare_cached(sql)?
                .execute(params![name, to_sql(*counter)])?;
        }
        write_head(connection, self.head_number, &self.head)?;
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
        connection
            .prepare_cached(sql)?
            .execute(params![META_EDGE, self.edge.encode()])?;
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
            subject: &new.subject,
            bytes,
            payloads,
        })
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let seq = to_sql(self.seq);
        connection
            .prepare_cached("INSERT INTO entry (seq, bytes) VALUES (?1, ?2)")?
            .execute(params![seq, self.bytes])?;
        for payload in &self.payloads {
            connection
                .prepare_cached(
                    "INSERT INTO payload (seq, name, salt, bytes) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![seq, payload.name, payload.salt, payload.bytes])?;
            if let Some(mac) = mac_of_blob_name(payload.name) {
                connection
                    .prepare_cached("INSERT INTO blob (subject, mac, seq) VALUES (?1, ?2, ?3)")?
                    .execute(params![self.subject, mac, seq])?;
            }
        }
        Ok(())
    }
}

impl<'a> PreparedPayload<'a> {
    /// An entry's payloads by name, each with a new salt; without messages that its subject has already.
    fn all(
        new: &'a NewEntry,
        before: &dyn Before,
        blobs: &mut BTreeSet<(&'a str, [u8; 32])>,
    ) -> Result<Vec<PreparedPayload<'a>>, StoreError> {
        let mut payloads = Vec::with_capacity(new.payloads.len());
        for (name, bytes) in &new.payloads {
            if let Some(mac) = mac_of_blob_name(name)
                && (!blobs.insert((&new.subject, mac)) || before.has_blob(&new.subject, &mac)?)
            {
                continue;
            }
            let salt = before.salt()?;
            payloads.push(PreparedPayload { name, salt, bytes });
        }
        payloads.sort_by_key(|payload| payload.name);
        Ok(payloads)
    }

    fn digest(&self) -> PayloadDigest {
        PayloadDigest {
            name: self.name.to_owned(),
            length: self.bytes.len() as u64,
            digest: payload_digest(&self.salt, self.bytes),
        }
    }
}

fn write_head(connection: &Connection, number: u64, signed: &SignedHead) -> rusqlite::Result<()> {
    let sql = "INSERT INTO head (number, size, root, signature) VALUES (?1, ?2, ?3, ?4)";
    // A head made here has exactly one signature, the log's.
    let signature = signed
        .signatures
        .first()
        .map(|line| line.signature.as_slice());
    let (size, root) = (to_sql(signed.head.size), signed.head.root);
    connection
        .prepare_cached(sql)?
        .execute(params![to_sql(number), size, root, signature])?;
    Ok(())
}

pub(crate) fn write_rows(connection: &Connection, rows: &[Row]) -> rusqlite::Result<()> {
    rows.iter().try_for_each(|row| row::apply(connection, row))
}

/// The tree's right edge as the last commit left it.
pub(crate) fn read_edge(connection: &Connection) -> Result<Edge, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let bytes: Vec<u8> = connection.query_row(sql, [META_EDGE], |row| row.get(0))?;
    Edge::decode(&bytes).map_err(|_| StoreError::Damaged {
        what: "the tree's edge (table meta)".to_owned(),
    })
}
