//! Where things lie and what they are called: paths of the state and of the cache, the two nodes,
//! and every address. Pods are in 198.18.0.0/16 and services in 198.19.0.0/16, which are set aside
//! for measurements (RFC 2544), so that no network that a machine really reaches is shadowed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The bridge on the host that the nodes hang on. The API server listens there and nowhere else.
pub const BRIDGE: &str = "mainstay0";
/// The host's address on the bridge.
pub const HOST: &str = "198.18.0.1";
pub const SERVICES: &str = "198.19.0.0/16";
/// The API server's service address: Kubernetes takes the first of the range.
pub const API_SERVICE: &str = "198.19.0.1";
/// The service address of CoreDNS, also in testbed/coredns/manifest.json.
pub const DNS: &str = "198.19.0.10";
/// Pods of KWOK's nodes, which exist in the API only.
pub const FAKE_PODS: &str = "198.18.128.0/17";
/// The folder of our cgroups in each hierarchy.
pub const CGROUP: &str = "mainstay-testbed";

/// A real node.
pub struct Node {
    pub name: &'static str,
    number: u8,
}

/// Two are the fewest that show a pod moving.
pub const NODES: [Node; 2] = [
    Node {
        name: "node-1",
        number: 1,
    },
    Node {
        name: "node-2",
        number: 2,
    },
];

impl Node {
    /// Its address on the bridge.
    pub fn address(&self) -> String {
        format!("198.18.0.{}", 10 + self.number)
    }

    /// The addresses of its pods.
    pub fn pods(&self) -> String {
        format!("198.18.{}.0/24", self.number)
    }

    /// The host's end of its cable.
    pub fn cable(&self) -> String {
        format!("mainstay-{}", self.name)
    }

    /// Its cgroup, seen from a hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("/{CGROUP}/{}", self.name)
    }
}

/// Every node has its own of these, so nothing that it needs may lie there on the host.
const OF_NODE: [&str; 4] = ["/run", "/var/lib", "/var/log", "/proc"];

/// The two folders.
#[derive(Clone)]
pub struct Layout {
    /// What one cluster is: gone after `down`.
    pub state: PathBuf,
    /// What is built, with the fingerprints of its sources.
    cache: PathBuf,
}

impl Layout {
    /// The cache is `MAINSTAY_CACHE`, or `mainstay` in the user's cache folder, as for CI.
    pub fn new(state: Option<PathBuf>) -> Result<Self> {
        let cache = match std::env::var_os("MAINSTAY_CACHE") {
            Some(folder) => PathBuf::from(folder),
            None => std::env::home_dir()
                .context("neither MAINSTAY_CACHE nor HOME is set")?
                .join(".cache/mainstay"),
        };
        let cache = std::path::absolute(cache)?;
        let state = match state {
            Some(state) => std::path::absolute(state)?,
            None => cache.join("cluster"),
        };
        let cache = cache.join("testbed");
        for folder in [&state, &cache] {
            if OF_NODE.iter().any(|hidden| folder.starts_with(hidden)) {
                bail!(
                    "{} is hidden from the nodes, which have their own",
                    folder.display()
                );
            }
        }
        Ok(Self { state, cache })
    }

    /// A built program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.cache.join("bin").join(name)
    }

    /// A built image, as an archive.
    pub fn image(&self, name: &str) -> PathBuf {
        self.cache.join("images").join(format!("{name}.tar"))
    }

    /// Go's caches: with them a change of a version costs minutes less.
    pub fn go(&self, cache: &str) -> PathBuf {
        self.cache.join("go").join(cache)
    }

    pub fn cache(&self) -> &Path {
        &self.cache
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// Certificates, keys and kubeconfigs.
    pub fn credential(&self, name: &str) -> PathBuf {
        self.credentials().join(name)
    }

    pub fn credentials(&self) -> PathBuf {
        self.state.join("credentials")
    }

    /// What a node has on disk.
    pub fn of_node(&self, node: &Node) -> PathBuf {
        self.state.join(node.name)
    }

    /// The output of a process.
    pub fn log(&self, node: Option<&str>, name: &str) -> PathBuf {
        let name = match node {
            Some(node) => format!("{node}-{name}.log"),
            None => format!("{name}.log"),
        };
        self.state.join("logs").join(name)
    }
}
