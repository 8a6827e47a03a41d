//! What is appended at once: entries with their payloads, and the projection rows that follow from them.
//!
//! A batch is one transaction and gets one head. The writer gathers what has queued into one, so a flush is shared.
//!
//! Rows may come later than their entries. A row is written again by each of its entries, and an entry is a few hundred
//! bytes at the end of a table while its rows lie all over others: with the rows of a thousand entries written at once,
//! each row is written once. Entries below the *watermark* are in the tables; whoever opens a log whose watermark lags
//! folds the entries after it, as the writer would have, before anything else. The watermark moves in the transaction
//! that writes the rows, so the tables always say what the entries below it do, whatever is killed and when.

use ledger::SignedHead;

use crate::row::Row;

/// Kind of a log's first entry; the prefix `log.` is this crate's.
pub const KIND_CREATED: &str = "log.created";
/// Kind of the entry that says which payloads were erased.
pub const KIND_ERASED: &str = "log.erased";
/// Most erasures in one batch: their list is one entry's data.
pub const MAX_ERASURES: usize = 2048;

pub(crate) const RESERVED_KIND_PREFIX: &str = "log.";
pub(crate) const OWN_AUTHOR: &str = "log";
const BLOB_PREFIX: &str = "blob:";

/// One transaction: entries in order, then row changes in order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub entries: Vec<NewEntry>,
    /// Applied in order; a later change of the same row wins. They are all that follows from the entries since the
    /// watermark, this batch's included.
    pub rows: Vec<Row>,
    /// The writer keeps the rows that follow from these entries for a later batch, which may consist of them alone: the
    /// watermark stays where it is, and `rows` must be empty.
    pub rows_later: bool,
    /// Payloads of earlier batches to erase; recorded as one entry of kind [`KIND_ERASED`] after `entries`.
    pub erasures: Vec<Erasure>,
    /// The wall clock for the entry that records `erasures`.
    pub now_ms: i64,
}

/// An entry before it has its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewEntry {
    pub time_ms: i64,
    pub kind: String,
    pub version: u16,
    pub subject: String,
    pub author: String,
    pub traceparent: Option<String>,
    /// Deterministic CBOR of the event without its content.
    pub data: Vec<u8>,
    /// Name and bytes, in any order, each name once.
    pub payloads: Vec<(String, Vec<u8>)>,
}

/// A payload to erase.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Erasure {
    pub seq: u64,
    pub name: String,
}

/// What a commit made durable.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Sequence of the batch's first entry; the others follow densely.
    pub first_seq: u64,
    /// Entries in the log now.
    pub size: u64,
    pub head: SignedHead,
    /// Time the commit took, flush included.
    pub commit_micros: u64,
}

/// Name of the payload that holds one message of a model request, addressed by HMAC under its task's key. The caller
/// stores each once per subject: it knows what a subject's entries named.
pub fn blob_name(mac: &[u8; 32]) -> String {
    format!("{BLOB_PREFIX}{}", hex::encode(mac))
}
