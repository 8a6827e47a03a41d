//! The log and its projections on SQLite, behind one narrow API.
//!
//! A log lives in a directory: `log.db` holds entries, payloads, heads and projections and nothing else, `heads` holds
//! every signed head once more, and `lock` keeps a second writer out. One [`Log`] writes, in whole [`Batch`]es; any
//! number of [`Reader`]s read. Everything here blocks, so it belongs on threads of its own.
//!
//! Projections see entries only: rows come with the entries they follow from, and [`rebuild`] proves it. What a row's
//! body says is the caller's business. This crate decides nothing, reads no clock and never retries a flush.

mod append;
mod batch;
mod checkpoint;
mod create;
mod database;
mod directory;
mod erase;
mod error;
mod ground;
mod heads;
mod health;
mod log;
mod open;
mod open_server;
mod payload;
mod place;
mod postgres;
mod reader;
mod rebuild;
mod row;
mod schema;
mod session;
mod sqlite;
mod state;
mod step;
mod task;
mod verify;

pub use batch::{
    Appended, Batch, Erasure, KIND_CREATED, KIND_ERASED, MAX_ERASURES, NewEntry, blob_name,
};
pub use database::DatabaseError;
pub use directory::RESERVE_BYTES;
pub use error::{OpenError, StoreError};
pub use ground::{Ground, Machine, Stage};
pub use health::{Health, Trouble};
pub use ledger::{
    Entry, Hash, Head, MAX_PAYLOADS, Paths, PayloadDigest, PublicKey, SALT_BYTES, SaltedPayload,
    SignedHead, SigningKey, leaf_hash, payload_digest, verify_inclusion,
};
pub use log::{Log, Options};
pub use payload::PayloadRow;
pub use place::Place;
pub use postgres::{Server, ServerError};
pub use reader::Reader;
pub use rebuild::{Fold, RebuildError, RebuildMode, Rebuilt, rebuild, rebuild_at};
pub use row::{Row, RowKey};
pub use session::SessionRow;
pub use state::StateRow;
pub use step::StepRow;
pub use task::{TERMINAL_STATES, TaskCursor, TaskFilter, TaskRow};
pub use verify::{Mismatch, Report, VerifyError, VerifyOptions, verify, verify_at};
