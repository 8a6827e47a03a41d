//! `down`: ends the cluster and removes all that it made. It starts from the record, so it works
//! just as well after an `up` that failed half-way, and again after a `down` that did.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::layout::Layout;
use super::process::Tracked;
use super::record::Cluster;
use super::{cgroup, network, node, up};

/// Ends a cluster, if there is one.
pub fn down(layout: Layout) -> Result<()> {
    let Some(cluster) = Cluster::open(layout)? else {
        eprintln!("no cluster is up");
        return Ok(());
    };
    if !cluster.record.is_of_this_boot() {
        // Nothing of it outlived the machine's restart: what has these names today is another's.
        remove_state(&cluster.layout)?;
        eprintln!("the cluster went with the machine's last boot; its state is gone now, too");
        return Ok(());
    }
    end_processes(&cluster)?;
    network::remove()?;
    cgroup::remove()?;
    // Only these, whatever the record names: it is root who writes.
    for path in up::TUNABLES {
        if let Some(value) = cluster.record.tunables.get(Path::new(path)) {
            fs::write(path, value)
                .with_context(|| format!("failed to set {path} back to {value}"))?;
        }
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
    // The table has paths without links, and blanks as octal numbers.
    let state = fs::canonicalize(&layout.state)?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut points = points.map(|point| point.replace("\\040", " "));
    if let Some(point) = points.find(|point| Path::new(point).starts_with(&state)) {
        bail!("{point} is still mounted");
    }
    fs::remove_dir_all(&state).with_context(|| format!("failed to remove {}", state.display()))
}
