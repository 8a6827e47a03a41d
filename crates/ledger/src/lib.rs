//! The tamper-evident log, as bytes and arithmetic: entries, their Merkle tree, signed heads, proofs and verification.
//!
//! Everything here is a pure function of its arguments. No file, clock, random source or database: `store` keeps the
//! bytes, this crate says what they mean and whether they are still what was signed. What an entry's `data` says is
//! not this crate's business either: it is opaque, and only covered by the hash.

pub mod cbor;
mod entry;
mod head;
mod note;
mod paths;
mod proof;
mod tree;
mod verify;

pub use entry::{
    Entry, EntryError, MAX_DATA_BYTES, MAX_ENTRY_BYTES, MAX_PAYLOAD_BYTES, MAX_PAYLOADS,
    PayloadDigest, SALT_BYTES, payload_digest,
};
pub use head::{Head, HeadError, SignedHead, incarnation_of, origin};
pub use note::{KeyError, Note, NoteError, NoteSignature, PublicKey, SigningKey};
pub use paths::Paths;
pub use proof::{consistency_path, inclusion_path, verify_consistency, verify_inclusion};
pub use tree::{Edge, EdgeError, Hash, leaf_hash, node_hash, root_of};
pub use verify::{Mismatch, SaltedPayload, Summary, Verifier};
