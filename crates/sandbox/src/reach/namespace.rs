//! Makes the mount namespace of a plan, in a helper child that is gone when it is made.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Closed;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = 0o2_000_000;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// A helper child makes the namespace; its `/proc` entry is opened before it may leave.
pub(super) fn build(plan: &[Closed]) -> io::Result<OwnedFd> {
    let most = plan.iter().map(|closed| closed.wanted.len()).max();
    let mut trees = vec![-1i64; most.unwrap_or(0)];
    let (done_reader, done_writer) = pipe()?;
    let (leave_reader, leave_writer) = pipe()?;
    // SAFETY: the child calls nothing but system calls on memory prepared before the fork and
    // leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let mut failed: i32 = private().err().unwrap_or(0);
        for closed in plan {
            if failed == 0 {
                failed = arrange(closed, &mut trees).err().unwrap_or(0);
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
    let opened = File::open(format!("/proc/{pid}/ns/mnt"));
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

/// Puts an empty directory over a closed one, and the wanted paths into it. `trees` has room for
/// as many descriptors.
fn arrange(closed: &Closed, trees: &mut [i64]) -> Result<(), i32> {
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
            if let Ok(descriptor) = libc::c_int::try_from(*tree) {
                libc::close(descriptor);
            }
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

pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `pipe2` fills both numbers, which nobody else owns.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}
