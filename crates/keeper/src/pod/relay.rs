//! The relay's process: its sockets, and what it is told.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use contract::pod::{POD_ENV, ToRelay};
use sandbox::spawn::{Launch, SpawnError, Start};

use super::Options;
use crate::instance::socket_pair;
use crate::link::Link;

/// Variables of this process that are the relay's too.
const LOG_ENV: &str = "MAINSTAY_LOG";
const KILL: i32 = 9;

#[derive(Debug)]
pub(super) struct Relay {
    pub(super) pid: u32,
    pidfd: OwnedFd,
    /// Its end tells the relay to leave.
    link: Link,
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error("cannot prepare the relay's process")]
    Prepare(#[from] io::Error),
    #[error("cannot start the relay's process")]
    Start(#[from] SpawnError),
}

impl Relay {
    /// `sockets`: the agent's gateway, and the probes'. They become descriptors 3 and 4, and what
    /// it is told comes by 5.
    pub(super) fn start(
        options: &Options,
        sockets: [BorrowedFd<'_>; 2],
        offered: &ToRelay,
    ) -> Result<Self, RelayError> {
        let (ours, theirs) = socket_pair()?;
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        let errors = rustix::stdio::stderr();
        let [gateway, probes] = sockets;
        let descriptors = [
            null.as_fd(),
            null.as_fd(),
            errors,
            gateway,
            probes,
            theirs.as_fd(),
        ];
        let environment = environment(options)?;
        let start = Start {
            environment: &environment,
            descriptors: &descriptors,
        };
        let spawned = sandbox::spawn::spawn(&launch(options)?, &start)?;
        let mut relay = Self {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
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

fn launch(options: &Options) -> io::Result<Launch> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let program = text(&options.program)?;
    Ok(Launch {
        programs: vec![program.clone()],
        arguments: vec![
            program,
            c"relay".to_owned(),
            c"--root".to_owned(),
            text(&options.root)?,
        ],
        current_dir: c"/".to_owned(),
        user: None,
        ruleset: None,
        mounts: None,
        no_new_privileges: true,
        umask: 0o077,
    })
}

fn environment(options: &Options) -> io::Result<Vec<CString>> {
    let pod = serde_json::to_string(&options.pod)?;
    let log = options.environment.get(LOG_ENV);
    let log = log.map(|value| format!("{LOG_ENV}={value}"));
    let all = [Some(format!("{POD_ENV}={pod}")), log];
    let all = all.into_iter().flatten();
    all.map(|entry| Ok(CString::new(entry)?)).collect()
}
