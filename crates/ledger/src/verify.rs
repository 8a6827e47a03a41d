//! Walks a log from its first entry and says where it stops being what was signed.
//!
//! The caller hands in entries in order, each with a way to look its payloads up, and every head when the walk has
//! reached its size. The verifier holds the tree's edge, the authors' counters and the payloads found missing, which an
//! erasure further on must explain. It is the one judge: databases and files are read elsewhere and believed nowhere.

use std::collections::{BTreeSet, HashMap};

use thiserror::Error;

use crate::entry::{Entry, EntryError, PayloadDigest, SALT_BYTES, payload_digest};
use crate::head::SignedHead;
use crate::note::PublicKey;
use crate::tree::{Edge, Hash, leaf_hash};

/// The first place where a log is not what it says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    #[error("entry {seq} can't be read")]
    EntryUnreadable { seq: u64, source: EntryError },
    #[error("entry {seq} says that it is entry {found}")]
    EntryOutOfPlace { seq: u64, found: u64 },
    #[error("entry {seq} is number {found} of author {author}, but number {expected} is due")]
    AuthorCounter {
        seq: u64,
        author: String,
        expected: u64,
        found: u64,
    },
    #[error(
        "payload {name} of entry {seq} does not have the length and salted digest that the entry names"
    )]
    PayloadDiffers { seq: u64, name: String },
    #[error("payload {name} of entry {seq} is missing and no entry erases it")]
    PayloadMissing { seq: u64, name: String },
    #[error("payload {name} of entry {seq} is still there although entry {erased_by} erases it")]
    PayloadNotErased {
        seq: u64,
        name: String,
        erased_by: u64,
    },
    #[error("head {number} is of another log: {found}")]
    HeadOrigin { number: u64, found: String },
    #[error("head {number} at size {size} does not follow: the walk is at size {at}")]
    HeadOutOfPlace { number: u64, size: u64, at: u64 },
    /// Everything below `good_size` was matched by the head before.
    #[error(
        "head {number} at size {size} does not match the tree: entry {good_size} or a later one is not what was signed, or the head isn't"
    )]
    HeadRoot {
        number: u64,
        size: u64,
        good_size: u64,
    },
    #[error("head {number} at size {size} is not signed by the log's key")]
    HeadSignature { number: u64, size: u64 },
}

/// A payload as it lies beside the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaltedPayload {
    pub salt: [u8; SALT_BYTES],
    pub bytes: Vec<u8>,
}

/// What a whole walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub edge: Edge,
    pub payloads: u64,
    pub erased: u64,
    /// How many entries each author wrote.
    pub authors: HashMap<String, u64>,
}

/// The walk.
#[derive(Debug)]
pub struct Verifier {
    key: PublicKey,
    edge: Edge,
    good_size: u64,
    authors: HashMap<String, u64>,
    missing: BTreeSet<(u64, String)>,
    payloads: u64,
    erased: u64,
}

impl Verifier {
    /// `key` bears the log's origin as its name.
    pub fn new(key: PublicKey) -> Verifier {
        Verifier {
            key,
            edge: Edge::default(),
            good_size: 0,
            authors: HashMap::new(),
            missing: BTreeSet::new(),
            payloads: 0,
            erased: 0,
        }
    }

    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    pub fn root(&self) -> Hash {
        self.edge.root()
    }

    /// Takes the next entry's bytes. `payload` gives what lies beside the log under a name, `None` where nothing does.
    pub fn entry(
        &mut self,
        bytes: &[u8],
        mut payload: impl FnMut(&str) -> Option<SaltedPayload>,
    ) -> Result<Entry, Mismatch> {
        let seq = self.edge.size();
        let entry =
            Entry::decode(bytes).map_err(|source| Mismatch::EntryUnreadable { seq, source })?;
        if entry.seq != seq {
            return Err(Mismatch::EntryOutOfPlace {
                seq,
                found: entry.seq,
            });
        }
        self.count_author(&entry)?;
        for named in &entry.payloads {
            self.payload(seq, named, payload(&named.name))?;
        }
        self.edge.push(leaf_hash(bytes));
        Ok(entry)
    }

    /// Takes a head, which must be of the size that the walk has reached.
    pub fn head(&mut self, number: u64, signed: &SignedHead) -> Result<(), Mismatch> {
        let (size, at) = (signed.head.size, self.edge.size());
        if signed.head.origin != self.key.name() {
            return Err(Mismatch::HeadOrigin {
                number,
                found: signed.head.origin.clone(),
            });
        }
        if size != at {
            return Err(Mismatch::HeadOutOfPlace { number, size, at });
        }
        if signed.head.root != self.edge.root() {
            return Err(Mismatch::HeadRoot {
                number,
                size,
                good_size: self.good_size,
            });
        }
        if !signed.is_signed_by(&self.key) {
            return Err(Mismatch::HeadSignature { number, size });
        }
        self.good_size = size;
        Ok(())
    }

    /// Takes note that the entry just walked over, `erased_by`, erases a payload.
    pub fn erasure(&mut self, erased_by: u64, seq: u64, name: &str) -> Result<(), Mismatch> {
        if !self.missing.remove(&(seq, name.to_owned())) {
            return Err(Mismatch::PayloadNotErased {
                seq,
                name: name.to_owned(),
                erased_by,
            });
        }
        self.erased += 1;
        Ok(())
    }

    /// Ends the walk: every missing payload must have been erased.
    pub fn finish(mut self) -> Result<Summary, Mismatch> {
        if let Some((seq, name)) = self.missing.pop_first() {
            return Err(Mismatch::PayloadMissing { seq, name });
        }
        Ok(Summary {
            edge: self.edge,
            payloads: self.payloads,
            erased: self.erased,
            authors: self.authors,
        })
    }

    fn count_author(&mut self, entry: &Entry) -> Result<(), Mismatch> {
        let expected = self.authors.get(&entry.author).copied().unwrap_or(0);
        if entry.author_seq != expected {
            return Err(Mismatch::AuthorCounter {
                seq: entry.seq,
                author: entry.author.clone(),
                expected,
                found: entry.author_seq,
            });
        }
        self.authors.insert(entry.author.clone(), expected + 1);
        Ok(())
    }

    fn payload(
        &mut self,
        seq: u64,
        named: &PayloadDigest,
        found: Option<SaltedPayload>,
    ) -> Result<(), Mismatch> {
        let Some(found) = found else {
            self.missing.insert((seq, named.name.clone()));
            return Ok(());
        };
        let fits = found.bytes.len() as u64 == named.length
            && payload_digest(&found.salt, &found.bytes) == named.digest;
        if !fits {
            return Err(Mismatch::PayloadDiffers {
                seq,
                name: named.name.clone(),
            });
        }
        self.payloads += 1;
        Ok(())
    }
}
