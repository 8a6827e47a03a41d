//! The configuration files of a node's programs. What differs from a default says why.

use serde_json::{Value, json};

use super::build::image_name;
use super::layout::{DNS, Layout, Node};
use super::missing::PLUGINS;

/// Where containerd listens; every node has a `/run` of its own.
pub const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where a kubelet and a kube-proxy say whether they are healthy, on their node's address.
pub const KUBELET_HEALTH: u16 = 10248;
pub const PROXY_HEALTH: u16 = 10256;

pub fn kubelet(layout: &Layout, node: &Node) -> Value {
    let folder = layout.of_node(node);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address(),
        "healthzBindAddress": node.address(),
        "healthzPort": KUBELET_HEALTH,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": layout.credential("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": layout.credential(&format!("{}.crt", node.name)),
        "tlsPrivateKeyFile": layout.credential(&format!("{}.key", node.name)),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        // The host's own processes are in none of our cgroups; there is nothing to enforce.
        "enforceNodeAllocatable": [],
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        // An empty file: pods must not ask the host's name servers.
        "resolvConf": folder.join("resolv.conf"),
        // An imported image that is collected can't be pulled again.
        "imageGCHighThresholdPercent": 100,
        // The disk is the host's. Its filling by others is no reason to evict pods.
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1Gi" },
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": folder.join("volume-plugins"),
        // Lowering it takes a right that root lacks in many containers.
        "oomScoreAdj": 0,
        "maxPods": 250,
    })
}

pub fn proxy(layout: &Layout, node: &Node) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clientConnection": { "kubeconfig": layout.credential("kube-proxy.kubeconfig") },
        "healthzBindAddress": format!("{}:{PROXY_HEALTH}", node.address()),
        // What doesn't come from a pod's cable is masqueraded, so that answers find the way back.
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": { "interfaceNamePrefix": "veth" },
        // These are settings of the host's network, which a node's can't change.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s" },
    })
}

/// Each pod has a cable of its own to the node, which routes; a bridge would hand a service's
/// answer over without kube-proxy's rules seeing it, unless the kernel has br_netfilter.
pub fn network(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    // Gone with the node's processes, as the addresses that it holds are.
                    "dataDir": "/run/cni",
                    "ranges": [[{ "subnet": node.pods() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

pub fn containerd(layout: &Layout, node: &Node) -> String {
    let folder = layout.of_node(node);
    let (folder, pause) = (folder.display(), image_name("pause"));
    format!(
        r#"version = 2

[grpc]
address = "{CONTAINERD}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without the right to lower it (CAP_SYS_RESOURCE) every sandbox would fail.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#
    )
}
