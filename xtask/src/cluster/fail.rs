//! `fail`: what happens to machines, done to a node or the control plane on purpose. `up` mends all
//! of it.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::layout::{Layout, NODES, Node};
use super::record::Cluster;
use super::{control_plane, network, node};

/// What is lost.
#[derive(Clone, Copy, ValueEnum)]
pub enum Loss {
    /// Every process of the node at once, pods too. Its disk stays.
    Power,
    /// The node's cable: all goes on running there, and nobody hears of it.
    Cable,
    /// The kubelet only: pods go on, and nobody looks after them.
    Kubelet,
    /// containerd only, which holds no pod either.
    Containerd,
    /// The API server, of the control plane: whatever runs goes on, and nothing can be changed.
    ApiServer,
}

/// The name of what isn't a node.
const CONTROL_PLANE: &str = "control-plane";

/// Does it to a node of our cluster.
pub fn fail(layout: Layout, name: &str, loss: Loss) -> Result<()> {
    let cluster = Cluster::open(layout)?.context("no cluster is up (cargo xtask cluster up)")?;
    if name == CONTROL_PLANE {
        let Loss::ApiServer = loss else {
            bail!("of {CONTROL_PLANE} only the API server can be lost (--loss api-server)");
        };
        return kill_on(&cluster, None, control_plane::API_SERVER);
    }
    let node = NODES
        .iter()
        .find(|node| node.name == name)
        .with_context(|| format!("{name} is no node of ours"))?;
    match loss {
        Loss::ApiServer => bail!("the API server is lost with `fail {CONTROL_PLANE}`"),
        Loss::Power => kill(&cluster, node, node::INIT),
        Loss::Cable => network::plug(node, false),
        Loss::Kubelet => kill(&cluster, node, node::KUBELET),
        Loss::Containerd => kill(&cluster, node, node::CONTAINERD),
    }
}

/// Kills a process of a node; it must have been running.
pub fn kill(cluster: &Cluster, node: &Node, process: &str) -> Result<()> {
    kill_on(cluster, Some(node.name), process)
}

fn kill_on(cluster: &Cluster, node: Option<&str>, process: &str) -> Result<()> {
    let running = cluster.record.alive(process, node);
    let place = node.unwrap_or(CONTROL_PLANE);
    running
        .with_context(|| format!("{process} isn't running on {place}"))?
        .kill()
}
