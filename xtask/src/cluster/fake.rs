//! Fake nodes: objects in the API that KWOK keeps alive, and whose pods it calls running. They have
//! whatever resources are asked for, and a taint, so that only pods that tolerate it land there.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::client::Kubectl;
use super::layout::{FAKE_PODS, HOST};
use super::process::wait;
use super::record::Cluster;

/// The process, and the label and taint of its nodes.
pub const KWOK: &str = "kwok";
/// Also the annotation that KWOK's own documentation uses.
pub const MARK: &str = "kwok.x-k8s.io/node";
/// Applied at a time; one request for thousands would be refused.
const BATCH: u32 = 500;

/// The fake nodes that are wanted.
pub struct Fleet {
    nodes: u32,
    resources: Map<String, Value>,
}

impl Fleet {
    /// From the command line: a number and NAME=AMOUNT.
    pub fn new(nodes: u32, resources: &[String]) -> Result<Self> {
        let mut map = Map::new();
        for (name, amount) in [("cpu", "64"), ("memory", "256Gi"), ("pods", "250")] {
            map.insert(name.to_owned(), amount.into());
        }
        for resource in resources {
            let (name, amount) = resource
                .split_once('=')
                .with_context(|| format!("{resource} is not NAME=AMOUNT"))?;
            map.insert(name.to_owned(), amount.into());
        }
        Ok(Self {
            nodes,
            resources: map,
        })
    }

    /// Starts KWOK unless it runs, makes the nodes that aren't there, and waits for them.
    pub fn start(&self, cluster: &mut Cluster) -> Result<()> {
        if self.nodes == 0 {
            return Ok(());
        }
        let started = Instant::now();
        let mut kwok = kwok(cluster);
        cluster.ensure(KWOK, &mut kwok)?;
        let kubectl = Kubectl::of(&cluster.layout);
        for first in (0..self.nodes).step_by(BATCH as usize) {
            let batch = first..(first + BATCH).min(self.nodes);
            let items: Vec<Value> = batch.map(|number| self.node(number)).collect();
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
            kubectl.give(&["apply", "--server-side", "--force-conflicts"], &list)?;
        }
        wait(
            "the fake nodes were not ready",
            Duration::from_secs(120),
            || ready(&kubectl).is_ok_and(|ready| ready >= self.nodes as usize),
        )?;
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{} fake nodes are ready after {seconds:.1} s", self.nodes);
        Ok(())
    }

    fn node(&self, number: u32) -> Value {
        let name = format!("fake-{number}");
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": { MARK: "fake", "node.alpha.kubernetes.io/ttl": "0" },
                "labels": { MARK: "fake", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
            },
            "spec": { "taints": [{ "key": MARK, "value": "fake", "effect": "NoSchedule" }] },
            "status": { "allocatable": self.resources, "capacity": self.resources },
        })
    }
}

/// How many fake nodes say that they are ready.
fn ready(kubectl: &Kubectl) -> Result<usize> {
    let selector = format!("--selector={MARK}=fake");
    let status = "--output=jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    let text = kubectl.read(&["get", "nodes", &selector, status])?;
    Ok(text
        .split_whitespace()
        .filter(|word| *word == "True")
        .count())
}

fn kwok(cluster: &Cluster) -> Command {
    let layout = &cluster.layout;
    let mut command = Command::new(layout.program(KWOK));
    command
        .arg(format!("--kubeconfig={}", layout.kubeconfig().display()))
        .arg(format!(
            "--config={}",
            layout.program("kwok-stages.yaml").display()
        ))
        .arg("--manage-all-nodes=false")
        .arg(format!(
            "--manage-nodes-with-annotation-selector={MARK}=fake"
        ))
        .arg(format!("--cidr={FAKE_PODS}"))
        .arg(format!("--node-ip={HOST}"))
        .arg(format!(
            "--server-address=127.0.0.1:{}",
            cluster.record.ports.kwok
        ))
        .arg("--node-lease-duration-seconds=40");
    command
}
