//! A node: a process tree in namespaces of its own, whose first process does nothing but hold them
//! and take in orphans. When that is killed, the kernel ends every process of the node and drops
//! its network and its mounts: that is how a node loses its power, and how `down` ends one.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::build::{IMAGES, image_name};
use super::layout::{Layout, Node};
use super::process::{Tracked, child_of, quiet, start, wait};
use super::record::Cluster;
use super::{cgroup, documents, network};

/// The names of a node's processes, as `status` shows them.
pub const INIT: &str = "node";
pub const CONTAINERD: &str = "containerd";
pub const KUBELET: &str = "kubelet";
pub const PROXY: &str = "kube-proxy";
pub const ALL: [&str; 4] = [INIT, CONTAINERD, KUBELET, PROXY];

/// `/proc` for its processes, `/run`, `/var/lib` and `/var/log` of its own, and forwarding between
/// its pods. It never ends by itself; dash's `wait` takes in every orphan.
const INIT_SCRIPT: &str = "
    set -e
    mount --make-rshared /
    mount -t proc proc /proc
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock
    mount --bind \"$1/lib\" /var/lib
    mount --bind \"$1/log\" /var/log
    hostname \"$2\"
    ip link set lo up
    echo 1 > /proc/sys/net/ipv4/ip_forward
    touch /run/is-up
    while :; do sleep 86400 & wait $!; done
";

/// Starts the node's namespaces and its containerd, unless they are there.
pub fn start_machine(cluster: &mut Cluster, node: &Node) -> Result<()> {
    if cluster.record.alive(INIT, Some(node.name)).is_none() {
        prepare(&cluster.layout, node)?;
        cgroup::make(node)?;
        let folder = cluster.layout.of_node(node);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--uts", "--net", "--ipc", "--pid", "--fork"])
            .args(["--kill-child", "--", "sh", "-c", INIT_SCRIPT, INIT])
            .arg(&folder)
            .arg(node.name);
        let init = start_within(cluster, node, INIT, &mut command)?;
        let run = format!("/proc/{init}/root/run/is-up");
        wait(
            "a node's namespaces were not ready",
            Duration::from_secs(10),
            || fs::exists(&run).unwrap_or(false),
        )?;
        network::connect(node, init)?;
    }
    let configuration = cluster.layout.of_node(node).join("containerd.toml");
    ensure(cluster, node, CONTAINERD, |inside| {
        inside.args(["containerd", "--config"]).arg(&configuration);
    })
}

/// Imports the images that the testbed itself needs.
pub fn import_own(cluster: &Cluster, node: &Node) -> Result<()> {
    let mut known = String::new();
    wait(
        "containerd did not answer",
        Duration::from_secs(20),
        || match images(cluster, node) {
            Ok(list) => {
                known = list;
                true
            }
            Err(_) => false,
        },
    )
    .with_context(|| format!("see {}", log_name(&cluster.layout, node, CONTAINERD)))?;
    for name in IMAGES {
        if !known.lines().any(|line| line == image_name(name)) {
            let archive = cluster.layout.image(name);
            import(cluster, node, &archive.to_string_lossy())?;
        }
    }
    Ok(())
}

/// The names of the images that a node has, a line each.
pub fn images(cluster: &Cluster, node: &Node) -> Result<String> {
    ctr(cluster, node, &["images", "list", "--quiet"])
}

/// Imports an archive.
pub fn import(cluster: &Cluster, node: &Node, archive: &str) -> Result<()> {
    ctr(cluster, node, &["images", "import", archive])
        .map(drop)
        .with_context(|| format!("failed to import {archive} into {}", node.name))
}

/// Starts kubelet and kube-proxy, which need the API server.
pub fn start_agents(cluster: &mut Cluster, node: &Node) -> Result<()> {
    let layout = cluster.layout.clone();
    let folder = layout.of_node(node);
    ensure(cluster, node, KUBELET, |inside| {
        inside
            .arg(layout.program("kubernetes"))
            .args([KUBELET, "--node-ip", &node.address()])
            .args(["--hostname-override", node.name, "--config"])
            .arg(folder.join("kubelet.json"))
            .arg("--kubeconfig")
            .arg(layout.credential(&format!("{}.kubeconfig", node.name)));
    })?;
    ensure(cluster, node, PROXY, |inside| {
        inside
            .arg(layout.program("kubernetes"))
            .args([PROXY, "--config"])
            .arg(folder.join("kube-proxy.json"));
    })
}

fn prepare(layout: &Layout, node: &Node) -> Result<()> {
    let folder = layout.of_node(node);
    for name in ["cni", "lib", "log", "volume-plugins"] {
        fs::create_dir_all(folder.join(name))
            .with_context(|| format!("failed to make {}", folder.display()))?;
    }
    let write = |name: &str, document: &Value| -> Result<()> {
        Ok(fs::write(
            folder.join(name),
            serde_json::to_vec_pretty(document)?,
        )?)
    };
    write("kubelet.json", &documents::kubelet(layout, node))?;
    write("kube-proxy.json", &documents::proxy(layout, node))?;
    write("cni/pods.conflist", &documents::network(node))?;
    fs::write(
        folder.join("containerd.toml"),
        documents::containerd(layout, node),
    )?;
    fs::write(folder.join("resolv.conf"), "")?;
    Ok(())
}

/// Starts a program inside of the node unless it runs.
fn ensure(
    cluster: &mut Cluster,
    node: &Node,
    name: &str,
    fill: impl FnOnce(&mut Command),
) -> Result<()> {
    if cluster.record.alive(name, Some(node.name)).is_some() {
        return Ok(());
    }
    let mut command = enter(cluster, node)?;
    fill(&mut command);
    start_within(cluster, node, name, &mut command).map(drop)
}

/// Starts what forks once, and notes the child: that is the one in the node.
fn start_within(
    cluster: &mut Cluster,
    node: &Node,
    name: &str,
    command: &mut Command,
) -> Result<i32> {
    let parent = start(command, &cluster.layout.log(Some(node.name), name))?;
    let child = child_of(parent).with_context(|| {
        let log = log_name(&cluster.layout, node, name);
        format!("{name} of {} did not start; see {log}", node.name)
    })?;
    cluster.track(Tracked::new(name, Some(node.name), child)?)?;
    Ok(child)
}

/// A command that runs inside of the node's namespaces.
fn enter(cluster: &Cluster, node: &Node) -> Result<Command> {
    let init = cluster
        .record
        .alive(INIT, Some(node.name))
        .with_context(|| format!("{} is not running", node.name))?;
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", init.pid))
        .args(["--mount", "--uts", "--net", "--ipc", "--pid", "--"]);
    Ok(command)
}

fn ctr(cluster: &Cluster, node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = enter(cluster, node)?;
    command
        .args([
            "ctr",
            "--address",
            documents::CONTAINERD,
            "--namespace",
            "k8s.io",
        ])
        .args(arguments);
    quiet(&mut command)
}

fn log_name(layout: &Layout, node: &Node, name: &str) -> String {
    layout.log(Some(node.name), name).display().to_string()
}
