//! Processes by identity: pid and start time, so that a reused pid is never taken for another.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions};

/// A process that can't be confused with a later one of the same pid (within one boot).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

/// What `/proc/PID/stat` tells about one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub identity: Identity,
    pub name: String,
    pub state: char,
    pub parent: u32,
    pub session: u32,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal(i32),
}

/// Reads a process's stat line; `None` if it is gone.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses: it ends at the last one.
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let mut fields = text.get(close + 2..)?.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        identity: Identity {
            pid: text.get(..open)?.trim().parse().ok()?,
            start_time: fields.nth(15)?.parse().ok()?,
        },
        name: text.get(open + 1..close)?.to_owned(),
        state,
        parent,
        session,
    })
}

/// The identity of a living process (a zombie is not living).
#[must_use]
pub fn identity(pid: u32) -> Option<Identity> {
    stat(pid)
        .filter(|stat| stat.state != 'Z' && stat.state != 'X')
        .map(|stat| stat.identity)
}

/// Whether this very process still runs.
#[must_use]
pub fn is_alive(process: Identity) -> bool {
    identity(process.pid) == Some(process)
}

/// Whether a process or one of its ancestors bears this name (`/proc/PID/comm`).
/// Descendants of a subreaper can't leave its family, so a shim's name marks all it started.
#[must_use]
pub fn descends_from_name(pid: u32, name: &str) -> bool {
    let mut next = pid;
    for _ in 0..4096 {
        match stat(next) {
            Some(stat) if stat.name == name => return true,
            Some(stat) if stat.parent > 1 => next = stat.parent,
            _ => return false,
        }
    }
    true
}

/// This machine's current boot.
pub fn boot_id() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Number of threads of this process.
#[must_use]
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Opens a descriptor that becomes readable when the process ends.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        to_pid(pid)?,
        PidfdFlags::empty(),
    )?)
}

/// Opens a descriptor for exactly this process; fails if it is gone or another has its pid.
pub fn open_identity(process: Identity) -> io::Result<OwnedFd> {
    let fd = open(process.pid)?;
    if identity(process.pid) == Some(process) {
        return Ok(fd);
    }
    Err(io::Error::from_raw_os_error(libc::ESRCH))
}

/// Sends a signal through a pidfd; a process that is gone is fine.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, to_signal(signal)?) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to exactly this process; one that is gone is fine.
pub fn signal_identity(process: Identity, number: i32) {
    if let Ok(fd) = open_identity(process) {
        let _gone = signal(std::os::fd::AsFd::as_fd(&fd), number);
    }
}

/// Sends a signal to a process group led by an unreaped child of ours.
pub fn signal_group(leader: u32, number: i32) {
    if let (Ok(pid), Ok(signal)) = (to_pid(leader), to_signal(number)) {
        let _gone = rustix::process::kill_process_group(pid, signal);
    }
}

/// Waits up to `timeout` for the process behind a pidfd to end.
pub fn wait_ended(pidfd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            pidfd,
            rustix::event::PollFlags::IN,
        )];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What waiting for any child found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    Child(u32, Ended),
    /// Children run, none has ended.
    Running,
    /// There is no child at all.
    NoChildren,
}

/// Reaps one ended child, whichever it is.
pub fn reap_any() -> io::Result<Reaped> {
    // Not `waitpid(None)`: that waits for our own process group only, which children leave.
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => Ok(Reaped::Child(
            pid.as_raw_nonzero().get().unsigned_abs(),
            ended(status),
        )),
        Ok(None) => Ok(Reaped::Running),
        Err(rustix::io::Errno::CHILD) => Ok(Reaped::NoChildren),
        Err(error) => Err(error.into()),
    }
}

/// Waits for one child; only for children that are known to end at once.
pub fn reap(pid: u32) -> io::Result<Ended> {
    loop {
        match rustix::process::waitpid(Some(to_pid(pid)?), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ended(status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn ended(status: rustix::process::WaitStatus) -> Ended {
    match status.terminating_signal() {
        Some(signal) => Ended::Signal(signal),
        None => Ended::Code(status.exit_status().unwrap_or(-1)),
    }
}

/// Orphans among our descendants become our children.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// Nobody of the same user may read this process's memory, and it leaves no core file.
pub fn hide_memory() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    Ok(())
}

/// Raises the limit of open files to what is allowed: each client and agent costs one.
pub fn raise_open_files() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(())
}

/// Names this process in `/proc/PID/comm` (15 bytes).
pub fn set_name(name: &std::ffi::CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("not a pid"))
}

fn to_signal(number: i32) -> io::Result<Signal> {
    Signal::from_named_raw(number).ok_or_else(|| io::Error::other("not a signal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) R 7 (b) S 17 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat.name, "a) R 7 (b");
        assert_eq!(stat.parent, 17);
        assert_eq!(stat.session, 41);
        assert_eq!(
            stat.identity,
            Identity {
                pid: 42,
                start_time: 987_654
            }
        );
    }

    #[test]
    fn this_process_is_alive_and_a_reused_pid_is_not_it() {
        let own = identity(std::process::id()).unwrap();
        assert!(is_alive(own));
        assert!(!is_alive(Identity {
            start_time: own.start_time + 1,
            ..own
        }));
    }
}
