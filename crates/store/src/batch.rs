//! What is appended at once: entries with their payloads, and the projection rows that follow from them.
//!
//! A batch is one transaction and gets one head. The writer gathers what has queued into one, so a flush is shared.

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
    /// Applied in order; a later change of the same row wins. Rows follow from entries: without entries or erasures
    /// there may be none.
    pub rows: Vec<Row>,
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
    /// Name and bytes, in any order, each name once. Under [`blob_name`] a payload can also be found by the entry's
    /// subject and its MAC.
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

/// Name of the payload that holds one message of a model request, addressed by HMAC under its task's key. The first
/// entry of a subject that brings it stores it, later ones drop it silently: hand in every message of every request.
/// [`crate::Reader::blob`] finds it by the entry's subject and the MAC.
pub fn blob_name(mac: &[u8; 32]) -> String {
    format!("{BLOB_PREFIX}{}", hex::encode(mac))
}

/// The MAC in a payload's name, if it is a blob's name in its one form.
pub(crate) fn mac_of_blob_name(name: &str) -> Option<[u8; 32]> {
    let mac = hex::decode(name.strip_prefix(BLOB_PREFIX)?)
        .ok()?
        .try_into()
        .ok()?;
    (blob_name(&mac) == name).then_some(mac)
}
