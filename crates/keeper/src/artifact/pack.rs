//! An agent's code as one file, for a hub that is elsewhere.

use std::io::Write;
use std::path::Path;

use contract::artifact::{MAX_BYTES, Writer};

use super::{ArtifactError, Entry, at, list};

/// Packs a file or directory, and gives the name that a copy of it would have here.
pub fn pack(source: &Path, to: impl Write) -> Result<String, ArtifactError> {
    let source = source.canonicalize().map_err(at(source))?;
    let (base, entries) = list(&source, None)?;
    let mut writer = Writer::new(to).map_err(at(&source))?;
    let mut left = MAX_BYTES;
    for (path, entry) in &entries {
        let from = base.join(path);
        match entry {
            Entry::Directory => writer.directory(path),
            Entry::Link(target) => writer.link(path, target),
            Entry::File { executable } => {
                let file = crate::state::open_file(&from).map_err(at(&from))?;
                let length = file.metadata().map_err(at(&from))?.len();
                left = left.checked_sub(length).ok_or(ArtifactError::TooLarge)?;
                writer.file(path, *executable, length, file)
            }
        }
        .map_err(at(&from))?;
    }
    writer.finish().map_err(at(&source))
}
