//! What the ledger promises, against published vectors, a naive tree and damaged bytes.

mod entry;
mod head;
mod tree;
mod verify;
