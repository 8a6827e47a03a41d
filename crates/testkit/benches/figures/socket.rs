//! The harness's end of `testkit-idle`: a Unix socket on which each new process announces itself.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A socket that every user may connect to.
pub(crate) struct Harness {
    folder: TempDir,
    listener: UnixListener,
}

/// A process that announced itself.
pub(crate) struct Announced {
    pub(crate) pid: i32,
    pub(crate) at: Instant,
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
        let mut text = [0_u8; 16];
        let length = stream.read(&mut text).unwrap();
        let at = Instant::now();
        let pid = std::str::from_utf8(&text[..length]).ok()?.parse().ok()?;
        Some(Announced {
            pid,
            at,
            _stream: stream,
        })
    }

    /// A copy of the child in a place that every user may run it from.
    pub(crate) fn child(&self) -> PathBuf {
        let copy = self.folder.path().join("testkit-idle");
        if !copy.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_testkit-idle"), &copy).unwrap();
        }
        copy
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
