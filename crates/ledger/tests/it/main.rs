//! What the ledger promises, against published vectors, a naive tree and damaged bytes.

#![allow(
    clippy::unwrap_used,
    reason = "a test's own setup may fail loudly, in its functions too"
)]

mod entry;
mod head;
mod tree;
mod verify;
