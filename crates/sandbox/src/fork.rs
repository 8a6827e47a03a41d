//! Fork without exec, for shims: fifty of them share the keeper's pages.
//!
//! Only a single-threaded process may call this: the child goes on running Rust code, and a lock
//! held by another thread at the fork would stay locked for ever.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::process;

/// A forked child and the descriptor that watches it.
#[derive(Debug)]
pub struct Forked {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Forks; the child runs `body` and exits with what it returns. Never returns in the child.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<Forked> {
    if process::threads() > 1 {
        return Err(io::Error::other(
            "fork without exec from a process with threads",
        ));
    }
    // SAFETY: the process has one thread (checked above), so the child's copy of every lock is
    // free and it may run ordinary code. It leaves through `_exit` below, never by returning.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: `_exit` ends this process without running the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
    let child = Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no pid"))?;
    // The child can't be reaped before this: nobody waits for it yet.
    let pidfd = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty())?;
    Ok(Forked {
        pid: pid.unsigned_abs(),
        pidfd,
    })
}
