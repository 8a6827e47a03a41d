//! Erasing payloads: what is taken away, and the entry that says so.
//!
//! The entries that named the payloads stay, and so does every proof. A payload that is gone without such an entry is a
//! mismatch.

use ledger::cbor::{CborError, Reader, Writer};
use rusqlite::{Connection, params};

use crate::batch::{Erasure, KIND_ERASED, NewEntry, OWN_AUTHOR, mac_of_blob_name};
use crate::row::to_sql;

/// The entry that records erasures. The list is sorted and without duplicates.
pub(crate) fn erasure_entry(erasures: &[Erasure], time_ms: i64) -> NewEntry {
    let mut data = Writer::new();
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
pub(crate) fn erasures_of(data: &[u8]) -> Result<Vec<Erasure>, CborError> {
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
