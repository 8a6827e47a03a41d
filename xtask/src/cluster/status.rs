//! `status`: every component with its readiness as it says itself, then the nodes as the API server
//! knows them. A component that runs but isn't well is told apart from one that doesn't run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use super::client::Kubectl;
use super::layout::Layout;
use super::process::Tracked;
use super::record::Record;
use super::{fake, health};

/// More nodes than this are counted, not listed.
const LISTED: usize = 20;

/// Prints what is up: of our cluster, or of the one that KUBECONFIG names where ours isn't up.
pub fn status(layout: &Layout) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let Some(record) = Record::read(layout)? else {
        let Some(kubeconfig) = std::env::var_os("KUBECONFIG") else {
            return Ok(writeln!(out, "no cluster is up")?);
        };
        let kubectl = Kubectl::with(layout, PathBuf::from(kubeconfig));
        return nodes(&mut out, &kubectl);
    };
    let kubectl = Kubectl::of(layout);
    writeln!(
        out,
        "{:<9}{:<25}{:>9}{:>9}  STATE",
        "NODE", "COMPONENT", "PROCESS", "MEMORY"
    )?;
    for process in &record.processes {
        component(&mut out, process, &record, &kubectl)?;
    }
    writeln!(out)?;
    let answer = nodes(&mut out, &kubectl);
    writeln!(out, "\nKUBECONFIG={}", layout.kubeconfig().display())?;
    answer
}

fn component(
    out: &mut impl Write,
    process: &Tracked,
    record: &Record,
    kubectl: &Kubectl,
) -> Result<()> {
    let state = if !process.is_alive() {
        "ended"
    } else if health::is_ready(process, &record.ports, kubectl) {
        "ready"
    } else {
        "not ready"
    };
    writeln!(
        out,
        "{:<9}{:<25}{:>9}{:>6} MB  {state}",
        process.node.as_deref().unwrap_or("-"),
        process.name,
        process.pid,
        process.memory_bytes() / 1_000_000,
    )?;
    Ok(())
}

fn nodes(out: &mut impl Write, kubectl: &Kubectl) -> Result<()> {
    let list = kubectl.json(&["get", "nodes"])?;
    let empty = Vec::new();
    let all = list["items"].as_array().unwrap_or(&empty);
    let (fakes, real): (Vec<&Value>, Vec<&Value>) = all
        .iter()
        .partition(|node| node["metadata"]["labels"][fake::MARK] == "fake");
    writeln!(out, "{:<20}{:<7}{:<16}VERSION", "NODE", "READY", "ADDRESS")?;
    for node in real.iter().take(LISTED) {
        writeln!(
            out,
            "{:<20}{:<7}{:<16}{}",
            text(&node["metadata"]["name"]),
            ready(node),
            address(node),
            text(&node["status"]["nodeInfo"]["kubeletVersion"]),
        )?;
    }
    if real.len() > LISTED {
        writeln!(
            out,
            "and {} more, {} ready in all",
            real.len() - LISTED,
            count(&real)
        )?;
    }
    if !fakes.is_empty() {
        writeln!(out, "{} fake nodes, {} ready", fakes.len(), count(&fakes))?;
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
