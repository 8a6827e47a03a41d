//! Lists payloads for whoever decides which are erased.

use ledger::MAX_PAYLOADS;
use rusqlite::params;

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
        let mut statement = self.connection().prepare_cached(&sql)?;
        let mut rows = statement.query(params![payload_id(from, 0), to_sql(limit as u64)])?;
        let mut payloads = Vec::new();
        while let Some(row) = rows.next()? {
            let entry = decode(
                row.get(0)?,
                row.get_ref(3)?.as_bytes().map_err(rusqlite::Error::from)?,
            )?;
            payloads.push(PayloadRow {
                seq: entry.seq,
                name: row.get(1)?,
                bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                subject: entry.subject,
                time_ms: entry.time_ms,
            });
        }
        Ok(payloads)
    }

    /// Bytes of all payloads that are still there.
    pub fn payload_bytes(&self) -> Result<u64, StoreError> {
        let mut statement = self
            .connection()
            .prepare_cached("SELECT coalesce(sum(length(bytes)), 0) FROM payload")?;
        Ok(statement
            .query_row([], |row| row.get::<_, i64>(0))?
            .cast_unsigned())
    }
}
