//! The relay's process: its sockets, and what it is told.
//!
//! Forked without exec like the shim, and for the same reason: the pages that a program of this size
//! makes its own when it starts would be most of what a pod costs. What it runs is the binary's,
//! because this room links no TLS.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use contract::pod::ToRelay;

use super::Options;
use crate::instance::socket_pair;
use crate::link::Link;

/// The name of the relay's process.
const PROCESS_NAME: &std::ffi::CStr = c"mainstay-relay";
const KILL: i32 = 9;

/// What a relay is given.
#[derive(Debug)]
pub struct Sockets {
    /// Listens for the agent.
    pub gateway: OwnedFd,
    /// Listens for the kubelet.
    pub probes: OwnedFd,
    /// [`ToRelay`] frames; its end is the relay's.
    pub supervisor: OwnedFd,
}

#[derive(Debug)]
pub(super) struct Relay {
    pub(super) pid: u32,
    pidfd: OwnedFd,
    /// Its end tells the relay to leave.
    link: Link,
}

impl Relay {
    pub(super) fn fork(
        options: &Options,
        gateway: BorrowedFd<'_>,
        probes: BorrowedFd<'_>,
        offered: &ToRelay,
    ) -> io::Result<Self> {
        let (ours, theirs) = socket_pair()?;
        let sockets = Sockets {
            gateway: rustix::io::fcntl_dupfd_cloexec(gateway, 3)?,
            probes: rustix::io::fcntl_dupfd_cloexec(probes, 3)?,
            supervisor: theirs,
        };
        let forked = sandbox::fork::fork(|| match settle(&sockets) {
            Ok(()) => (options.relay)(&options.pod, &options.root, sockets),
            Err(error) => {
                tracing::error!(%error, "the relay can't begin");
                1
            }
        })?;
        let mut relay = Self {
            pid: forked.pid,
            pidfd: forked.pidfd,
            link: Link::new(ours),
        };
        relay.tell(offered);
        Ok(relay)
    }

    pub(super) fn tell(&mut self, offered: &ToRelay) {
        if let Err(error) = self.link.send(offered, Vec::new()) {
            // One that died is started again and told then.
            tracing::debug!(%error, "the relay doesn't listen");
        }
    }

    /// Closes its link, by which it leaves, and waits for it so long.
    pub(super) fn end(self, patience: Duration) {
        let Self { pidfd, link, .. } = self;
        drop(link);
        if !sandbox::process::wait_ended(pidfd.as_fd(), patience).unwrap_or(false) {
            let _gone = sandbox::process::signal(pidfd.as_fd(), KILL);
        }
    }
}

/// In the child: keeps nothing of the supervisor's but its standard error.
fn settle(sockets: &Sockets) -> io::Result<()> {
    let own = [&sockets.gateway, &sockets.probes, &sockets.supervisor];
    sandbox::descriptors::close_all_but(&own.map(AsRawFd::as_raw_fd));
    sandbox::signals::unblock_all();
    let _leads_already = rustix::process::setsid();
    sandbox::process::set_name(PROCESS_NAME)?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}
