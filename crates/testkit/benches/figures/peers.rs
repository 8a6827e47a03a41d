//! The other supervisors, each started on the same child where it is installed: by the distribution,
//! or by `cargo xtask bench`, which names those it installed in `MAINSTAY_PEER_<NAME>`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::socket::Harness;

/// A supervisor: its name, its program, and how it is pointed at the child.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    program: &'static str,
    start: fn(&Path, &Harness) -> Command,
}

pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "runit",
        program: "runsv",
        start: runit,
    },
    Peer {
        name: "s6",
        program: "s6-supervise",
        start: s6,
    },
    Peer {
        name: "supervisord",
        program: "supervisord",
        start: supervisord,
    },
    Peer {
        name: "pm2",
        program: "pm2",
        start: pm2,
    },
];

impl Peer {
    /// Starts it, or nothing where it isn't installed.
    pub(crate) fn start(&self, harness: &Harness) -> Option<Running> {
        let path = find(self.program)?;
        let mut command = (self.start)(&path, harness);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().ok().map(Running::of)
    }
}

/// A running peer. It is ended, and then what it ran.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn of(child: Child) -> Self {
        Self { child }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Ends it and its children.
    pub(crate) fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).unwrap_or(0);
        let tree = testkit::processes::tree(pid);
        for pid in tree {
            testkit::processes::kill(pid);
        }
        let _ = self.child.wait();
    }
}

/// Where a peer's program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let variable = format!("MAINSTAY_PEER_{}", program.to_uppercase());
    if let Some(given) = std::env::var_os(variable) {
        return Some(given.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn run_script(folder: &Path, harness: &Harness) {
    fs::create_dir_all(folder).unwrap();
    let script = folder.join("run");
    let child = harness.child();
    let text = format!(
        "#!/bin/sh\nexec {} {}\n",
        child.display(),
        harness.path().display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}

fn runit(program: &Path, harness: &Harness) -> Command {
    let folder = harness.folder().join("runit");
    run_script(&folder, harness);
    let mut command = Command::new(program);
    command.arg(folder);
    command
}

fn s6(program: &Path, harness: &Harness) -> Command {
    let folder = harness.folder().join("s6");
    run_script(&folder, harness);
    let mut command = Command::new(program);
    command.arg(folder);
    command
}

fn supervisord(program: &Path, harness: &Harness) -> Command {
    let folder = harness.folder();
    let file = folder.join("supervisord.conf");
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={}/supervisord.pid\n\
         [program:child]\ncommand={} {}\nautorestart=true\nstartretries=1000000\nstdout_logfile=NONE\nstderr_logfile=NONE\n",
        folder.display(),
        harness.child().display(),
        harness.path().display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.arg("-n").arg("-c").arg(file);
    command
}

/// Its daemon in the foreground, so that it is our child and ended by its number.
fn pm2(program: &Path, harness: &Harness) -> Command {
    let mut command = Command::new(program);
    command.args(["start", "--no-daemon", "--interpreter", "none"]);
    command.arg(harness.child()).arg("--").arg(harness.path());
    command.env("PM2_HOME", harness.folder().join("pm2"));
    // Nothing may leave the machine: neither the first start's report nor the daily one.
    command.env("PM2_DISCRETE_MODE", "true");
    command.env("PM2_DISABLE_VERSION_CHECK", "true");
    command
}
