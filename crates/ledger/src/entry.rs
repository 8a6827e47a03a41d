//! One entry of a log: what it holds, its one encoding, and the salted digests of its payloads.
//!
//! An entry's encoding is a leaf of the Merkle tree, so it never changes once written and `ENTRY_TAG` names its layout.
//! It carries no content and no unsalted digest of content: payloads lie beside the log with their salts and can be
//! erased while every proof stands.

use thiserror::Error;

use crate::cbor::{CborError, Reader, Writer};
use crate::tree::{Hash, sha256};

const ENTRY_TAG: &str = "mainstay.entry.v1";
const PAYLOAD_TAG: &[u8] = b"mainstay.payload.v1\0";
const ENTRY_FIELDS: usize = 11;
const PAYLOAD_FIELDS: usize = 3;

/// Length of the random salt that lies beside each payload.
pub const SALT_BYTES: usize = 32;
/// Longest `data` of an entry.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;
/// Longest payload; requests and answers are capped at half of this before they get here.
pub const MAX_PAYLOAD_BYTES: u64 = 64 * 1024 * 1024;
/// Most payloads of one entry.
pub const MAX_PAYLOADS: usize = 16 * 1024;
/// Longest encoding of an entry.
pub const MAX_ENTRY_BYTES: usize = 8 * 1024 * 1024;

const MAX_KIND_BYTES: usize = 64;
const MAX_SUBJECT_BYTES: usize = 512;
const MAX_AUTHOR_BYTES: usize = 256;
const MAX_TRACEPARENT_BYTES: usize = 128;
const MAX_PAYLOAD_NAME_BYTES: usize = 256;

/// A fact in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Dense from 0. This orders the log, not the time.
    pub seq: u64,
    /// The wall clock as it was read; it may jump.
    pub time_ms: i64,
    /// What happened, for instance `task.submitted`.
    pub kind: String,
    /// Version of this kind's `data`.
    pub version: u16,
    /// What it happened to, for instance a task's id.
    pub subject: String,
    /// Who says so.
    pub author: String,
    /// Dense from 0 for each author.
    pub author_seq: u64,
    /// W3C trace context, where the fact belongs to a trace.
    pub traceparent: Option<String>,
    /// The event without its content, in deterministic CBOR; opaque here.
    pub data: Vec<u8>,
    /// Strictly ascending by name.
    pub payloads: Vec<PayloadDigest>,
}

/// What an entry says about one of its payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadDigest {
    pub name: String,
    pub length: u64,
    pub digest: Hash,
}

/// Why an entry can't be written or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    #[error("{field} is longer than {limit}")]
    TooLong { field: &'static str, limit: u64 },
    #[error("{field} is empty or has characters that are not allowed")]
    BadText { field: &'static str },
    #[error("payload names are not in strictly ascending order")]
    PayloadOrder,
    #[error("bytes are not the deterministic encoding of an entry")]
    Encoding(#[source] CborError),
    #[error("bytes are not an entry of a known version")]
    UnknownTag,
}

impl From<CborError> for EntryError {
    fn from(source: CborError) -> EntryError {
        EntryError::Encoding(source)
    }
}

/// The digest by which an entry names a payload.
pub fn payload_digest(salt: &[u8; SALT_BYTES], payload: &[u8]) -> Hash {
    sha256(&[PAYLOAD_TAG, salt, payload])
}

impl Entry {
    /// The entry's bytes: a leaf of the tree. Fails if a bound is broken.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        self.check()?;
        let mut out = Writer::new();
        out.array(ENTRY_FIELDS)
            .text(ENTRY_TAG)
            .uint(self.seq)
            .int(self.time_ms);
        out.text(&self.kind)
            .uint(u64::from(self.version))
            .text(&self.subject);
        out.text(&self.author).uint(self.author_seq);
        out.optional_text(self.traceparent.as_deref())
            .bytes(&self.data);
        out.array(self.payloads.len());
        for payload in &self.payloads {
            out.array(PAYLOAD_FIELDS)
                .text(&payload.name)
                .uint(payload.length)
                .bytes(&payload.digest);
        }
        let bytes = out.finish();
        check_length("entry", bytes.len() as u64, MAX_ENTRY_BYTES as u64)?;
        Ok(bytes)
    }

    /// Reads an entry. `encode` of the result gives the same bytes; any other encoding is refused.
    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        check_length("entry", bytes.len() as u64, MAX_ENTRY_BYTES as u64)?;
        let mut input = Reader::new(bytes);
        if input.array()? != ENTRY_FIELDS as u64 || input.text()? != ENTRY_TAG {
            return Err(EntryError::UnknownTag);
        }
        let entry = Entry {
            seq: input.uint()?,
            time_ms: input.int()?,
            kind: input.text()?.to_owned(),
            version: u16::try_from(input.uint()?).map_err(|_| CborError::OutOfRange)?,
            subject: input.text()?.to_owned(),
            author: input.text()?.to_owned(),
            author_seq: input.uint()?,
            traceparent: input.optional_text()?.map(str::to_owned),
            data: input.bytes()?.to_owned(),
            payloads: decode_payloads(&mut input)?,
        };
        input.finish()?;
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<(), EntryError> {
        check_text("kind", &self.kind, MAX_KIND_BYTES, is_kind_char)?;
        check_text("subject", &self.subject, MAX_SUBJECT_BYTES, is_printable)?;
        check_text("author", &self.author, MAX_AUTHOR_BYTES, is_printable)?;
        if let Some(traceparent) = &self.traceparent {
            check_text("traceparent", traceparent, MAX_TRACEPARENT_BYTES, |c| {
                c.is_ascii_graphic()
            })?;
        }
        check_length("data", self.data.len() as u64, MAX_DATA_BYTES as u64)?;
        check_length("payloads", self.payloads.len() as u64, MAX_PAYLOADS as u64)?;
        for payload in &self.payloads {
            check_text(
                "payload name",
                &payload.name,
                MAX_PAYLOAD_NAME_BYTES,
                is_printable,
            )?;
            check_length("payload", payload.length, MAX_PAYLOAD_BYTES)?;
        }
        if self
            .payloads
            .windows(2)
            .any(|pair| pair[0].name >= pair[1].name)
        {
            return Err(EntryError::PayloadOrder);
        }
        Ok(())
    }
}

fn decode_payloads(input: &mut Reader<'_>) -> Result<Vec<PayloadDigest>, EntryError> {
    let count = input.array()?;
    check_length("payloads", count, MAX_PAYLOADS as u64)?;
    (0..count).map(|_| decode_payload(input)).collect()
}

fn decode_payload(input: &mut Reader<'_>) -> Result<PayloadDigest, EntryError> {
    if input.array()? != PAYLOAD_FIELDS as u64 {
        return Err(CborError::WrongType.into());
    }
    Ok(PayloadDigest {
        name: input.text()?.to_owned(),
        length: input.uint()?,
        digest: input
            .bytes()?
            .try_into()
            .map_err(|_| CborError::OutOfRange)?,
    })
}

fn is_kind_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Entries are shown on terminals and pages: no control characters, whoever named the thing.
fn is_printable(c: char) -> bool {
    !c.is_control()
}

fn check_text(
    field: &'static str,
    text: &str,
    limit: usize,
    allowed: fn(char) -> bool,
) -> Result<(), EntryError> {
    check_length(field, text.len() as u64, limit as u64)?;
    if text.is_empty() || !text.chars().all(allowed) {
        return Err(EntryError::BadText { field });
    }
    Ok(())
}

fn check_length(field: &'static str, length: u64, limit: u64) -> Result<(), EntryError> {
    if length > limit {
        Err(EntryError::TooLong { field, limit })
    } else {
        Ok(())
    }
}
