//! Finding the processes of one fleet, and killing one of them. Agents are known by a variable
//! that the fleet's manifests give them, so nothing of another test is ever touched.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// A running agent process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentProcess {
    pub pid: i32,
    /// `MAINSTAY_TASK_ID`, for an `exec` process.
    pub task: Option<String>,
    /// `MAINSTAY_INSTANCE`.
    pub instance: String,
}

/// The variable whose value names the fleet.
pub const MARK: &str = "TESTKIT_FLEET";

/// All agent processes that carry this mark and have no parent that does.
#[must_use]
pub fn agents(mark: &str) -> Vec<AgentProcess> {
    let marked: Vec<_> = all().filter_map(|pid| read(pid, mark)).collect();
    let is_child = |pid: i32| {
        let parent = parent_of(pid);
        marked.iter().any(|other| Some(other.pid) == parent)
    };
    let tops = marked.iter().filter(|process| !is_child(process.pid));
    tops.cloned().collect()
}

/// The ids of all processes of this machine.
pub fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn read(pid: i32, mark: &str) -> Option<AgentProcess> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables: Vec<_> = environment
        .split(|byte| *byte == 0)
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once('='))
        .collect();
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    if value(MARK)? != mark {
        return None;
    }
    Some(AgentProcess {
        pid,
        task: value("MAINSTAY_TASK_ID"),
        instance: value("MAINSTAY_INSTANCE").unwrap_or_default(),
    })
}

/// A process's parent.
#[must_use]
pub fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Whether a process of that number runs and is no zombie.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Whether a process runs the program under test (a keeper, hub or shim of it).
#[must_use]
pub fn is_ours(pid: i32) -> bool {
    let running = fs::read_link(format!("/proc/{pid}/exe"));
    let program = fs::canonicalize(crate::cli::program());
    matches!((running, program), (Ok(running), Ok(program)) if running == program)
}

/// Processes of the program under test whose command line names this path: keepers and shims.
#[must_use]
pub fn ours_on(path: &std::path::Path) -> Vec<i32> {
    let path = path.to_string_lossy().into_owned();
    let names = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&path)
    };
    all().filter(|pid| names(*pid) && is_ours(*pid)).collect()
}

/// SIGKILL. Returns whether there was such a process.
pub fn kill(pid: i32) -> bool {
    signal(pid, Signal::KILL)
}

/// SIGTERM. Returns whether there was such a process.
pub fn terminate(pid: i32) -> bool {
    signal(pid, Signal::TERM)
}

fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// The proportional share of memory that a process holds, in KiB.
#[must_use]
pub fn pss_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The processes below one, itself included.
#[must_use]
pub fn tree(root: i32) -> Vec<i32> {
    let parents: Vec<_> = all()
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    found
}
