//! Whether components are well, by what they say of themselves where they listen.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::client::Kubectl;
use super::layout::{NODES, Node};
use super::process::Tracked;
use super::record::Ports;
use super::{control_plane, documents, fake, node};

/// Asks a component that runs.
pub fn is_ready(process: &Tracked, ports: &Ports, kubectl: &Kubectl) -> bool {
    let of_node = || {
        NODES
            .iter()
            .find(|node| Some(node.name) == process.node.as_deref())
    };
    match process.name.as_str() {
        control_plane::ETCD => kubectl.is_healthy("/readyz/etcd"),
        control_plane::API_SERVER => kubectl.is_healthy("/readyz"),
        control_plane::CONTROLLER_MANAGER => kubectl.is_component_healthy(ports.controller_manager),
        control_plane::SCHEDULER => kubectl.is_component_healthy(ports.scheduler),
        fake::KWOK => is_well(&format!("127.0.0.1:{}", ports.kwok)),
        node::KUBELET => of_node().is_some_and(is_kubelet_well),
        node::PROXY => of_node().is_some_and(|node| {
            is_well(&format!("{}:{}", node.address(), documents::PROXY_HEALTH))
        }),
        // These have nothing to say beside being there; the kubelet says it of containerd.
        _ => true,
    }
}

/// What a kubelet says now; the API server knows what it said up to 50 s ago.
pub fn is_kubelet_well(node: &Node) -> bool {
    is_well(&format!("{}:{}", node.address(), documents::KUBELET_HEALTH))
}

/// Whether `GET /healthz` at an address answers with 200.
fn is_well(address: &str) -> bool {
    let limit = Duration::from_secs(2);
    let ask = || -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).ok()?;
        Some(answer)
    };
    ask().is_some_and(|answer| answer.ends_with(b" 200"))
}
