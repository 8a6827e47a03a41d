//! The keeper: places, limits and watches the processes of one machine. No network, no database.
//!
//! `up` is the process a person starts; it keeps one hub and one shim per instance alive. It treats
//! the hub as hostile: the hub names instances, the keeper alone says what runs and as whom.
//! This crate never links tokio or SQLite, and one thread does all the work: shims are forked
//! without exec, which only a single-threaded process may do.
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests write what an operator or a crash would"
    )
)]

mod allocation;
mod artifact;
mod claim;
mod credential;
mod generation;
mod hub;
mod instance;
mod link;
mod listener;
mod manifest;
mod plan;
pub mod pod;
mod reach;
mod reactor;
mod shim;
mod state;
mod tidy;
mod up;
mod users;

pub use artifact::{ArtifactError, UnpackError, pack, unpack};
pub use hub::HubCommand;
pub use manifest::read_manifests;
pub use shim::PROCESS_NAME as SHIM_PROCESS_NAME;
pub use state::{FORMAT, State, StateError};
pub use up::{Ended, Options, Ready, UpError, up};
pub use users::Users;
