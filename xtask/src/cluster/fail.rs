//! `fail`: what happens to machines, done to a node on purpose. `up` mends all of it.

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::layout::{Layout, NODES, Node};
use super::record::Cluster;
use super::{network, node};

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
}

/// Does it to a node of our cluster.
pub fn fail(layout: Layout, name: &str, loss: Loss) -> Result<()> {
    let cluster = Cluster::open(layout)?.context("no cluster is up (cargo xtask cluster up)")?;
    let node = NODES
        .iter()
        .find(|node| node.name == name)
        .with_context(|| format!("{name} is no node of ours"))?;
    match loss {
        Loss::Power => kill(&cluster, node, node::INIT),
        Loss::Cable => network::plug(node, false),
        Loss::Kubelet => kill(&cluster, node, node::KUBELET),
        Loss::Containerd => kill(&cluster, node, node::CONTAINERD),
    }
}

/// Kills a process of a node; it must have been running.
pub fn kill(cluster: &Cluster, node: &Node, process: &str) -> Result<()> {
    let running = cluster.record.alive(process, Some(node.name));
    running
        .with_context(|| format!("{process} isn't running on {}", node.name))?
        .kill()
}
