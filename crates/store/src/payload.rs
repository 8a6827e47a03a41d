//! Lists payloads for whoever decides which are erased.

use ledger::MAX_PAYLOADS;

use crate::database::{Columns, Param};
use crate::error::StoreError;
use crate::reader::{Reader, decode};
use crate::row::{payload_id, to_sql};

/// A payload without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadRow {
    pub seq: u64,
    pub name: String,
    pub bytes: u64,
    /// Of its entry.
    pub subject: String,
    pub time_ms: i64,
}

impl Reader {
    /// Payloads that are still there, oldest first, from this sequence on.
    pub fn payloads(&self, from: u64, limit: usize) -> Result<Vec<PayloadRow>, StoreError> {
        let sql = format!(
            "SELECT entry.seq, payload.name, length(payload.bytes), entry.bytes FROM payload \
             JOIN entry ON entry.seq = payload.id / {MAX_PAYLOADS} WHERE payload.id >= ?1 ORDER BY payload.id LIMIT ?2"
        );
        let params = [
            Param::Integer(payload_id(from, 0)),
            Param::Integer(to_sql(limit as u64)),
        ];
        self.database().all(&sql, &params, from_row)
    }

    /// Bytes of all payloads that are still there.
    pub fn payload_bytes(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(length(bytes)), 0) FROM payload";
        self.database().number(sql, &[])
    }
}

fn from_row(row: &dyn Columns) -> Result<PayloadRow, StoreError> {
    let entry = decode(row.integer(0)?, row.blob(3)?)?;
    Ok(PayloadRow {
        seq: entry.seq,
        name: row.text(1)?.to_owned(),
        bytes: row.integer(2)?.cast_unsigned(),
        subject: entry.subject,
        time_ms: entry.time_ms,
    })
}
