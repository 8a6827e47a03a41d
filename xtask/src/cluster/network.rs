//! The cables: one bridge on the host, and from it one cable into each node's network. The host
//! gets routes to pods and services and nothing else: no rule, no forwarding, no masquerading, so a
//! pod can reach pods, services, nodes and the API server, and nothing outside of the machine.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::layout::{BRIDGE, HOST, NODES, Node, SERVICES};
use super::process::quiet;

/// Fails where the range is taken already.
pub fn check_free() -> Result<()> {
    let addresses = ip(&["-oneline", "-4", "address"])?;
    if addresses.contains(" 198.18.") || addresses.contains(" 198.19.") || is_up() {
        bail!(
            "an address of 198.18.0.0/15 or the bridge {BRIDGE} is in use: a cluster with another \
             --state is up, or was never taken down"
        );
    }
    Ok(())
}

/// Makes the bridge unless it's there.
pub fn bridge() -> Result<()> {
    if is_up() {
        return Ok(());
    }
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["address", "add", &format!("{HOST}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    Ok(())
}

/// Connects a node whose first process is `init`.
pub fn connect(node: &Node, init: i32) -> Result<()> {
    let (cable, pid) = (node.cable(), init.to_string());
    let (address, pods) = (node.address(), node.pods());
    unplug_for_good(node);
    ip(&[
        "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &pid,
    ])
    .with_context(|| format!("failed to make the cable of {}", node.name))?;
    ip(&["link", "set", &cable, "master", BRIDGE, "up"])?;
    let inside = |arguments: &[&str]| {
        let enter = ["--target", &pid, "--net", "--", "ip"];
        quiet(Command::new("nsenter").args(enter).args(arguments))
    };
    inside(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    for other in NODES.iter().filter(|other| other.name != node.name) {
        inside(&["route", "add", &other.pods(), "via", &other.address()])?;
    }
    // The node's own processes reach services too: kube-proxy rewrites what has a route.
    inside(&["route", "add", SERVICES, "dev", "eth0", "src", &address])?;
    ip(&["route", "replace", &pods, "via", &address])?;
    // The host reaches services by the first node, as long as that runs.
    if node.name == NODES[0].name {
        ip(&["route", "replace", SERVICES, "via", &address])?;
    }
    Ok(())
}

/// Plugs a node's cable in, or pulls it.
pub fn plug(node: &Node, is_in: bool) -> Result<()> {
    let state = if is_in { "up" } else { "down" };
    ip(&["link", "set", &node.cable(), state]).map(drop)
}

/// Whether a node's cable is there and plugged in.
pub fn is_plugged(node: &Node) -> Result<bool> {
    let up = ip(&["-brief", "link", "show", "up"])?;
    Ok(up
        .lines()
        .any(|line| line.starts_with(&format!("{}@", node.cable()))))
}

/// Removes cables and bridge, and with it the routes.
pub fn remove() -> Result<()> {
    for node in &NODES {
        unplug_for_good(node);
    }
    if is_up() {
        ip(&["link", "delete", BRIDGE])?;
    }
    Ok(())
}

/// The kernel removes the cable of an ended node too, but in its own time.
fn unplug_for_good(node: &Node) {
    let cable = node.cable();
    if ip(&["link", "show", &cable]).is_ok() {
        // So it may be gone by now.
        let _ = ip(&["link", "delete", &cable]);
    }
}

fn is_up() -> bool {
    ip(&["link", "show", BRIDGE]).is_ok()
}

fn ip(arguments: &[&str]) -> Result<String> {
    quiet(Command::new("ip").args(arguments))
}
