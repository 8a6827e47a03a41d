//! What keeper, shim and hub say to each other: message types and their frames.
//!
//! A frame is a four-byte big-endian length and that many bytes of JSON. Unknown fields are
//! ignored on purpose: an old shim must live on under a new hub. Nothing in here does I/O;
//! callers own the sockets, and file descriptors travel beside a frame, never inside it.

pub mod artifact;
pub mod attach;
pub mod frame;
pub mod keeper;
pub mod pod;
pub mod shim;

/// The oldest and newest version of these messages this build speaks.
pub const OLDEST: u32 = 1;
/// See [`OLDEST`].
pub const NEWEST: u32 = 1;

/// The versions a peer speaks, sent first on every link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline))]
pub struct Versions {
    pub oldest: u32,
    pub newest: u32,
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Self = Self {
        oldest: OLDEST,
        newest: NEWEST,
    };

    /// The newest version both sides speak, if there is one.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<u32> {
        let version = self.newest.min(other.newest);
        (version >= self.oldest && version >= other.oldest).then_some(version)
    }
}
