//! The cluster's processes, by id and start time: an id alone may have become somebody else's.
//! Also running short commands quietly, and waiting for a condition with a limit.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

const POLL: Duration = Duration::from_millis(20);

/// A process that is ours.
#[derive(Clone, Serialize, Deserialize)]
pub struct Tracked {
    pub name: String,
    /// The node that it belongs to; none for the control plane.
    pub node: Option<String>,
    pub pid: i32,
    /// In ticks since boot, as /proc says it.
    started_ticks: u64,
}

impl Tracked {
    /// Notes a process that was just started.
    pub fn new(name: &str, node: Option<&str>, pid: i32) -> Result<Self> {
        let stat = Stat::of(pid).with_context(|| format!("{name} ended as soon as it started"))?;
        Ok(Self {
            name: name.to_owned(),
            node: node.map(str::to_owned),
            pid,
            started_ticks: stat.started_ticks,
        })
    }

    pub fn is_alive(&self) -> bool {
        Stat::of(self.pid)
            .is_some_and(|stat| stat.started_ticks == self.started_ticks && !stat.is_zombie)
    }

    /// Resident memory of this process alone, without its children.
    pub fn memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    }

    /// Asks it to end, and ends it when it hasn't after `patience`.
    pub fn end(&self, patience: Duration) -> Result<()> {
        self.send(Signal::TERM)?;
        if !within(patience, || !self.is_alive()) {
            self.kill()?;
        }
        Ok(())
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) -> Result<()> {
        self.send(Signal::KILL)?;
        if !within(Duration::from_secs(10), || !self.is_alive()) {
            bail!("{} (process {}) can't be killed", self.name, self.pid);
        }
        Ok(())
    }

    fn send(&self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        // The descriptor keeps meaning the same process; only then is the start time compared.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        if self.is_alive() {
            // It may have ended by itself in this moment, which is as good.
            let _ = pidfd_send_signal(descriptor, signal);
        }
        Ok(())
    }
}

struct Stat {
    is_zombie: bool,
    parent: i32,
    started_ticks: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name stands in parentheses and may contain anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            is_zombie: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Starts a process that outlives us, with its output in a file.
pub fn start(command: &mut Command, log: &Path) -> Result<i32> {
    let output = File::options().create(true).append(true).open(log);
    let output = output.with_context(|| format!("failed to open {}", log.display()))?;
    let child = plain(command)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Whoever interrupts the command in a terminal doesn't mean the cluster.
        .process_group(0)
        .spawn()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    i32::try_from(child.id()).context("failed to read the process id")
}

/// The one child of a process that forks and waits, as nsenter and unshare do.
pub fn child_of(parent: i32) -> Option<i32> {
    let find = || {
        let entries = fs::read_dir("/proc").ok()?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut children = pids.filter(|pid| Stat::of(*pid).is_some_and(|s| s.parent == parent));
        children.next()
    };
    let is_running = || Stat::of(parent).is_some_and(|stat| !stat.is_zombie);
    within(Duration::from_secs(5), || find().is_some() || !is_running());
    find()
}

/// Runs a short command and returns its output; what it complains about is in the error.
pub fn quiet(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = plain(command)
        .output()
        .with_context(|| format!("failed to start {name}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}", complaint.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name}: output is no text"))
}

/// Without our environment: a proxy or a KUBECONFIG set here must not change the cluster.
pub fn plain(command: &mut Command) -> &mut Command {
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
    command.env_clear().env("HOME", home).env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )
}

/// Waits until a condition holds; an error says what was waited for.
pub fn wait(what: &str, limit: Duration, holds: impl FnMut() -> bool) -> Result<()> {
    if within(limit, holds) {
        return Ok(());
    }
    bail!("{what} within {} s", limit.as_secs())
}

/// Asks again after twice the time that asking took, so that most of the processor is left for what
/// is waited for.
fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        if holds() {
            return true;
        }
        if started.elapsed() > limit {
            return false;
        }
        sleep(POLL.max(asked.elapsed() * 2));
    }
}
