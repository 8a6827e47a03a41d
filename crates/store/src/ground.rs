//! What a log stands on besides its files: chance, and a disk that may be full or broken.
//!
//! The machine's is used everywhere but in fault sweeps and simulations, which hand in their own.
//! Nothing here decides anything: an error given at a stage is treated as the disk's.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use crate::directory;
use crate::error::StoreError;

/// Where a commit stands, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing of the batch is written.
    Begin,
    /// All of it is written and none of it committed.
    Written,
    /// It is durable, and its head isn't in the heads file.
    Committed,
    /// Its head is in the heads file too; nobody was told.
    Headed,
}

/// Chance, and the disk's health.
pub trait Ground: Debug + Send + Sync {
    /// Fills with random bytes.
    #[allow(clippy::disallowed_methods, reason = "the machine's own")]
    fn fill(&self, bytes: &mut [u8]) -> Result<(), StoreError> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| StoreError::Random)
    }

    /// Whether less than [`crate::RESERVE_BYTES`] are free.
    fn is_low(&self, dir: &Path) -> io::Result<bool> {
        directory::is_low_on_space(dir)
    }

    /// A commit to the log in this directory has come to a stage; an error there is the disk's.
    fn reach(&self, _dir: &Path, _stage: Stage) -> io::Result<()> {
        Ok(())
    }
}

/// The machine as it is.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Ground for Machine {}
