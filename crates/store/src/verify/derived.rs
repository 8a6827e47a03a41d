//! What the database keeps besides entries, payloads and heads, and the structure of its tables.

use ledger::Summary;

use super::{Mismatch, VerifyError, from_store, unreadable};
use crate::append::{META_ROWS, read_edge};
use crate::database::Database;
use crate::reader::Reader;

/// What the database keeps besides entries, payloads and heads must be what they say.
pub(super) fn check(reader: &Reader, summary: &Summary) -> Result<(), VerifyError> {
    let edge = read_edge(reader.database()).map_err(|error| from_store("table meta", error))?;
    let database = reader.database();
    let count = database
        .number("SELECT count(*) FROM meta", &[])
        .map_err(|error| from_store("table meta", error))?;
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
    authors(database, summary)
}

fn authors(database: &dyn Database, summary: &Summary) -> Result<(), VerifyError> {
    let sql = "SELECT name, counter FROM author ORDER BY name";
    let found = database
        .all(sql, &[], |row| {
            let counter = row.integer(1)?.cast_unsigned();
            Ok((row.text(0)?.to_owned(), counter))
        })
        .map_err(|error| from_store("table author", error))?;
    for (name, counter) in &found {
        if summary.authors.get(name) != Some(counter) {
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
pub(crate) fn integrity(database: &dyn Database) -> Result<(), VerifyError> {
    let found = database
        .structure()
        .map_err(|source| unreadable("structure", source))?;
    match found {
        None => Ok(()),
        Some(finding) => Err(Mismatch::Integrity { finding }.into()),
    }
}
