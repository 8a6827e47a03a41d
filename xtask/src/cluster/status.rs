//! `status`: every component with its readiness as it says itself, then the nodes as the API server
//! knows them. A component that runs but isn't well is told apart from one that doesn't run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::client::Kubectl;
use super::layout::{Layout, NODES};
use super::process::Tracked;
use super::record::Record;
use super::{control_plane, documents, fake, node};

/// More nodes than this are counted, not listed.
const LISTED: usize = 20;

/// Prints what is up: of our cluster, or of the one that KUBECONFIG names where ours isn't up.
pub fn status(layout: &Layout) -> Result<()> {
    let Some(record) = Record::read(layout)? else {
        let Some(kubeconfig) = std::env::var_os("KUBECONFIG") else {
            println!("no cluster is up");
            return Ok(());
        };
        return nodes(&Kubectl::with(layout, PathBuf::from(kubeconfig)));
    };
    let kubectl = Kubectl::of(layout);
    println!(
        "{:<9}{:<25}{:>9}{:>9}  STATE",
        "NODE", "COMPONENT", "PROCESS", "MEMORY"
    );
    for process in &record.processes {
        component(process, &record, &kubectl);
    }
    println!();
    let answer = nodes(&kubectl);
    println!("\nKUBECONFIG={}", layout.kubeconfig().display());
    answer
}

fn component(process: &Tracked, record: &Record, kubectl: &Kubectl) {
    let state = if !process.is_alive() {
        "ended"
    } else if is_ready(process, record, kubectl) {
        "ready"
    } else {
        "not ready"
    };
    println!(
        "{:<9}{:<25}{:>9}{:>6} MB  {state}",
        process.node.as_deref().unwrap_or("-"),
        process.name,
        process.pid,
        process.memory_bytes() / 1_000_000,
    );
}

fn is_ready(process: &Tracked, record: &Record, kubectl: &Kubectl) -> bool {
    let address = |port: u16| {
        let of = NODES
            .iter()
            .find(|node| Some(node.name) == process.node.as_deref());
        of.map(|node| format!("{}:{port}", node.address()))
    };
    match process.name.as_str() {
        control_plane::ETCD => kubectl.is_healthy("/readyz/etcd"),
        control_plane::API_SERVER => kubectl.is_healthy("/readyz"),
        control_plane::CONTROLLER_MANAGER => {
            kubectl.is_component_healthy(record.ports.controller_manager)
        }
        control_plane::SCHEDULER => kubectl.is_component_healthy(record.ports.scheduler),
        fake::KWOK => is_well(&format!("127.0.0.1:{}", record.ports.kwok)),
        node::KUBELET => address(documents::KUBELET_HEALTH).is_some_and(|at| is_well(&at)),
        node::PROXY => address(documents::PROXY_HEALTH).is_some_and(|at| is_well(&at)),
        // These have nothing to say beside being there; the kubelet says it of containerd.
        _ => true,
    }
}

/// Whether `GET /healthz` at an address answers with 200.
fn is_well(address: &str) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with(b" 200"))
}

fn nodes(kubectl: &Kubectl) -> Result<()> {
    let list = kubectl.json(&["get", "nodes"])?;
    let empty = Vec::new();
    let all = list["items"].as_array().unwrap_or(&empty);
    let (fakes, real): (Vec<&Value>, Vec<&Value>) = all
        .iter()
        .partition(|node| node["metadata"]["labels"][fake::MARK] == "fake");
    println!("{:<20}{:<7}{:<16}VERSION", "NODE", "READY", "ADDRESS");
    for node in real.iter().take(LISTED) {
        println!(
            "{:<20}{:<7}{:<16}{}",
            text(&node["metadata"]["name"]),
            ready(node),
            address(node),
            text(&node["status"]["nodeInfo"]["kubeletVersion"]),
        );
    }
    if real.len() > LISTED {
        println!(
            "and {} more, {} ready in all",
            real.len() - LISTED,
            count(&real)
        );
    }
    if !fakes.is_empty() {
        println!("{} fake nodes, {} ready", fakes.len(), count(&fakes));
    }
    Ok(())
}

fn count(nodes: &[&Value]) -> usize {
    nodes.iter().filter(|node| ready(node) == "True").count()
}

fn ready(node: &Value) -> &str {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    ready.map_or("-", |condition| text(&condition["status"]))
}

fn address(node: &Value) -> &str {
    let addresses = node["status"]["addresses"].as_array();
    let own = addresses.and_then(|all| all.iter().find(|one| one["type"] == "InternalIP"));
    own.map_or("-", |address| text(&address["address"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
