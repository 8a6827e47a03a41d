//! Ending whole process trees, double forks and new sessions included.
//!
//! A subreaper's descendants cannot leave it, so walking `/proc` from it finds everything; killing
//! is repeated until a walk finds nothing, because a tree may fork while it is being killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::process::{self, Identity, Stat};

/// Every process of this machine that runs or is a zombie.
#[must_use]
pub fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(process::stat)
        .collect()
}

/// The descendants of a process, itself left out, parents before children. Zombies are left out.
#[must_use]
pub fn descendants(root: u32) -> Vec<Stat> {
    let mut by_parent: BTreeMap<u32, Vec<Stat>> = BTreeMap::new();
    for stat in all() {
        by_parent.entry(stat.parent).or_default().push(stat);
    }
    let (mut found, mut next, mut seen) = (Vec::new(), vec![root], BTreeSet::new());
    while let Some(parent) = next.pop() {
        for stat in by_parent.remove(&parent).unwrap_or_default() {
            if seen.insert(stat.identity) {
                next.push(stat.identity.pid);
                if stat.state != 'Z' {
                    found.push(stat);
                }
            }
        }
    }
    found
}

/// Kills what `select` finds again and again until it finds nothing; calls `reap` between, so
/// that dead children don't linger. Returns whether nothing was left within the time.
pub fn kill_until_none(
    mut select: impl FnMut() -> Vec<Identity>,
    mut reap: impl FnMut(),
    timeout: Duration,
) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let left = select();
        if left.is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        for victim in left {
            process::signal_identity(victim, libc::SIGKILL);
        }
        reap();
        std::thread::sleep(Duration::from_micros(200));
        reap();
    }
}

/// Whether a process was started with exactly this variable. Unreadable counts as no.
#[must_use]
pub fn has_environment(pid: u32, entry: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| {
        bytes
            .split(|byte| *byte == 0)
            .any(|part| part == entry.as_bytes())
    })
}

/// Whether one of the variables a process was started with begins so (`NAME=value…`).
#[must_use]
pub fn has_environment_prefix(pid: u32, prefix: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| {
        bytes
            .split(|byte| *byte == 0)
            .any(|part| part.starts_with(prefix.as_bytes()))
    })
}
