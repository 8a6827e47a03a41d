//! The state directory: its layout, format number, lock, key, and who may enter what.
//!
//! As root the hub and every agent have users of their own: the tree is open for passing through
//! and each part closed to all but those it belongs to. Directories that the hub may write are
//! root's with the sticky bit, so that it can't put a link in place of what the keeper made.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sandbox::process::Identity;
use serde::{Deserialize, Serialize};

use crate::claim;
use crate::users::Users;

/// The format that this build reads and writes.
pub const FORMAT: u32 = 1;

/// Magic numbers of network file systems (linux/magic.h and the file systems' own sources), where
/// locks and flushes don't mean what the log needs.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 9] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x5346_414F, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x0102_1997, "9P"),
    (0x0116_1970, "GFS2"),
];

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "state {path} is in use by the keeper with pid {pid}: stop that one, or name another directory with --state"
    )]
    InUse { path: PathBuf, pid: String },
    #[error(
        "state {path} has format {found}, newer than this program's {FORMAT}: use the newer program"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("state {path} has a VERSION file that holds no number")]
    Version { path: PathBuf },
    #[error(
        "state {path} lies on a network file system ({kind}), where a crash can lose what was flushed: choose a local directory with --state"
    )]
    Network { path: PathBuf, kind: &'static str },
    #[error("cannot {operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A process as written to a file in `run/`, valid within one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFile {
    #[serde(flatten)]
    pub process: Identity,
    pub boot_id: String,
}

/// An opened and locked state directory.
#[derive(Debug)]
pub struct State {
    pub root: PathBuf,
    pub boot_id: String,
    pub users: Users,
    /// What a person should know about it, in sentences.
    pub warnings: Vec<String>,
    _lock: File,
}

impl State {
    /// Makes what is missing, checks what is there, and takes the lock.
    pub fn open(root: &Path, users: Users) -> Result<Self, StateError> {
        std::fs::create_dir_all(root).map_err(at("create", root))?;
        let root = root.canonicalize().map_err(at("resolve", root))?;
        refuse_network(&root)?;
        check_version(&root)?;
        let boot_id = sandbox::process::boot_id().map_err(at("read the boot id for", &root))?;
        set_mode(&root, if users.separate { 0o711 } else { 0o700 })?;
        let lock = lock(&root, &users)?;
        let (users, warning) = match users.separate {
            true => {
                let (base, warning) = claim::block(&root, Path::new(claim::REGISTRY));
                (users.with_block(base), warning)
            }
            false => (users, None),
        };
        let state = Self {
            _lock: lock,
            boot_id,
            users,
            warnings: warning.into_iter().collect(),
            root,
        };
        state.lay_out()?;
        state.write_process("keeper.pid", std::process::id())?;
        Ok(state)
    }

    fn lay_out(&self) -> Result<(), StateError> {
        let separate = self.users.separate;
        let private = if separate { 0o711 } else { 0o700 };
        for name in ["artifacts", "run", "run/home", "applied"] {
            let mode = if name == "applied" { 0o700 } else { private };
            self.directory(name, mode, false)?;
        }
        for name in ["logs", "generations"] {
            self.directory(name, if separate { 0o2750 } else { 0o700 }, true)?;
        }
        self.directory("workspaces", private, false)?;
        let system = self.directory("system", if separate { 0o1770 } else { 0o700 }, true)?;
        self.give_to_hub(&system)?;
        let tls = system.join("tls");
        if std::fs::symlink_metadata(&tls).is_ok_and(|found| found.is_dir()) {
            self.give_to_hub(&tls)?;
        }
        Ok(())
    }

    /// The workspace whose log or secrets this state has; before there are any, the one wanted.
    pub fn choose_workspace(&self, wanted: Option<&str>) -> Result<String, StateError> {
        let path = self.root.join("workspaces");
        let entries = std::fs::read_dir(&path).map_err(at("read", &path))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok())
            .filter(|entry| {
                ["log.db", "secrets"]
                    .iter()
                    .any(|name| entry.path().join(name).exists())
            })
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        let name = names.into_iter().next();
        let name = name.unwrap_or_else(|| wanted.unwrap_or("default").to_owned());
        self.workspace(&name)?;
        Ok(name)
    }

    /// Makes a workspace's directory, where the hub writes, and its volumes', where it doesn't.
    pub fn workspace(&self, name: &str) -> Result<(), StateError> {
        let separate = self.users.separate;
        let mode = if separate { 0o1771 } else { 0o700 };
        let workspace = self.directory(&format!("workspaces/{name}"), mode, true)?;
        self.give_to_hub(&workspace)?;
        let mode = if separate { 0o711 } else { 0o700 };
        self.directory(&format!("workspaces/{name}/volumes"), mode, false)?;
        Ok(())
    }

    /// Files that root copied here are the hub's again: a log, its heads and its lock.
    fn give_to_hub(&self, dir: &Path) -> Result<(), StateError> {
        if !self.users.separate {
            return Ok(());
        }
        self.give_files(dir)
            .map_err(|error| at("own", dir)(error.into()))
    }

    /// By descriptors from the directory on: a hub of before may still run, and what it puts in the
    /// place of a name in between must not be given.
    fn give_files(&self, dir: &Path) -> rustix::io::Result<()> {
        use rustix::fs::{AtFlags, FileType, Mode, OFlags};
        let folder = rustix::fs::open(
            dir,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let hub = rustix::fs::Uid::from_raw(self.users.hub);
        let group = rustix::fs::Gid::from_raw(self.users.hub);
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(&folder, entry?.file_name(), flags, Mode::empty())
            else {
                continue;
            };
            let found = rustix::fs::fstat(&file)?;
            let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
            if is_file && found.st_uid == 0 && found.st_nlink == 1 {
                rustix::fs::chownat(&file, "", Some(hub), Some(group), AtFlags::EMPTY_PATH)?;
            }
        }
        // The hub's own directory, too, where it was the hub's before the copy.
        if dir.file_name().is_some_and(|name| name == "tls") {
            rustix::fs::fchown(&folder, Some(hub), Some(group))?;
        }
        Ok(())
    }

    /// Makes a directory below the root with this mode, of the hub's group if it is to have access.
    pub fn directory(&self, name: &str, mode: u32, hub: bool) -> Result<PathBuf, StateError> {
        let path = self.root.join(name);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("create", &path)(error));
            }
            _ => {}
        }
        let found = std::fs::symlink_metadata(&path).map_err(at("read", &path))?;
        if !found.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(at("use", &path)(error));
        }
        if self.users.separate {
            let group = if hub { self.users.hub } else { 0 };
            std::os::unix::fs::lchown(&path, Some(0), Some(group)).map_err(at("own", &path))?;
        }
        set_mode(&path, mode)?;
        Ok(path)
    }

    #[must_use]
    pub fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    /// The 32-byte key of this state, made at its first start.
    pub fn key(&self) -> Result<Vec<u8>, StateError> {
        let path = self.root.join("key");
        match std::fs::read(&path) {
            Ok(key) if key.len() == 32 => return Ok(key),
            Ok(_) => {
                let error =
                    io::Error::other("it should be 32 bytes long; restore it from a backup");
                return Err(at("use", &path)(error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("read", &path)(error)),
        }
        let mut key = vec![0; 32];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut key))
            .map_err(at("fill", &path))?;
        write_atomically(&path, &key, 0o600).map_err(at("write", &path))?;
        Ok(key)
    }

    /// Writes a process of this boot to a file in `run/`. Beside `NAME.pid`, which holds the plain
    /// number for people and scripts, `NAME.process` says which process of that number is meant.
    pub fn write_process(&self, name: &str, pid: u32) -> Result<(), StateError> {
        let path = self.identity_file(name);
        let Some(process) = sandbox::process::identity(pid) else {
            return Ok(());
        };
        let file = ProcessFile {
            process,
            boot_id: self.boot_id.clone(),
        };
        let text = serde_json::to_vec(&file)
            .map_err(|error| at("write", &path)(io::Error::other(error)))?;
        write_atomically(&path, &text, 0o644).map_err(at("write", &path))?;
        let plain = self.run(name);
        if plain == path {
            return Ok(());
        }
        write_atomically(&plain, format!("{pid}\n").as_bytes(), 0o644).map_err(at("write", &plain))
    }

    fn identity_file(&self, name: &str) -> PathBuf {
        let path = self.run(name);
        match path.extension().is_some_and(|extension| extension == "pid") {
            true => path.with_extension("process"),
            false => path,
        }
    }

    /// The process that a file in `run/` names, if it still runs.
    #[must_use]
    pub fn living_process(&self, name: &str) -> Option<Identity> {
        let text = std::fs::read(self.identity_file(name)).ok()?;
        let file: ProcessFile = serde_json::from_slice(&text).ok()?;
        let alive = file.boot_id == self.boot_id && sandbox::process::is_alive(file.process);
        alive.then_some(file.process)
    }
}

/// Turns an I/O error into one that says what was tried.
pub(crate) fn at<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StateError + use<'a> {
    move |source| StateError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Opens what may be somebody else's: never waits for one who writes into a pipe, and takes
/// nothing but a file.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
}

/// The content of what may be somebody else's file, up to a size.
pub(crate) fn read_file(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let message = format!("it is larger than {} KiB", max_bytes / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The old content or the new, never a mixture, whatever crashes.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StateError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(at("set the mode of", path))
}

fn refuse_network(root: &Path) -> Result<(), StateError> {
    let found = rustix::fs::statfs(root)
        .map_err(|error| at("examine", root)(error.into()))?
        .f_type;
    match NETWORK_FILE_SYSTEMS
        .iter()
        .find(|(magic, _)| *magic == found)
    {
        Some((_, kind)) => Err(StateError::Network {
            path: root.to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

fn check_version(root: &Path) -> Result<(), StateError> {
    let path = root.join("VERSION");
    let found = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{FORMAT}\n");
            return write_atomically(&path, text.as_bytes(), 0o644).map_err(at("write", &path));
        }
        Err(error) => return Err(at("read", &path)(error)),
    };
    match found.trim().parse::<u32>() {
        Ok(found) if found > FORMAT => Err(StateError::Newer {
            path: root.to_owned(),
            found,
        }),
        Ok(_) => Ok(()),
        Err(_) => Err(StateError::Version {
            path: root.to_owned(),
        }),
    }
}

fn lock(root: &Path, users: &Users) -> Result<File, StateError> {
    let run = root.join("run");
    if let Err(error) = std::fs::create_dir(&run)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(at("create", &run)(error));
    }
    set_mode(&run, if users.separate { 0o711 } else { 0o700 })?;
    let path = run.join("keeper.lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(at("open", &path))?;
    let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    match rustix::fs::flock(file.as_fd(), operation) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN) => Err(StateError::InUse {
            path: root.to_owned(),
            pid: std::fs::read_to_string(run.join("keeper.pid"))
                .map_or("unknown".to_owned(), |text| text.trim().to_owned()),
        }),
        Err(error) => Err(at("lock", &path)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn what_root_copied_into_a_state_is_the_hubs_again_and_volumes_stay_as_they_are() {
        let users = Users::detect();
        if !users.separate {
            eprintln!("left out: users can't be kept apart here");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["system/tls", "workspaces/default/volumes/a-0"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let owned = [
            "system/log.db",
            "system/tls/key.pem",
            "workspaces/default/log.db",
            "workspaces/default/lock",
        ];
        let volume = "workspaces/default/volumes/a-0/notes";
        for name in owned.iter().chain(&[volume]) {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let state = State::open(dir.path(), users).unwrap();
        state.workspace("default").unwrap();
        let owner = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().uid();
        for name in owned {
            assert_eq!(owner(name), state.users.hub, "{name}");
        }
        assert_eq!((owner("system/tls"), owner(volume)), (state.users.hub, 0));
    }

    #[test]
    fn a_pipe_where_a_file_belongs_is_refused_at_once_and_a_large_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        );
        made.unwrap();
        let told = read_file(&pipe, 10).unwrap_err().to_string();
        assert_eq!(told, "it is no file");
        let large = dir.path().join("large");
        write_atomically(&large, b"eleven byte", 0o600).unwrap();
        assert_eq!(read_file(&large, 11).unwrap(), b"eleven byte");
        let told = read_file(&large, 10).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::FileTooLarge);
    }
}
