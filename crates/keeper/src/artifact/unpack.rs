//! A packed artifact as files again, in a pod.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use contract::artifact::{ReadError, Sink, read};

/// Why there are no files.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("can't unpack it")]
    Read(#[from] ReadError),
    #[error("it is {found}, and not {wanted}")]
    Another { wanted: String, found: String },
    #[error("can't clear {path}")]
    Clear { path: PathBuf, source: io::Error },
}

/// Unpacks the artifact of this name into a directory that is there, in place of what lies in it.
/// What isn't the artifact, or not whole, leaves nothing.
pub fn unpack(archive: impl Read, wanted: &str, into: &Path) -> Result<(), UnpackError> {
    clear(into)?;
    let unpacked = Unpacker { into }.unpack(archive, wanted);
    if unpacked.is_err() {
        clear(into)?;
    }
    unpacked
}

struct Unpacker<'a> {
    into: &'a Path,
}

impl Unpacker<'_> {
    fn unpack(mut self, archive: impl Read, wanted: &str) -> Result<(), UnpackError> {
        let found = read(archive, &mut self)?;
        match found == wanted {
            true => Ok(()),
            false => Err(UnpackError::Another {
                wanted: wanted.to_owned(),
                found,
            }),
        }
    }
}

impl Sink for Unpacker<'_> {
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(self.into.join(path))
    }

    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, self.into.join(path))
    }

    fn file(&mut self, path: &Path, is_program: bool, content: &mut dyn Read) -> io::Result<()> {
        let mut file = create(&self.into.join(path))?;
        io::copy(content, &mut file)?;
        // Whatever this process's umask is.
        let mode = if is_program { 0o555 } else { 0o444 };
        file.set_permissions(Permissions::from_mode(mode))
    }
}

/// A file that wasn't there.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn clear(directory: &Path) -> Result<(), UnpackError> {
    let failed = |source| UnpackError::Clear {
        path: directory.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = match is_directory {
            true => super::remove(&entry.path()),
            false => std::fs::remove_file(entry.path()),
        };
        removed.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::pack;

    fn source() -> tempfile::TempDir {
        let source = tempfile::tempdir().unwrap();
        let at = |path: &str| source.path().join(path);
        for directory in ["lib", ".git", "lib/__pycache__"] {
            std::fs::create_dir(at(directory)).unwrap();
        }
        for file in ["agent.py", "lib/a.py", ".git/HEAD", "lib/__pycache__/a.pyc"] {
            std::fs::write(at(file), file).unwrap();
        }
        std::fs::write(at("run"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(at("run"), Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("agent.py", at("link")).unwrap();
        source
    }

    fn packed(source: &Path) -> (Vec<u8>, String) {
        let mut archive = Vec::new();
        let name = pack(source, &mut archive).unwrap();
        (archive, name)
    }

    #[test]
    fn a_source_comes_to_a_pod_as_it_is_copied_on_a_server() {
        let source = source();
        let (archive, name) = packed(source.path());
        let into = tempfile::tempdir().unwrap();
        std::fs::write(into.path().join("of-before"), "").unwrap();
        unpack(&archive[..], &name, into.path()).unwrap();
        let at = |path: &str| into.path().join(path);
        assert_eq!(std::fs::read(at("lib/a.py")).unwrap(), b"lib/a.py");
        assert_eq!(
            std::fs::read_link(at("link")).unwrap(),
            Path::new("agent.py")
        );
        let mode = |path: &str| std::fs::metadata(at(path)).unwrap().permissions().mode();
        assert_eq!(mode("run") & 0o777, 0o555);
        assert_eq!(mode("agent.py") & 0o777, 0o444);
        for absent in ["of-before", ".git", "lib/__pycache__"] {
            assert!(!at(absent).exists(), "{absent}");
        }
        // Once more, over what can't be written to.
        unpack(&archive[..], &name, into.path()).unwrap();
        assert_eq!(packed(into.path()), (archive, name), "it is the same");
    }

    #[test]
    fn what_is_another_or_not_whole_leaves_nothing() {
        let source = source();
        let (archive, name) = packed(source.path());
        let into = tempfile::tempdir().unwrap();
        let other = "0".repeat(64);
        let another = unpack(&archive[..], &other, into.path());
        assert!(
            matches!(&another, Err(UnpackError::Another { found, .. }) if *found == name),
            "{another:?}"
        );
        let half = archive.len() / 2;
        for archive in [&archive[..half], b"<html>"] {
            assert!(unpack(archive, &name, into.path()).is_err());
            assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0);
        }
    }
}
