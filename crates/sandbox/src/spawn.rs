//! Starting a program: one `clone` that shares memory until the exec, as `posix_spawn` does.
//!
//! Sharing memory makes a start cost the same for a small and a large parent, and lets the child
//! report which step failed without a pipe. The child runs on a stack of its own, calls nothing
//! but system calls, and the parent's thread sleeps until the exec or the failure.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const STACK_BYTES: usize = 64 * 1024;
/// Where descriptors for the child wait while their final numbers are filled.
const STAGING: RawFd = 200;

/// Everything about a child that doesn't change between its restarts.
#[derive(Debug)]
pub struct Launch {
    /// Paths tried in order until one executes (a name looked up in PATH gives several).
    pub programs: Vec<CString>,
    pub arguments: Vec<CString>,
    pub current_dir: CString,
    /// User and group to become; supplementary groups are dropped.
    pub user: Option<(u32, u32)>,
    /// Landlock rules to enter, from [`crate::confine`].
    pub ruleset: Option<OwnedFd>,
    /// Mount namespace to enter, from [`crate::reach`].
    pub mounts: Option<OwnedFd>,
    /// Forbid gaining rights by set-uid programs (agents; needed by Landlock without root).
    pub no_new_privileges: bool,
    pub umask: u32,
}

/// What changes from start to start. `descriptors[i]` becomes number `i` in the child.
#[derive(Debug)]
pub struct Start<'a> {
    pub environment: &'a [CString],
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// A started child and what was really done to it.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// It runs as the user asked for.
    pub user_changed: bool,
    /// Landlock rules are in force on it.
    pub landlocked: bool,
}

/// The step of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Clone,
    Descriptors,
    Mounts,
    User,
    Directory,
    Execute,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the process ({step:?})")]
pub struct SpawnError {
    pub step: Step,
    #[source]
    pub source: io::Error,
}

struct Shared<'a> {
    launch: &'a Launch,
    programs: &'a [CString],
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    descriptors: &'a [BorrowedFd<'a>],
    ignored: &'a [libc::c_int],
    failed: Option<(Step, i32)>,
    user_changed: bool,
    landlocked: bool,
}

/// Starts the program in a session of its own, with default signal handling and nothing open but
/// what `start` lists.
pub fn spawn(launch: &Launch, start: &Start<'_>) -> Result<Spawned, SpawnError> {
    let argv = pointers(&launch.arguments);
    let envp = pointers(start.environment);
    let mut shared = Shared {
        launch,
        programs: &launch.programs,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        descriptors: start.descriptors,
        ignored: ignored(),
        failed: None,
        user_changed: false,
        landlocked: false,
    };
    let (pid, pidfd) = clone_and_wait(&mut shared).map_err(|source| SpawnError {
        step: Step::Clone,
        source,
    })?;
    if let Some((step, errno)) = shared.failed {
        let _code = crate::process::reap(pid);
        return Err(SpawnError {
            step,
            source: io::Error::from_raw_os_error(errno),
        });
    }
    Ok(Spawned {
        pid,
        pidfd,
        user_changed: shared.user_changed,
        landlocked: shared.landlocked,
    })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain(std::iter::once(std::ptr::null()))
        .collect()
}

fn clone_and_wait(shared: &mut Shared<'_>) -> io::Result<(u32, OwnedFd)> {
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK_BYTES / 16);
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: CLONE_VFORK suspends this thread until the child has executed or exited, so the
    // stack, `shared` and everything it borrows outlive the child's use of them, and nobody else
    // touches them meanwhile. The stack's top is 16-byte aligned (its items are `u128`). Signals
    // are blocked around the call so that no handler of ours runs in the child on shared memory.
    let pid = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        let top = stack.as_mut_ptr().add(STACK_BYTES / 16);
        let pid = libc::clone(
            child,
            top.cast(),
            flags,
            std::ptr::from_mut(shared).cast(),
            std::ptr::from_mut(&mut pidfd),
        );
        let error = *libc::__errno_location();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        pid
    };
    // SAFETY: CLONE_PIDFD stored a fresh descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid.unsigned_abs(), pidfd))
}

extern "C" fn child(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the argument is the `Shared` that `clone_and_wait` borrowed mutably; the parent's
    // thread is suspended, so this is the only access.
    let shared = unsafe { &mut *argument.cast::<Shared<'_>>() };
    let failure = run(shared);
    shared.failed = Some(failure);
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(127) }
}

/// Only system calls from here on; returns only if the program could not be executed.
fn run(shared: &mut Shared<'_>) -> (Step, i32) {
    reset_signals(shared.ignored);
    let last = match place_descriptors(shared.descriptors, shared.launch.mounts.as_ref()) {
        Ok(last) => last,
        Err(failure) => return failure,
    };
    // SAFETY: raw system calls on plain numbers; they touch this process alone. The raw forms of
    // the uid calls are needed: libc's change all threads of the address space it believes in.
    unsafe {
        libc::setsid();
        libc::umask(shared.launch.umask);
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        if let Some((uid, gid)) = shared.launch.user {
            if libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<libc::gid_t>()) < 0
                || libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0
                || libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0
            {
                return (Step::User, errno());
            }
            shared.user_changed = true;
        }
        if shared.launch.no_new_privileges {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        }
        if libc::chdir(shared.launch.current_dir.as_ptr()) < 0 {
            return (Step::Directory, errno());
        }
        if let Some(ruleset) = &shared.launch.ruleset {
            let result = libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0);
            shared.landlocked = result == 0;
        }
        libc::syscall(libc::SYS_close_range, last, u32::MAX, 0);
    }
    execute(shared)
}

/// Puts the descriptors at 0, 1, 2, … and enters the mount namespace; returns the first free number.
fn place_descriptors(
    descriptors: &[BorrowedFd<'_>],
    mounts: Option<&OwnedFd>,
) -> Result<u32, (Step, i32)> {
    let mut number: RawFd = 0;
    // SAFETY: `setns`, `fcntl` and `dup2` work on this process's own table, which CLONE_VM
    // without CLONE_FILES doesn't share. The sources are first lifted above all targets, so no
    // source is overwritten before it is used; a borrowed number may be overwritten in this copy.
    unsafe {
        if let Some(mounts) = mounts
            && libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS) < 0
        {
            return Err((Step::Mounts, errno()));
        }
        for descriptor in descriptors {
            let minimum = STAGING + number;
            let staged = libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD, minimum);
            if staged < 0 || (staged != minimum && libc::dup2(staged, minimum) < 0) {
                return Err((Step::Descriptors, errno()));
            }
            number += 1;
        }
        for target in 0..number {
            if libc::dup2(STAGING + target, target) < 0 {
                return Err((Step::Descriptors, errno()));
            }
        }
    }
    Ok(number.unsigned_abs())
}

/// The signals that this process ignores, which an exec would keep; handlers it takes away itself.
/// Asked once: what a program of ours ignores is settled when it starts its first child.
fn ignored() -> &'static [libc::c_int] {
    static IGNORED: std::sync::OnceLock<Vec<libc::c_int>> = std::sync::OnceLock::new();
    IGNORED.get_or_init(|| {
        let is_ignored = |signal: &libc::c_int| {
            let mut current = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: only asks; the kernel fills the structure, which is valid zeroed as well.
            unsafe {
                libc::sigaction(*signal, std::ptr::null(), current.as_mut_ptr()) == 0
                    && current.assume_init().sa_sigaction == libc::SIG_IGN
            }
        };
        (1..=64).filter(is_ignored).collect()
    })
}

fn reset_signals(ignored: &[libc::c_int]) {
    // SAFETY: the child's table of handlers is its own (no CLONE_SIGHAND); a zeroed sigaction is
    // SIG_DFL with no flags.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        for signal in ignored {
            libc::sigaction(*signal, &raw const default, std::ptr::null_mut());
        }
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

fn execute(shared: &Shared<'_>) -> (Step, i32) {
    let mut worst = libc::ENOENT;
    for program in shared.programs {
        // SAFETY: all three are NUL-terminated, and the arrays end with a null pointer.
        unsafe { libc::execve(program.as_ptr(), shared.argv, shared.envp) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return (Step::Execute, other),
        }
    }
    (Step::Execute, worst)
}

fn errno() -> i32 {
    // SAFETY: the pointer is to the suspended parent thread's errno, ours to use until exec.
    unsafe { *libc::__errno_location() }
}
