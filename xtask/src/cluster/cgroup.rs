//! A cgroup for each node in every hierarchy of the host, below which its kubelet keeps its pods:
//! the kubelet wants its root to be there, and two kubelets must not share one. Version 1 and 2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::{CGROUP, Node};
use super::process::wait;

/// Makes a node's cgroups.
pub fn make(node: &Node) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut folder = hierarchy;
        for part in node.cgroup().trim_start_matches('/').split('/') {
            delegate(&folder);
            folder.push(part);
            fs::create_dir_all(&folder)
                .with_context(|| format!("failed to make {}", folder.display()))?;
            fill_cpuset(&folder)?;
        }
    }
    Ok(())
}

/// Removes all nodes' cgroups, once their processes are gone.
pub fn remove() -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(CGROUP);
        let mut last = None;
        wait(
            &format!("{} can't be removed", folder.display()),
            Duration::from_secs(10),
            || match remove_tree(&folder) {
                Ok(()) => true,
                Err(error) => {
                    last = Some(error);
                    false
                }
            },
        )
        .with_context(|| format!("{last:?}"))?;
    }
    Ok(())
}

/// Version 2: children have a controller only where the parent says so. What isn't there to be
/// delegated can't be, and the kubelet complains of what it misses.
fn delegate(folder: &Path) {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(
            folder.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

/// Version 1: a new cpuset has no processors and takes no process until it's told.
fn fill_cpuset(folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (own, parent) = (folder.join(file), folder.join("..").join(file));
        if own.exists() && parent.exists() && !folder.join("cgroup.controllers").exists() {
            fs::write(&own, fs::read(parent)?)
                .with_context(|| format!("failed to write {}", own.display()))?;
        }
    }
    Ok(())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let lines = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(lines
        .filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")))
        .map(|fields| PathBuf::from(fields[1]))
        .collect())
}

/// Children first; a cgroup's files go with it.
fn remove_tree(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
