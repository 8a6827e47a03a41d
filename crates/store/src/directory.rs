//! The directory a log lives in: its files' names, the lock, and what the file system beneath must be.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs, statvfs};

use crate::error::OpenError;

/// Free space below which new intents should be refused, so that results can still be written.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// File systems by their number in statfs(2).
const NETWORK_FILE_SYSTEMS: [(u64, &str); 7] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
];

pub(crate) fn database_path(dir: &Path) -> PathBuf {
    dir.join("log.db")
}

pub(crate) fn wal_path(dir: &Path) -> PathBuf {
    dir.join("log.db-wal")
}

pub(crate) fn heads_path(dir: &Path) -> PathBuf {
    dir.join("heads")
}

/// Makes the directory if need be, for its owner only, and checks what it lies on.
pub(crate) fn prepare(dir: &Path, create: bool) -> Result<(), OpenError> {
    if create {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| OpenError::Io {
            path: dir.to_owned(),
            source,
        })?;
    } else if !dir.is_dir() {
        return Err(OpenError::NotFound {
            path: dir.to_owned(),
        });
    }
    let stat = statfs(dir).map_err(|errno| OpenError::Io {
        path: dir.to_owned(),
        source: errno.into(),
    })?;
    // The kernel's field is signed on some machines; the numbers are 32 bits wide everywhere.
    #[allow(clippy::cast_sign_loss, reason = "the bits are what is compared")]
    let number = stat.f_type as u64 & 0xffff_ffff;
    match NETWORK_FILE_SYSTEMS
        .iter()
        .find(|(known, _)| *known == number)
    {
        Some((_, kind)) => Err(OpenError::NetworkFileSystem {
            path: dir.to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

/// Held by the one writer as long as it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

pub(crate) fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join("lock");
    let io_error = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(OpenError::LogLocked {
                path: dir.to_owned(),
                pid: holder(&mut file),
            });
        }
        Err(errno) => return Err(io_error(errno.into())),
    }
    write_pid(&mut file).map_err(io_error)?;
    Ok(Lock { _file: file })
}

/// The pid is for the person who reads the error; nothing else believes it.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(20).read_to_string(&mut text);
    let pid = text.trim();
    let is_pid = read.is_ok() && !pid.is_empty() && pid.chars().all(|c| c.is_ascii_digit());
    if is_pid {
        pid.to_owned()
    } else {
        "unknown".to_owned()
    }
}

/// Length of a file, 0 if it isn't there.
pub(crate) fn length_of(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Makes a file for its owner only; SQLite gives its WAL the same rights.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Makes the names in the directory durable.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether less than [`RESERVE_BYTES`] are free for this user.
pub(crate) fn is_low_on_space(dir: &Path) -> io::Result<bool> {
    let stat = statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) < RESERVE_BYTES)
}
