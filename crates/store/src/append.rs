//! Turns a batch into what is written, and writes it: entries, payloads, blob index, authors, rows, head and edge in
//! the caller's one transaction.
//!
//! `prepare` does all that can be refused and touches nothing, so that a refused batch leaves no trace.

use std::collections::BTreeMap;

use ledger::{
    Edge, Entry, Head, PayloadDigest, SALT_BYTES, SignedHead, SigningKey, leaf_hash, payload_digest,
};
use rusqlite::{Connection, params};

use crate::batch::{Erasure, KIND_ERASED, NewEntry, OWN_AUTHOR, mac_of_blob_name};
use crate::error::StoreError;
use crate::row::{self, Row, to_sql};

const META_EDGE: &str = "edge";

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
    /// `counter` gives an author's counter before the batch.
    pub(crate) fn new(
        end: &End<'_>,
        entries: &[&'a NewEntry],
        mut counter: impl FnMut(&str) -> Result<u64, StoreError>,
    ) -> Result<Prepared<'a>, StoreError> {
        let mut edge = end.edge.clone();
        let mut authors = BTreeMap::new();
        let mut prepared = Vec::with_capacity(entries.len());
        for (index, new) in entries.iter().enumerate() {
            let next = match authors.get(new.author.as_str()) {
                Some(next) => *next,
                None => counter(&new.author)?,
            };
            let entry =
                PreparedEntry::new(new, edge.size(), next).map_err(|error| error.at(index))?;
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
        seq: u64,
        author_seq: u64,
    ) -> Result<PreparedEntry<'a>, PrepareError> {
        let mut payloads = Vec::with_capacity(new.payloads.len());
        for (name, bytes) in &new.payloads {
            let mut salt = [0; SALT_BYTES];
            aws_lc_rs::rand::fill(&mut salt).map_err(|_| PrepareError::Random)?;
            payloads.push(PreparedPayload { name, salt, bytes });
        }
        payloads.sort_by_key(|payload| payload.name);
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
        let bytes = entry.encode().map_err(PrepareError::Entry)?;
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
                    .prepare_cached(
                        "INSERT OR IGNORE INTO blob (subject, mac, seq) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![self.subject, mac, seq])?;
            }
        }
        Ok(())
    }
}

impl PreparedPayload<'_> {
    fn digest(&self) -> PayloadDigest {
        PayloadDigest {
            name: self.name.to_owned(),
            length: self.bytes.len() as u64,
            digest: payload_digest(&self.salt, self.bytes),
        }
    }
}

/// Why one entry can't be prepared.
enum PrepareError {
    Entry(ledger::EntryError),
    Random,
}

impl PrepareError {
    fn at(self, index: usize) -> StoreError {
        match self {
            PrepareError::Entry(source) => StoreError::Entry { index, source },
            PrepareError::Random => StoreError::Random,
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

/// The entry that records erasures. The list is sorted and without duplicates.
pub(crate) fn erasure_entry(erasures: &[Erasure], time_ms: i64) -> NewEntry {
    let mut data = ledger::cbor::Writer::new();
    data.array(erasures.len());
    for erasure in erasures {
        data.array(2).uint(erasure.seq).text(&erasure.name);
    }
    NewEntry {
        time_ms,
        kind: KIND_ERASED.to_owned(),
        version: 1,
        subject: OWN_AUTHOR.to_owned(),
        author: OWN_AUTHOR.to_owned(),
        data: data.finish(),
        ..NewEntry::default()
    }
}

/// The list in an entry of kind [`KIND_ERASED`].
pub(crate) fn erasures_of(data: &[u8]) -> Result<Vec<Erasure>, ledger::cbor::CborError> {
    use ledger::cbor::{CborError, Reader};
    let mut input = Reader::new(data);
    let count = input.array()?;
    let mut erasures = Vec::new();
    for _ in 0..count {
        if input.array()? != 2 {
            return Err(CborError::WrongType);
        }
        erasures.push(Erasure {
            seq: input.uint()?,
            name: input.text()?.to_owned(),
        });
    }
    input.finish()?;
    Ok(erasures)
}

/// A payload to erase, with what finds its row in the blob index.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) erasure: &'a Erasure,
    pub(crate) subject: String,
}

/// Takes payloads away for good: the caller has `secure_delete` on, so that freed pages are overwritten.
pub(crate) fn erase(connection: &Connection, targets: &[Target<'_>]) -> rusqlite::Result<()> {
    for Target { erasure, subject } in targets {
        let seq = to_sql(erasure.seq);
        connection
            .prepare_cached("DELETE FROM payload WHERE seq = ?1 AND name = ?2")?
            .execute(params![seq, erasure.name])?;
        if let Some(mac) = mac_of_blob_name(&erasure.name) {
            connection
                .prepare_cached("DELETE FROM blob WHERE subject = ?1 AND mac = ?2 AND seq = ?3")?
                .execute(params![subject, mac, seq])?;
        }
    }
    Ok(())
}
