//! An agent's code, copied by its hash: what a generation names can't change under it.
//!
//! The same files are packed for a hub in a cluster (`pack`), and unpacked in a pod (`unpack`), under
//! the same name.

mod pack;
mod unpack;

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use contract::artifact::{MAX_BYTES, MAX_ENTRIES, Sum};
use sha2::{Digest, Sha256};

use crate::state::State;

pub use pack::pack;
pub use unpack::{UnpackError, unpack};

/// Left out: large, and never what an agent runs.
const SKIPPED: [&str; 2] = [".git", "__pycache__"];

/// Why a source can't be copied; a fragment for a problem report.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("has more than {MAX_ENTRIES} files; put the agent's code into a directory of its own")]
    TooMany,
    #[error("is larger than 1 GiB; put the agent's code into a directory of its own")]
    TooLarge,
    #[error("can't be copied: {path}")]
    Io { path: PathBuf, source: io::Error },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArtifactError + use<'_> {
    move |source| ArtifactError::Io {
        path: path.to_owned(),
        source,
    }
}

#[derive(Debug)]
enum Entry {
    Directory,
    File { executable: bool },
    Link(PathBuf),
}

/// Copies a file or directory into `artifacts/HASH/` unless it is there; returns the hash.
pub(crate) fn store(state: &State, source: &Path) -> Result<String, ArtifactError> {
    let source = source.canonicalize().map_err(at(source))?;
    let (base, entries) = list(&source, Some(&state.root))?;
    let temporary = state
        .root
        .join(format!("artifacts/.new-{}", std::process::id()));
    let _left_by_a_crash = remove(&temporary);
    let result = copy(&base, &entries, &temporary);
    let hash = match result {
        Ok(hash) => hash,
        Err(error) => {
            let _best_effort = remove(&temporary);
            return Err(error);
        }
    };
    let target = state.root.join("artifacts").join(&hash);
    if target.is_dir() {
        remove(&temporary).map_err(at(&temporary))?;
    } else {
        std::fs::rename(&temporary, &target).map_err(at(&target))?;
        File::open(state.root.join("artifacts"))
            .and_then(|directory| directory.sync_all())
            .map_err(at(&target))?;
    }
    Ok(hash)
}

/// What changes when any file of a source does: paths, sizes and times, not contents.
pub(crate) fn signature(source: &Path, state_root: &Path) -> String {
    let mut hasher = Sha256::new();
    if let Ok((base, entries)) = list(source, Some(state_root)) {
        hasher.update(b"is there");
        for path in entries.keys() {
            if let Ok(found) = std::fs::symlink_metadata(base.join(path)) {
                use std::os::unix::fs::MetadataExt;
                let times = (found.mtime(), found.mtime_nsec(), found.size(), found.ino());
                hasher.update(path.as_os_str().as_bytes());
                hasher.update(format!("{times:?}").as_bytes());
            }
        }
    }
    hex::encode(hasher.finalize())
}

/// All entries by relative path, sorted; and the directory they are relative to.
fn list(
    source: &Path,
    state_root: Option<&Path>,
) -> Result<(PathBuf, BTreeMap<PathBuf, Entry>), ArtifactError> {
    let found = std::fs::metadata(source).map_err(at(source))?;
    let mut entries = BTreeMap::new();
    if !found.is_dir() {
        let base = source.parent().unwrap_or(Path::new("/")).to_owned();
        let name = PathBuf::from(source.file_name().unwrap_or_default());
        let executable = found.permissions().mode() & 0o111 != 0;
        entries.insert(name, Entry::File { executable });
        return Ok((base, entries));
    }
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let absolute = source.join(&directory);
        for entry in std::fs::read_dir(&absolute).map_err(at(&absolute))? {
            let entry = entry.map_err(at(&absolute))?;
            let skipped = entry
                .file_name()
                .to_str()
                .is_some_and(|name| SKIPPED.contains(&name));
            if skipped || Some(entry.path().as_path()) == state_root {
                continue;
            }
            let relative = directory.join(entry.file_name());
            let kind = entry.file_type().map_err(at(&entry.path()))?;
            let listed = if kind.is_dir() {
                open.push(relative.clone());
                Entry::Directory
            } else if kind.is_symlink() {
                Entry::Link(std::fs::read_link(entry.path()).map_err(at(&entry.path()))?)
            } else if kind.is_file() {
                let mode = entry
                    .metadata()
                    .map_err(at(&entry.path()))?
                    .permissions()
                    .mode();
                Entry::File {
                    executable: mode & 0o111 != 0,
                }
            } else {
                continue;
            };
            entries.insert(relative, listed);
            if entries.len() > MAX_ENTRIES {
                return Err(ArtifactError::TooMany);
            }
        }
    }
    Ok((source.to_owned(), entries))
}

/// Copies and hashes in one pass: what is hashed is what was copied.
fn copy(
    base: &Path,
    entries: &BTreeMap<PathBuf, Entry>,
    target: &Path,
) -> Result<String, ArtifactError> {
    std::fs::create_dir(target).map_err(at(target))?;
    let mut sum = Sum::default();
    let mut left = MAX_BYTES;
    for (path, entry) in entries {
        let to = target.join(path);
        match entry {
            Entry::Directory => {
                sum.directory(path);
                std::fs::create_dir(&to).map_err(at(&to))?;
            }
            Entry::Link(link) => {
                sum.link(path, link);
                std::os::unix::fs::symlink(link, &to).map_err(at(&to))?;
            }
            Entry::File { executable } => {
                let digest = copy_file(&base.join(path), &to, &mut left)?;
                sum.file(path, *executable, digest);
                let mode = if *executable { 0o555 } else { 0o444 };
                std::fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(at(&to))?;
            }
        }
    }
    close_directories(target, entries)?;
    Ok(sum.finish())
}

fn copy_file(from: &Path, to: &Path, left: &mut u64) -> Result<[u8; 32], ArtifactError> {
    let file = crate::state::open_file(from).map_err(at(from))?;
    let mut reader = file.take(*left + 1);
    let mut writer = File::create(to).map_err(at(to))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = reader.read(&mut buffer).map_err(at(from))?;
        if count == 0 {
            break;
        }
        *left = left
            .checked_sub(count as u64)
            .ok_or(ArtifactError::TooLarge)?;
        hasher.update(&buffer[..count]);
        io::Write::write_all(&mut writer, &buffer[..count]).map_err(at(to))?;
    }
    writer.sync_data().map_err(at(to))?;
    Ok(hasher.finalize().into())
}

fn close_directories(
    target: &Path,
    entries: &BTreeMap<PathBuf, Entry>,
) -> Result<(), ArtifactError> {
    let directories = entries
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Directory))
        .map(|(path, _)| target.join(path));
    for directory in directories.chain([target.to_owned()]) {
        std::fs::set_permissions(&directory, Permissions::from_mode(0o555))
            .map_err(at(&directory))?;
    }
    Ok(())
}

/// Removes a tree whose directories may be closed to writing; one that isn't there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    // Modes don't keep root out; and where an agent's user still works in the tree, a mode must not
    // be set through a link that it puts there.
    if rustix::process::geteuid().is_root() {
        return std::fs::remove_dir_all(path);
    }
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        std::fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    std::fs::remove_dir_all(path)
}
