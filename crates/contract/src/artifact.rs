//! An agent's code as one file: what the command line packs, a hub in a cluster keeps, and a pod
//! unpacks.
//!
//! One content has one form: entries in the order of their paths, then the end said. Its name is the
//! hash that a copy of the same files has on a server, so an artifact is called the same in both
//! homes. Reading refuses what packing never writes: a path that leaves the directory or leads
//! through a link, anything twice or out of order, more than may be. Bytes by `Read` and `Write`;
//! what becomes of them is the caller's.

mod read;
mod write;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

pub use read::{ReadError, Sink, read};
pub use write::Writer;

/// Most files, directories and links.
pub const MAX_ENTRIES: usize = 10_000;
/// Most bytes of all files together.
pub const MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// The longest path, and where the longest link leads.
const MAX_PATH_BYTES: u32 = 4096;
/// A packed artifact is no longer: what its files hold, and what is said of each.
pub const MAX_ARCHIVE_BYTES: u64 = MAX_BYTES + MAX_ENTRIES as u64 * 2 * MAX_PATH_BYTES as u64;

const BEGINNING: &[u8] = b"mainstay artifact 1\n";
const DIRECTORY: u8 = b'd';
const LINK: u8 = b'l';
const FILE: u8 = b'f';
const PROGRAM: u8 = b'x';
const END: u8 = b'.';

/// The hash that names an artifact, made entry by entry in the order of their paths.
#[derive(Clone, Debug, Default)]
pub struct Sum(Sha256);

impl Sum {
    /// A directory.
    pub fn directory(&mut self, path: &Path) {
        self.named(path, DIRECTORY);
    }

    /// A link, which is kept as it is.
    pub fn link(&mut self, path: &Path, target: &Path) {
        self.named(path, LINK);
        self.text(target);
    }

    /// A file, and the SHA-256 of what it holds.
    pub fn file(&mut self, path: &Path, is_program: bool, content: [u8; 32]) {
        self.named(path, if is_program { PROGRAM } else { FILE });
        self.0.update(content);
    }

    /// The name: 64 hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        let digest = self.0.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn named(&mut self, path: &Path, kind: u8) {
        self.text(path);
        self.0.update([kind]);
    }

    fn text(&mut self, path: &Path) {
        let bytes = path.as_os_str().as_bytes();
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

/// Whether this can be an artifact's name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
