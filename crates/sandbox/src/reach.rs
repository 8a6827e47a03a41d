//! A view of the files in which an unprivileged user can reach the paths it was given.
//!
//! Theory: when root runs everything below a directory that only root may enter (`/root`, a fresh
//! `mktemp -d`), a child with a user of its own could not even reach its own code. Opening the
//! directory would let everybody in. Instead the child gets a mount namespace in which such a
//! directory is an empty one that holds just the wanted paths. It hides nothing that the user
//! could have reached otherwise, and paths keep their names.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = 0o2_000_000;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// The first directory on the way to `path` that this user can't enter.
#[must_use]
pub fn first_closed(path: &Path, (uid, gid): (u32, u32)) -> Option<PathBuf> {
    let mut at = PathBuf::new();
    for component in path.components() {
        at.push(component);
        match std::fs::metadata(&at) {
            Ok(found) if found.is_dir() && !may_enter(&found, uid, gid) => return Some(at),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    None
}

fn may_enter(directory: &Metadata, uid: u32, gid: u32) -> bool {
    let needed = if directory.uid() == uid {
        0o100
    } else if directory.gid() == gid {
        0o010
    } else {
        0o001
    };
    directory.mode() & needed != 0
}

struct Closed {
    directory: CString,
    /// What to make inside it, parents first: directories, and files (false) to mount files on.
    make: Vec<(CString, bool)>,
    wanted: Vec<CString>,
}

/// A mount namespace in which this user reaches all of `wanted`; `None` if it does
/// already. Needs root. The calling process stays where it is.
pub fn view(wanted: &[PathBuf], user: (u32, u32)) -> io::Result<Option<OwnedFd>> {
    let plan = plan(wanted, user)?;
    if plan.is_empty() {
        return Ok(None);
    }
    build(&plan).map(Some)
}

fn plan(wanted: &[PathBuf], user: (u32, u32)) -> io::Result<Vec<Closed>> {
    let mut by_closed: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in wanted {
        let Ok(path) = path.canonicalize() else {
            continue;
        };
        if let Some(closed) = first_closed(&path, user)
            && closed != path
        {
            by_closed.entry(closed).or_default().push(path);
        }
    }
    by_closed
        .into_iter()
        .map(|(directory, paths)| closed(&directory, paths))
        .collect()
}

fn closed(directory: &Path, mut paths: Vec<PathBuf>) -> io::Result<Closed> {
    paths.sort();
    paths.dedup_by(|later, earlier| later.starts_with(earlier));
    let mut make = Vec::new();
    for path in &paths {
        let mut at = directory.to_owned();
        let below = path.strip_prefix(directory).map_err(io::Error::other)?;
        for component in below.components() {
            at.push(component);
            make.push((c_path(&at)?, at.is_dir()));
        }
    }
    Ok(Closed {
        directory: c_path(directory)?,
        make,
        wanted: paths
            .iter()
            .map(|path| c_path(path))
            .collect::<io::Result<_>>()?,
    })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A helper child makes the namespace; its `/proc` entry is opened before it may leave.
fn build(plan: &[Closed]) -> io::Result<OwnedFd> {
    let (done_reader, done_writer) = pipe()?;
    let (leave_reader, leave_writer) = pipe()?;
    // SAFETY: the child calls nothing but system calls on memory prepared before the fork and
    // leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let mut failed: i32 = 0;
        for step in std::iter::once(private()).chain(plan.iter().map(arrange)) {
            if let (Err(errno), 0) = (step, failed) {
                failed = errno;
            }
        }
        // SAFETY: plain reads and writes on our own descriptors, then the end of this process.
        unsafe {
            libc::close(leave_writer.as_raw_fd());
            libc::write(
                done_writer.as_raw_fd(),
                failed.to_ne_bytes().as_ptr().cast(),
                4,
            );
            let mut byte = 0u8;
            libc::read(leave_reader.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0)
        }
    }
    drop(done_writer);
    let mut result = [0u8; 4];
    let read = rustix::io::read(&done_reader, &mut result);
    let opened = std::fs::File::open(format!("/proc/{pid}/ns/mnt"));
    drop(leave_writer);
    let _code = crate::process::reap(pid.unsigned_abs());
    match (read?, i32::from_ne_bytes(result)) {
        (4, 0) => Ok(opened?.into()),
        (4, errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other(
            "the helper for the mount namespace ended early",
        )),
    }
}

fn private() -> Result<(), i32> {
    // SAFETY: system calls with constant strings; they change this helper's namespace alone.
    unsafe {
        check(i64::from(libc::unshare(libc::CLONE_NEWNS)))?;
        let flags = libc::MS_REC | libc::MS_SLAVE;
        check(i64::from(libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )))?;
    }
    Ok(())
}

fn arrange(closed: &Closed) -> Result<(), i32> {
    // At most this many paths are kept open below one closed directory.
    let mut trees = [-1i64; 64];
    // SAFETY: system calls on NUL-terminated strings that outlive them, in the helper alone.
    unsafe {
        for (tree, path) in trees.iter_mut().zip(&closed.wanted) {
            let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
            *tree = check(libc::syscall(
                libc::SYS_open_tree,
                libc::AT_FDCWD,
                path.as_ptr(),
                flags,
            ))?;
        }
        check(i64::from(libc::mount(
            c"mainstay".as_ptr(),
            closed.directory.as_ptr(),
            c"tmpfs".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            c"mode=0755,size=64k".as_ptr().cast(),
        )))?;
        for (path, is_directory) in &closed.make {
            if *is_directory {
                libc::mkdir(path.as_ptr(), 0o755);
                libc::chmod(path.as_ptr(), 0o755);
            } else {
                libc::mknod(path.as_ptr(), libc::S_IFREG | 0o444, 0);
            }
        }
        for (tree, path) in trees.iter().zip(&closed.wanted) {
            check(libc::syscall(
                libc::SYS_move_mount,
                *tree,
                c"".as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            ))?;
        }
    }
    Ok(())
}

fn check(result: i64) -> Result<i64, i32> {
    if result < 0 {
        return Err(io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO));
    }
    Ok(result)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `pipe2` fills both numbers, which nobody else owns.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}
