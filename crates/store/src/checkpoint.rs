//! Moves the WAL into the database in time, and cuts it when it has grown too long.
//!
//! SQLite would do the first by itself, but keeps a failed flush of its own checkpoints quiet and tries it again later,
//! when the kernel may already have dropped the pages. Here it is an error like that of a commit.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::directory::{length_of, wal_path};
use crate::schema::{BUSY_TIMEOUT, WAL_LIMIT_BYTES};

/// A passive checkpoint is due after this many commits or payload bytes, whichever comes first.
const COMMITS: u32 = 128;
const PAYLOAD_BYTES: u64 = 4 * 1024 * 1024;
/// A reader can keep the WAL from being cut; then it is tried again when it has grown by this much.
const AGAIN_BYTES: u64 = 16 * 1024 * 1024;

/// When the next checkpoint is due.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    commits: u32,
    payload_bytes: u64,
    truncate_at_bytes: u64,
    /// The WAL still has what was erased, because a reader kept it from being cut.
    has_erased: bool,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints {
            commits: 0,
            payload_bytes: 0,
            truncate_at_bytes: WAL_LIMIT_BYTES,
            has_erased: false,
        }
    }
}

impl Checkpoints {
    pub(crate) fn after_commit(
        &mut self,
        connection: &Connection,
        dir: &Path,
        payload_bytes: u64,
    ) -> rusqlite::Result<()> {
        if self.has_erased {
            return self.after_erasure(connection);
        }
        self.commits += 1;
        self.payload_bytes += payload_bytes;
        if self.commits < COMMITS && self.payload_bytes < PAYLOAD_BYTES {
            return Ok(());
        }
        (self.commits, self.payload_bytes) = (0, 0);
        run(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        // A length that can't be read is not worth ending for; the next turn looks again.
        let length = length_of(&wal_path(dir)).unwrap_or(0);
        if length < self.truncate_at_bytes {
            return Ok(());
        }
        let is_cut = Self::try_truncate(connection)?;
        self.truncate_at_bytes = if is_cut {
            WAL_LIMIT_BYTES
        } else {
            length + AGAIN_BYTES
        };
        Ok(())
    }

    /// Cuts the WAL, now or with the next commit that no reader is in the way of.
    pub(crate) fn after_erasure(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.has_erased = !Self::try_truncate(connection)?;
        Ok(())
    }

    /// Cuts the WAL to nothing, waiting for readers as long as any statement does.
    pub(crate) fn truncate(connection: &Connection) -> rusqlite::Result<()> {
        run(connection, "PRAGMA wal_checkpoint(TRUNCATE)").map(drop)
    }

    /// Cuts the WAL unless a reader is in the way: commits must not wait for one.
    fn try_truncate(connection: &Connection) -> rusqlite::Result<bool> {
        connection.busy_timeout(Duration::ZERO)?;
        let is_cut = run(connection, "PRAGMA wal_checkpoint(TRUNCATE)");
        connection.busy_timeout(BUSY_TIMEOUT)?;
        is_cut
    }
}

/// Whether it got to its end; a failed flush is an error.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(sql)?
        .query_row([], |row| Ok(row.get::<_, i64>(0)? == 0))
}
