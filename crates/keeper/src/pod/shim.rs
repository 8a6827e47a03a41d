//! The pod's shim: forked, told its one spec, listened to, ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use contract::Versions;
use contract::shim::{FromShim, Role, Spec, ToShim};

use super::{Options, layout::Layout};
use crate::instance::{LEAVE_TIMEOUT, isolation, socket_pair};
use crate::link::Link;
use crate::listener::bind_unix;
use crate::shim::{ANY_GENERATION, Setup};

const KILL: i32 = 9;

#[derive(Debug)]
pub(super) struct Shim {
    pub(super) pid: u32,
    pidfd: OwnedFd,
    /// `None` once the shim closed it.
    link: Option<Link>,
    /// When it is killed, after it was told to end.
    kill_at: Option<Instant>,
}

/// What of a shim's words concerns a supervisor.
#[derive(Debug)]
pub(super) enum Said {
    /// What its last start put in force, in the words of status.
    Enforced(String),
    FalseStart(String),
    OfUse,
}

impl Shim {
    pub(super) fn fork(
        options: &Options,
        layout: &Layout,
        gateway: &OwnedFd,
        spec: &Spec,
    ) -> io::Result<Self> {
        let listener = bind_unix(&layout.socket, 0o600, false)?;
        let (ours, theirs) = socket_pair()?;
        let uid = rustix::process::geteuid().as_raw();
        let share = |fd: std::os::fd::BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let setup = Setup {
            instance: options.instance.clone(),
            kind: options.pod.kind,
            socket: layout.socket.clone(),
            spool: layout.spool.clone(),
            log_dir: layout.logs.clone(),
            listener,
            gateway: share(gateway.as_fd())?,
            keeper: theirs,
            keeper_uid: uid,
            hub_uid: uid,
            mirrors: Some([
                share(rustix::stdio::stdout())?,
                share(rustix::stdio::stderr())?,
            ]),
            is_alone: true,
        };
        let forked = sandbox::fork::fork(|| crate::shim::run(setup))?;
        let mut shim = Self {
            pid: forked.pid,
            pidfd: forked.pidfd,
            link: Some(Link::new(ours)),
            kill_at: None,
        };
        shim.send(&ToShim::Hello {
            versions: Versions::OURS,
            role: Role::Keeper,
        });
        shim.send(&ToShim::Spec {
            generation: ANY_GENERATION,
            spec: Box::new(spec.clone()),
        });
        Ok(shim)
    }

    fn send(&mut self, message: &ToShim) {
        if let Some(link) = &mut self.link
            && let Err(error) = link.send(message, Vec::new())
        {
            // Its death is seen when it is reaped; one that lives is killed at its stop.
            tracing::warn!(%error, "the shim doesn't take messages");
            self.link = None;
        }
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub(super) fn link_fd(&self) -> Option<RawFd> {
        self.link().map(|link| link.as_fd().as_raw_fd())
    }

    /// Asks it to end everything; it is killed if it takes too long.
    pub(super) fn stop(&mut self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.send(&ToShim::Stop { grace_ms });
        let kill_at = Instant::now() + grace + LEAVE_TIMEOUT;
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.kill_at
    }

    pub(super) fn kill_if_due(&self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            let _gone = sandbox::process::signal(self.pidfd.as_fd(), KILL);
        }
    }

    /// Reads what it says.
    pub(super) fn receive(&mut self) -> Vec<Said> {
        let Some(link) = &mut self.link else {
            return Vec::new();
        };
        let filled = link.fill();
        let mut said = Vec::new();
        while let Ok(Some(message)) = link.next::<FromShim>() {
            said.extend(match message {
                FromShim::Enforced { user, landlock } => {
                    Some(Said::Enforced(isolation(user, landlock)))
                }
                FromShim::FalseStart { reason } => Some(Said::FalseStart(reason)),
                FromShim::OfUse => Some(Said::OfUse),
                _ => None,
            });
        }
        if filled.is_err() {
            self.link = None;
        }
        said
    }
}
