//! The harness's end of `child.c`: a Unix socket on which each new process announces itself.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// A socket that every user may connect to.
pub(crate) struct Harness {
    folder: TempDir,
    listener: UnixListener,
}

/// A process that announced itself.
pub(crate) struct Announced {
    pub(crate) pid: i32,
    /// When its first byte on the ready descriptor was written, by [`now`]'s clock.
    pub(crate) ready: Duration,
    /// When the harness had read its words.
    pub(crate) heard: Duration,
    /// Its end of the connection closes when it dies.
    _stream: UnixStream,
}

impl Harness {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        Self { folder, listener }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The next process, within a bound; `None` when none came.
    pub(crate) fn next(&self, bound: Duration) -> Option<Announced> {
        use rustix::event::{PollFd, PollFlags, poll};
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(bound.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        let mut descriptors = [PollFd::new(&self.listener, PollFlags::IN)];
        let ready = poll(&mut descriptors, Some(&timeout)).unwrap();
        if ready == 0 {
            return None;
        }
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut text = [0_u8; 64];
        let length = stream.read(&mut text).unwrap();
        let heard = now();
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let (pid, seconds, nanos) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let seconds = Duration::from_secs(seconds.ok()?);
        Some(Announced {
            pid: i32::try_from(pid.ok()?).ok()?,
            ready: seconds + Duration::from_nanos(nanos.ok()?),
            heard,
            _stream: stream,
        })
    }

    /// The child, built where every user may run it.
    pub(crate) fn child(&self) -> PathBuf {
        let program = self.folder.path().join("child");
        if !program.exists() {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/figures/child.c");
            let built = Command::new("cc")
                .args(["-O2", "-static", "-o"])
                .arg(&program)
                .arg(source)
                .status();
            assert!(
                built.is_ok_and(|status| status.success()),
                "cc can't build {source}"
            );
        }
        program
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

/// CLOCK_MONOTONIC, which the child reads too.
pub(crate) fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = Duration::from_secs(now.tv_sec.unsigned_abs());
    seconds + Duration::from_nanos(now.tv_nsec.unsigned_abs())
}
