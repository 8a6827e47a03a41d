//! `down`: ends the cluster and removes all that it made. It starts from the record, so it works
//! just as well after an `up` that failed half-way, and again after a `down` that did.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::layout::Layout;
use super::process::Tracked;
use super::record::Cluster;
use super::{cgroup, network, node};

/// Ends a cluster, if there is one.
pub fn down(layout: Layout) -> Result<()> {
    let Some(cluster) = Cluster::open(layout)? else {
        eprintln!("no cluster is up");
        return Ok(());
    };
    end_processes(&cluster)?;
    network::remove()?;
    cgroup::remove()?;
    for (path, value) in &cluster.record.tunables {
        fs::write(path, value)
            .with_context(|| format!("failed to set {} back to {value}", path.display()))?;
    }
    remove_state(&cluster.layout)?;
    eprintln!("the cluster is gone");
    Ok(())
}

/// Kubelets go first, so that none starts anew what is ended after it; then the nodes, as by a power
/// cut, with every pod; then the control plane in the reverse order of its start, etcd last.
fn end_processes(cluster: &Cluster) -> Result<()> {
    let processes = &cluster.record.processes;
    let named = |name: &'static str| processes.iter().filter(move |known| known.name == name);
    for process in named(node::KUBELET).chain(named(node::INIT)) {
        process.kill()?;
    }
    let of_host: Vec<&Tracked> = processes
        .iter()
        .filter(|known| known.node.is_none())
        .collect();
    for process in of_host.iter().rev() {
        process.end(Duration::from_secs(5))?;
    }
    for process in processes {
        if process.is_alive() {
            bail!("{} (process {}) is still there", process.name, process.pid);
        }
    }
    Ok(())
}

/// Nothing may be mounted in there any more: what we'd remove would be somebody else's.
fn remove_state(layout: &Layout) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let state = layout.state.to_string_lossy();
    let is_inside = |point: &str| {
        point
            .strip_prefix(&*state)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    if let Some(point) = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .find(|point| is_inside(point))
    {
        bail!("{point} is still mounted");
    }
    fs::remove_dir_all(&layout.state).with_context(|| format!("failed to remove {state}"))
}
