//! What the database keeps besides entries, payloads and heads, and the structure of its tables.

use ledger::Summary;
use rusqlite::Connection;

use super::{Mismatch, VerifyError, from_store, unreadable};
use crate::append::{META_ROWS, read_edge};
use crate::reader::Reader;

/// What the database keeps besides entries, payloads and heads must be what they say.
pub(super) fn check(reader: &Reader, summary: &Summary) -> Result<(), VerifyError> {
    let edge = read_edge(reader.connection()).map_err(|error| from_store("table meta", error))?;
    let connection = reader.connection();
    let count: i64 = connection
        .query_row("SELECT count(*) FROM meta", [], |row| row.get(0))
        .map_err(|source| unreadable("table meta", source))?;
    let wrong = |what: &str| {
        Err(Mismatch::Derived {
            what: what.to_owned(),
        }
        .into())
    };
    if edge != summary.edge {
        return wrong("tree's edge (table meta)");
    }
    // Whether the rows below it are what the entries say is a rebuild's to check.
    let watermark = reader
        .watermark()
        .map_err(|error| from_store("watermark (table meta)", error))?;
    if watermark > summary.edge.size() {
        return wrong("watermark (table meta)");
    }
    if count != META_ROWS {
        return wrong("table meta");
    }
    authors(connection, summary)
}

fn authors(connection: &Connection, summary: &Summary) -> Result<(), VerifyError> {
    let read = || -> rusqlite::Result<Vec<(String, i64)>> {
        let mut statement = connection.prepare("SELECT name, counter FROM author ORDER BY name")?;
        statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    let found = read().map_err(|source| unreadable("table author", source))?;
    for (name, counter) in &found {
        if summary.authors.get(name) != Some(&counter.cast_unsigned()) {
            return Err(Mismatch::Derived {
                what: format!("counter of author {name}"),
            }
            .into());
        }
    }
    if found.len() != summary.authors.len() {
        return Err(Mismatch::Derived {
            what: "table author".to_owned(),
        }
        .into());
    }
    Ok(())
}

/// The tables' and indexes' own structure, projections included.
pub(crate) fn integrity(connection: &Connection) -> Result<(), VerifyError> {
    let finding: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|source| unreadable("structure", source))?;
    if finding == "ok" {
        Ok(())
    } else {
        Err(Mismatch::Integrity { finding }.into())
    }
}
