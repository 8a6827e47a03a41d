//! `smoke`: whether a cluster does what tests will take for granted. Pods start on every node, talk
//! across nodes and by a service's name, and give logs; a Deployment leaves a node whose kubelet is
//! killed. What it makes lies in one namespace, which is left for a look when something fails.

mod objects;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::build::image_name;
use super::client::Kubectl;
use super::layout::{Layout, NODES};
use super::process::wait;
use super::record::Cluster;
use super::{build, fail, node, up};
use objects::{mover, pod, pod_name, service};

const NAMESPACE: &str = "mainstay-smoke";
const IN_NAMESPACE: &str = "--namespace=mainstay-smoke";
/// The controller manager gives a node up 50 s after its last sign of life; the rest is slack.
const UNTIL_MOVED: Duration = Duration::from_secs(150);

/// Tries our cluster, or the one that KUBECONFIG names where ours isn't up.
pub fn smoke(layout: &Layout, image: Option<String>) -> Result<()> {
    if let Some(mut cluster) = Cluster::open(layout.clone())? {
        let kubectl = Kubectl::of(layout);
        let image = image.unwrap_or_else(|| image_name("probe"));
        let nodes = NODES.map(|node| node.name.to_owned());
        pods(&kubectl, &nodes, &image)?;
        lost_kubelet(&mut cluster, &kubectl, &image)?;
        return remove(&kubectl);
    }
    let (Some(kubeconfig), Some(image)) = (std::env::var_os("KUBECONFIG"), image) else {
        bail!(
            "no cluster is up (cargo xtask cluster up); to try another, set KUBECONFIG and name \
             with --image where it can pull the image of testbed/probe"
        );
    };
    build::build(layout)?;
    let kubectl = Kubectl::with(layout, PathBuf::from(kubeconfig));
    pods(&kubectl, &ready_nodes(&kubectl)?, &image)?;
    eprintln!("left out: a lost kubelet, because the cluster isn't ours to break");
    remove(&kubectl)
}

fn pods(kubectl: &Kubectl, nodes: &[String], image: &str) -> Result<()> {
    remove(kubectl)?;
    kubectl.read(&["create", "namespace", NAMESPACE])?;
    let started = Instant::now();
    for node in nodes {
        apply(kubectl, &pod(node, image))?;
    }
    apply(kubectl, &service())?;
    let ready = ["wait", "pod", "--all", "--for=condition=Ready"];
    let patience = ["--timeout=60s", "--request-timeout=0", IN_NAMESPACE];
    kubectl.read(&[&ready[..], &patience].concat())?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{} pods ready after {seconds:.1} s", nodes.len());
    talk(kubectl, nodes)?;
    eprintln!("pods reach each other by address and by the service's name; exec and logs work");
    Ok(())
}

/// The first node's pod asks each by its address, then any by the service's name.
fn talk(kubectl: &Kubectl, nodes: &[String]) -> Result<()> {
    let first = nodes.first().context("no node is ready")?;
    for node in nodes {
        let url = format!("http://{}:8080/", address(kubectl, node)?);
        let answer = ask(kubectl, first, &url)?;
        ensure!(
            answer.trim() == pod_name(node),
            "the pod of {node} answered {answer:?}"
        );
        let log = kubectl.read(&["logs", &pod_name(node), IN_NAMESPACE])?;
        ensure!(
            log.contains("serves on"),
            "the pod of {node} logged {log:?}"
        );
    }
    let by_name = format!("http://probe.{NAMESPACE}.svc.cluster.local/");
    let limit = Duration::from_secs(20);
    wait(&format!("{by_name} did not answer"), limit, || {
        let answer = ask(kubectl, first, &by_name).unwrap_or_default();
        nodes.iter().any(|node| answer.trim() == pod_name(node))
    })
}

/// Kills the second node's kubelet and waits for the pod on the first; then starts it again.
fn lost_kubelet(cluster: &mut Cluster, kubectl: &Kubectl, image: &str) -> Result<()> {
    let [first, second] = &NODES;
    apply(kubectl, &mover(second.name, image))?;
    wait(
        "the Deployment did not start where it should",
        Duration::from_secs(60),
        || is_ready_on(kubectl, second.name),
    )?;
    fail::kill(cluster, second, node::KUBELET)?;
    let started = Instant::now();
    let moved = wait("the Deployment did not move", UNTIL_MOVED, || {
        is_ready_on(kubectl, first.name)
    });
    up::start(cluster)?;
    moved?;
    eprintln!(
        "a Deployment was ready elsewhere {:.1} s after its kubelet was killed",
        started.elapsed().as_secs_f64()
    );
    wait(
        "the second node did not come back",
        Duration::from_secs(60),
        || up::is_node_ready(kubectl, second.name),
    )
}

fn is_ready_on(kubectl: &Kubectl, node: &str) -> bool {
    let on_node = format!("--field-selector=spec.nodeName={node}");
    let ready = "--output=jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    kubectl
        .read(&[
            "get",
            "pods",
            "--selector=app=mover",
            &on_node,
            ready,
            IN_NAMESPACE,
        ])
        .is_ok_and(|text| text.contains("True"))
}

/// Those that take any pod: not the nodes of a control plane, nor KWOK's.
fn ready_nodes(kubectl: &Kubectl) -> Result<Vec<String>> {
    let list = kubectl.json(&["get", "nodes"])?;
    let nodes = list["items"]
        .as_array()
        .context("kubectl listed no nodes")?;
    Ok(nodes
        .iter()
        .filter(|node| node["spec"]["taints"].is_null())
        .filter_map(|node| node["metadata"]["name"].as_str())
        .filter(|name| up::is_node_ready(kubectl, name))
        .map(str::to_owned)
        .collect())
}

fn address(kubectl: &Kubectl, node: &str) -> Result<String> {
    let address = "--output=jsonpath={.status.podIP}";
    kubectl.read(&["get", "pod", &pod_name(node), address, IN_NAMESPACE])
}

fn ask(kubectl: &Kubectl, from: &str, url: &str) -> Result<String> {
    kubectl.read(&[
        "exec",
        &pod_name(from),
        IN_NAMESPACE,
        "--",
        "/probe",
        "get",
        url,
    ])
}

fn apply(kubectl: &Kubectl, document: &Value) -> Result<()> {
    kubectl.give(&["apply", "--server-side", IN_NAMESPACE], document)
}

/// Removes the namespace and waits until it's gone.
fn remove(kubectl: &Kubectl) -> Result<()> {
    let wait = [
        "--ignore-not-found",
        "--timeout=120s",
        "--request-timeout=0",
    ];
    kubectl.read(&[&["delete", "namespace", NAMESPACE], &wait[..]].concat())?;
    Ok(())
}
