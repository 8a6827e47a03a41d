//! Erasing payloads: what is taken away, and the entry that says so.
//!
//! The entries that named the payloads stay, and so does every proof. A payload that is gone without such an entry is a
//! mismatch.

use ledger::cbor::{CborError, Reader, Writer};

use crate::batch::{Erasure, KIND_ERASED, NewEntry, OWN_AUTHOR};
use crate::database::{Database, DatabaseError, Param};
use crate::row::payload_ids;

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

/// Takes payloads away for good: the caller has `secure_delete` on, so that freed pages are overwritten.
pub(crate) fn erase(database: &dyn Database, erasures: &[Erasure]) -> Result<(), DatabaseError> {
    for erasure in erasures {
        let (first, last) = payload_ids(erasure.seq);
        let sql = "DELETE FROM payload WHERE id BETWEEN ?1 AND ?2 AND name = ?3";
        let params = [
            Param::Integer(first),
            Param::Integer(last),
            Param::Text(&erasure.name),
        ];
        database.execute(sql, &params)?;
    }
    Ok(())
}
