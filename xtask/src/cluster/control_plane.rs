//! The control plane: etcd, the API server, the controller manager and the scheduler, as processes
//! of the host. The API server listens on the bridge only, the others on 127.0.0.1 only.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::client::Kubectl;
use super::layout::{API_SERVICE, HOST, Layout, NODES, SERVICES};
use super::process::{quiet, wait};
use super::record::Cluster;

/// In the order of their start.
pub const ETCD: &str = "etcd";
pub const API_SERVER: &str = "kube-apiserver";
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub const SCHEDULER: &str = "kube-scheduler";
pub const ALL: [&str; 4] = [ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER];

/// Certificates and kubeconfigs, once per cluster.
pub fn credentials(cluster: &Cluster) -> Result<()> {
    let layout = &cluster.layout;
    if layout.kubeconfig().exists() {
        return Ok(());
    }
    fs::create_dir_all(layout.credentials())?;
    let nodes = NODES.map(|node| format!("{}={}", node.name, node.address()));
    let mut make = program(layout, "credentials");
    make.arg(format!("--into={}", layout.credentials().display()))
        .arg(format!(
            "--server=https://{HOST}:{}",
            cluster.record.ports.api_server
        ))
        .arg(format!("--addresses={HOST},{API_SERVICE}"))
        .arg(format!("--nodes={}", nodes.join(",")));
    quiet(&mut make)?;
    fs::copy(layout.credential("admin.kubeconfig"), layout.kubeconfig())
        .context("failed to write the kubeconfig")?;
    Ok(())
}

/// Starts etcd and, once that listens, the API server.
pub fn start_api_server(cluster: &mut Cluster) -> Result<()> {
    let mut etcd = etcd(cluster);
    cluster.ensure(ETCD, &mut etcd)?;
    let port = cluster.record.ports.etcd;
    wait("etcd did not listen", Duration::from_secs(30), || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    })?;
    let mut api_server = api_server(cluster);
    cluster.ensure(API_SERVER, &mut api_server)?;
    Ok(())
}

/// Waits for the API server, then starts what works through it.
pub fn start_controllers(cluster: &mut Cluster) -> Result<()> {
    let kubectl = Kubectl::of(&cluster.layout);
    wait(
        "the API server was not ready",
        Duration::from_secs(60),
        || kubectl.is_healthy("/readyz"),
    )
    .with_context(|| format!("see {}", cluster.layout.log(None, API_SERVER).display()))?;
    let mut manager = controller_manager(cluster);
    cluster.ensure(CONTROLLER_MANAGER, &mut manager)?;
    let mut scheduler = scheduler(cluster);
    cluster.ensure(SCHEDULER, &mut scheduler)?;
    Ok(())
}

fn program(layout: &Layout, component: &str) -> Command {
    let mut command = Command::new(layout.program("kubernetes"));
    command.arg(component);
    command
}

fn etcd(cluster: &Cluster) -> Command {
    let layout = &cluster.layout;
    let ports = &cluster.record.ports;
    let clients = format!("https://127.0.0.1:{}", ports.etcd);
    let peers = format!("https://127.0.0.1:{}", ports.etcd_peers);
    let data = layout.state.join(ETCD);
    let mut command = program(layout, ETCD);
    let file = |flag: &str, name: &str| format!("--{flag}={}", layout.credential(name).display());
    command
        .arg(format!("--data-dir={}", data.display()))
        .arg(format!("--listen-client-urls={clients}"))
        .arg(format!("--advertise-client-urls={clients}"))
        .arg(format!("--listen-peer-urls={peers}"))
        .arg(format!("--initial-advertise-peer-urls={peers}"))
        .arg(format!("--initial-cluster=default={peers}"))
        // The cluster is for tests: it may lose its data with the machine's power.
        .arg("--unsafe-no-fsync");
    // Every user of the machine reaches 127.0.0.1, and who writes to etcd is root on the nodes.
    for of in ["", "peer-"] {
        command
            .arg(format!("--{of}client-cert-auth"))
            .arg(file(&format!("{of}trusted-ca-file"), "etcd-ca.crt"))
            .arg(file(&format!("{of}cert-file"), "etcd.crt"))
            .arg(file(&format!("{of}key-file"), "etcd.key"));
    }
    command
}

fn api_server(cluster: &Cluster) -> Command {
    let layout = &cluster.layout;
    let ports = &cluster.record.ports;
    let mut command = program(layout, API_SERVER);
    let file = |flag: &str, name: &str| format!("--{flag}={}", layout.credential(name).display());
    command
        .arg(format!("--etcd-servers=https://127.0.0.1:{}", ports.etcd))
        .arg(file("etcd-cafile", "etcd-ca.crt"))
        .arg(file("etcd-certfile", "apiserver-etcd-client.crt"))
        .arg(file("etcd-keyfile", "apiserver-etcd-client.key"))
        .arg(format!("--bind-address={HOST}"))
        .arg(format!("--advertise-address={HOST}"))
        .arg(format!("--secure-port={}", ports.api_server))
        .arg(format!("--service-cluster-ip-range={SERVICES}"))
        .arg(file("client-ca-file", "ca.crt"))
        .arg(file("tls-cert-file", "apiserver.crt"))
        .arg(file("tls-private-key-file", "apiserver.key"))
        .arg(file("kubelet-certificate-authority", "ca.crt"))
        .arg(file(
            "kubelet-client-certificate",
            "apiserver-kubelet-client.crt",
        ))
        .arg(file("kubelet-client-key", "apiserver-kubelet-client.key"))
        .arg("--kubelet-preferred-address-types=InternalIP")
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .arg(file("service-account-key-file", "service-account.pub"))
        .arg(file(
            "service-account-signing-key-file",
            "service-account.key",
        ))
        .arg("--authorization-mode=Node,RBAC")
        .arg("--enable-admission-plugins=NodeRestriction")
        .arg("--allow-privileged=true");
    extensions(layout, &mut command);
    command
}

/// Servers that extend the API, custom metrics among them, and webhooks: by their pods' addresses,
/// which the host reaches whichever node is up.
fn extensions(layout: &Layout, command: &mut Command) {
    let file = |flag: &str, name: &str| format!("--{flag}={}", layout.credential(name).display());
    command
        .arg("--enable-aggregator-routing=true")
        .arg(file("requestheader-client-ca-file", "front-proxy-ca.crt"))
        .arg("--requestheader-allowed-names=front-proxy-client")
        .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
        .arg("--requestheader-group-headers=X-Remote-Group")
        .arg("--requestheader-username-headers=X-Remote-User")
        .arg(file("proxy-client-cert-file", "front-proxy-client.crt"))
        .arg(file("proxy-client-key-file", "front-proxy-client.key"));
}

fn controller_manager(cluster: &Cluster) -> Command {
    let layout = &cluster.layout;
    let file = |flag: &str, name: &str| format!("--{flag}={}", layout.credential(name).display());
    let mut command = controller(cluster, CONTROLLER_MANAGER);
    command
        .arg(format!(
            "--secure-port={}",
            cluster.record.ports.controller_manager
        ))
        .arg("--use-service-account-credentials=true")
        // It makes this folder, by default in /usr.
        .arg(format!(
            "--flex-volume-plugin-dir={}",
            layout.state.join("volume-plugins").display()
        ))
        .arg(file("root-ca-file", "ca.crt"))
        .arg(file(
            "service-account-private-key-file",
            "service-account.key",
        ))
        .arg(file("cluster-signing-cert-file", "ca.crt"))
        .arg(file("cluster-signing-key-file", "ca.key"));
    command
}

fn scheduler(cluster: &Cluster) -> Command {
    let mut command = controller(cluster, SCHEDULER);
    command.arg(format!("--secure-port={}", cluster.record.ports.scheduler));
    command
}

fn controller(cluster: &Cluster, name: &str) -> Command {
    let kubeconfig = cluster.layout.credential(&format!("{name}.kubeconfig"));
    let mut command = program(&cluster.layout, name);
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg("--bind-address=127.0.0.1")
        // The defaults of 20 and 50 requests a second make thousands of fake pods wait for minutes.
        .args(["--kube-api-qps=200", "--kube-api-burst=400"])
        // There is one of each; after a restart nobody waits for a lease to run out.
        .arg("--leader-elect=false");
    command
}
