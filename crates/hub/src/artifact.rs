//! Agents' code that a command line sent, kept for their pods: one packed file for each artifact, in
//! `artifacts/` of the state, called by its hash.
//!
//! Only where the home is a cluster: on one server the keeper copies the files themselves. What is
//! kept was read through once and is whole; a hub that is killed while one comes keeps nothing of
//! it. Which are needed is the home's to say (`tidy`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::artifact::{MAX_ARCHIVE_BYTES, ReadError, Sink, is_name, read};
use tokio::time::Instant;

use crate::shared::lock;
use crate::{Code, HubError};

/// What must be free beyond an artifact: the log needs its own.
const RESERVE_BYTES: u64 = 128 * 1024 * 1024;
/// One that no manifest names is kept so long: whoever sends it applies the manifest next.
const UNNAMED: Duration = Duration::from_secs(3600);
/// How the name of one begins that isn't whole yet.
const COMING: &str = ".new-";

/// The artifacts of one hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Artifacts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    /// When each was sent or asked for last; those found at the start count as of then.
    touched: Mutex<BTreeMap<String, Instant>>,
    coming: AtomicU64,
}

impl Artifacts {
    /// Those in this state; makes the directory, and clears what a killed hub left.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("artifacts");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        let mut touched = BTreeMap::new();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with(COMING) {
                std::fs::remove_file(entry.path())?;
            } else if is_name(&name) {
                touched.insert(name, Instant::now());
            }
        }
        Ok(Self(Arc::new(Inner {
            directory,
            touched: Mutex::new(touched),
            coming: AtomicU64::new(0),
        })))
    }

    /// Whether it is there; if so it stays for a while.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut touched = lock(&self.0.touched);
        let found = touched.get_mut(name);
        found.map(|when| *when = Instant::now()).is_some()
    }

    /// Opens one for reading; none if it isn't there.
    pub fn get(&self, name: &str) -> io::Result<Option<File>> {
        if !is_name(name) {
            return Ok(None);
        }
        match File::open(self.0.directory.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps what comes, if it is the artifact of this name. Blocks.
    pub fn put(&self, name: &str, length: u64, archive: impl Read) -> Result<(), HubError> {
        if !is_name(name) {
            return Err(invalid("an artifact is named by 64 hexadecimal digits"));
        }
        if length > MAX_ARCHIVE_BYTES {
            let text = "an artifact is no longer than 1 GiB and its files' names";
            return Err(HubError::new(Code::TooLarge, text));
        }
        self.is_room(length)?;
        let number = self.0.coming.fetch_add(1, Ordering::Relaxed);
        let aside = Aside(self.0.directory.join(format!("{COMING}{number}")));
        let file = aside.create().map_err(|error| unkept(&error))?;
        let mut tee = Tee {
            archive,
            file,
            failed: None,
        };
        let found = read(&mut tee, &mut Nowhere);
        let (file, failed) = (tee.file, tee.failed);
        if let Some(error) = failed {
            return Err(unkept(&error));
        }
        let found = found.map_err(refused)?;
        if found != name {
            return Err(invalid(format!("what came is artifact {found}")));
        }
        self.settle(&aside, &file, name)
            .map_err(|error| unkept(&error))
    }

    /// From here on it is there, whatever happens.
    fn settle(&self, aside: &Aside, file: &File, name: &str) -> io::Result<()> {
        file.sync_all()?;
        let mut touched = lock(&self.0.touched);
        std::fs::rename(&aside.0, self.0.directory.join(name))?;
        File::open(&self.0.directory)?.sync_all()?;
        touched.insert(name.to_owned(), Instant::now());
        Ok(())
    }

    fn is_room(&self, length: u64) -> Result<(), HubError> {
        let stat = rustix::fs::statvfs(&self.0.directory).map_err(|error| unkept(&error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        match free >= length.saturating_add(RESERVE_BYTES) {
            true => Ok(()),
            false => Err(no_room()),
        }
    }

    /// Removes those that nothing names any more and nobody asked for lately.
    pub fn tidy(&self, named: &BTreeSet<String>) -> io::Result<()> {
        let mut touched = lock(&self.0.touched);
        let old = |(name, when): (&String, &Instant)| {
            (when.elapsed() > UNNAMED && !named.contains(name)).then(|| name.clone())
        };
        let old: Vec<String> = touched.iter().filter_map(old).collect();
        for name in old {
            std::fs::remove_file(self.0.directory.join(&name))?;
            touched.remove(&name);
        }
        Ok(())
    }
}

/// A file that is removed unless it has got its name.
struct Aside(PathBuf);

impl Aside {
    fn create(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&self.0)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _has_its_name = std::fs::remove_file(&self.0);
    }
}

/// Writes down what is read.
struct Tee<R> {
    archive: R,
    file: File,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        if let Err(error) = self.file.write_all(&buffer[..count]) {
            self.failed = Some(error);
            return Err(io::Error::other("it can't be kept"));
        }
        Ok(count)
    }
}

/// Looks, and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn directory(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn link(&mut self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, _: &Path, _: bool, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

fn refused(error: ReadError) -> HubError {
    match error {
        ReadError::TooMany | ReadError::TooLarge => {
            HubError::new(Code::TooLarge, error.to_string())
        }
        ReadError::Read(_) | ReadError::Cut => invalid("the artifact broke off"),
        other => invalid(format!("it is no artifact: {other}")),
    }
}

fn invalid(text: impl Into<String>) -> HubError {
    HubError::new(Code::Invalid, text)
}

fn unkept(error: &io::Error) -> HubError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => no_room(),
        _ => HubError::new(
            Code::Internal,
            format!("the artifact can't be kept: {error}"),
        ),
    }
}

fn no_room() -> HubError {
    HubError::new(
        Code::NoSpace,
        "the hub's volume has no room for it: make the source smaller, or the volume larger",
    )
}

#[cfg(test)]
mod tests;
