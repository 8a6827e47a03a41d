//! `up`: builds what isn't built, starts what isn't running, and waits until a pod could run. It is
//! the same for a new cluster and for one of which a part was killed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::Kubectl;
use super::fake::Fleet;
use super::layout::{Layout, NODES};
use super::record::Cluster;
use super::{build, control_plane, health, missing, network, node, process, storage};
use crate::run::root;

/// What the kubelets set for the whole machine; `down` sets it back.
pub const TUNABLES: [&str; 6] = [
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/keys/root_maxbytes",
];

/// Starts a cluster, or what is missing of it.
pub fn up(layout: Layout, fleet: &Fleet) -> Result<()> {
    missing::for_up()?;
    build::build(&layout)?;
    let mut cluster = match Cluster::open(layout.clone())? {
        Some(cluster) if !cluster.record.is_of_this_boot() => bail!(
            "the cluster in {} went with the machine's last boot: call `cargo xtask cluster down` first",
            cluster.layout.state.display()
        ),
        Some(cluster) => cluster,
        None => {
            network::check_free()?;
            Cluster::create(layout)?
        }
    };
    if is_running(&cluster)? {
        eprintln!("the cluster is up already");
    } else {
        let started = Instant::now();
        start(&mut cluster)?;
        wait_until_ready(&cluster)?;
        eprintln!(
            "the cluster is ready after {:.1} s",
            started.elapsed().as_secs_f64()
        );
    }
    storage::offer(&cluster)?;
    fleet.start(&mut cluster)?;
    println!("{}", cluster.layout.kubeconfig().display());
    Ok(())
}

/// Starts every part that is not running, in the order in which they need each other.
pub fn start(cluster: &mut Cluster) -> Result<()> {
    note_tunables(cluster)?;
    network::bridge()?;
    links(&cluster.layout)?;
    control_plane::credentials(cluster)?;
    control_plane::start_api_server(cluster)?;
    // While the API server starts.
    for node in &NODES {
        node::start_machine(cluster, node)?;
        network::plug(node, true)?;
    }
    for node in &NODES {
        node::import_own(cluster, node)?;
    }
    control_plane::start_controllers(cluster)?;
    for node in &NODES {
        node::start_agents(cluster, node)?;
    }
    Ok(())
}

/// Waits for both nodes, for DNS, and for the account that every pod needs.
pub fn wait_until_ready(cluster: &Cluster) -> Result<()> {
    let kubectl = Kubectl::of(&cluster.layout);
    let dns = fs::read(root().join("testbed/coredns/manifest.json"))?;
    let dns: Value = serde_json::from_slice(&dns).context("failed to read CoreDNS's manifest")?;
    kubectl.give(&["apply", "--server-side", "--force-conflicts"], &dns)?;
    let limit = Duration::from_secs(90);
    for node in &NODES {
        process::wait(&format!("{} was not ready", node.name), limit, || {
            health::is_kubelet_well(node) && is_node_ready(&kubectl, node.name)
        })?;
    }
    process::wait("the default service account was not there", limit, || {
        kubectl.read(&["get", "serviceaccount", "default"]).is_ok()
    })?;
    let rollout = [
        "rollout",
        "status",
        "deployment/coredns",
        "--namespace=kube-system",
    ];
    process::wait("CoreDNS was not ready", limit, || {
        kubectl
            .read(&[&rollout[..], &["--timeout=10s"]].concat())
            .is_ok()
    })
}

/// What the API server thinks of a node, which may be a minute old.
pub fn is_node_ready(kubectl: &Kubectl, name: &str) -> bool {
    let ready = "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    kubectl
        .read(&["get", "node", name, ready])
        .is_ok_and(|status| status == "True")
}

/// Prints what a shell evaluates to use the cluster.
pub fn environment(layout: &Layout) -> Result<()> {
    if !layout.kubeconfig().exists() {
        bail!("no cluster is up (cargo xtask cluster up)");
    }
    println!("export KUBECONFIG={}", quoted(&layout.kubeconfig()));
    println!("export PATH={}:$PATH", quoted(&layout.state.join("bin")));
    Ok(())
}

/// Imports a person's image into every node.
pub fn load(layout: Layout, archive: &Path) -> Result<()> {
    let cluster = Cluster::open(layout)?.context("no cluster is up (cargo xtask cluster up)")?;
    let archive = fs::canonicalize(archive)
        .with_context(|| format!("failed to find {}", archive.display()))?;
    for node in &NODES {
        node::import(&cluster, node, &archive.to_string_lossy())?;
    }
    Ok(())
}

fn is_running(cluster: &Cluster) -> Result<bool> {
    let is_alive = |name: &str, node| cluster.record.alive(name, node).is_some();
    if !control_plane::ALL.iter().all(|name| is_alive(name, None)) {
        return Ok(false);
    }
    for node in &NODES {
        let of_node = node::ALL.iter().all(|name| is_alive(name, Some(node.name)));
        if !of_node || !network::is_plugged(node)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn note_tunables(cluster: &mut Cluster) -> Result<()> {
    if !cluster.record.tunables.is_empty() {
        return Ok(());
    }
    for path in TUNABLES.map(PathBuf::from) {
        if let Ok(value) = fs::read_to_string(&path) {
            cluster
                .record
                .tunables
                .insert(path, value.trim().to_owned());
        }
    }
    cluster.save()
}

/// A folder for a person's PATH.
fn links(layout: &Layout) -> Result<()> {
    let folder = layout.state.join("bin");
    fs::create_dir_all(&folder)?;
    for (name, program) in [("kubectl", "kubernetes"), ("helm", "helm")] {
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(layout.program(program), &link)
                .with_context(|| format!("failed to make {}", link.display()))?;
        }
    }
    Ok(())
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
