//! What is known of a cluster from one command to the next: `cluster.json` in its state. It's
//! written before something is made, or at once after a process is started, so that `down` knows
//! of all that a broken `up` left behind. One command at a time changes a cluster.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::process::{Tracked, start};
use crate::run::root;

/// A cluster that this command alone changes.
pub struct Cluster {
    pub layout: Layout,
    pub record: Record,
    _lock: File,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// The machine's boot in which it was made: processes and settings don't outlive that.
    pub boot: String,
    /// Whose `up` made it.
    #[serde(default)]
    pub checkout: Option<PathBuf>,
    pub ports: Ports,
    /// In the order of their start.
    pub processes: Vec<Tracked>,
    /// Settings of the kernel that the kubelets change, and what they were before.
    pub tunables: BTreeMap<PathBuf, String>,
}

/// Chosen at the first `up`. Nodes need none: each has its own network.
#[derive(Serialize, Deserialize)]
pub struct Ports {
    pub api_server: u16,
    pub etcd: u16,
    pub etcd_peers: u16,
    pub controller_manager: u16,
    pub scheduler: u16,
    pub kwok: u16,
}

impl Record {
    /// What the state's file says; none where there is no cluster.
    pub fn read(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state.join("cluster.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path)?;
        let record = serde_json::from_slice(&text)
            .with_context(|| format!("failed to read {}", path.display()))?;
        Ok(Some(record))
    }

    pub fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// A live process, by its name and its node's.
    pub fn alive(&self, name: &str, node: Option<&str>) -> Option<&Tracked> {
        self.processes
            .iter()
            .find(|known| known.name == name && known.node.as_deref() == node && known.is_alive())
    }
}

impl Cluster {
    /// The cluster of a state.
    pub fn open(layout: Layout) -> Result<Option<Self>> {
        if !layout.state.join("cluster.json").exists() {
            return Ok(None);
        }
        let lock = lock(&layout)?;
        let record = Record::read(&layout)?;
        Ok(record.map(|record| Self {
            layout,
            record,
            _lock: lock,
        }))
    }

    /// A new cluster, of which nothing runs yet.
    pub fn create(layout: Layout) -> Result<Self> {
        let state = layout.state.display();
        if fs::read_dir(&layout.state).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{state} has something else in it; name an empty folder with --state");
        }
        fs::create_dir_all(layout.state.join("logs"))
            .with_context(|| format!("failed to make {state}"))?;
        let lock = lock(&layout)?;
        let owner = fs::metadata(&layout.state)?.uid();
        if owner != 0 {
            bail!(
                "{state} belongs to user {owner}, who could change what root is to remove; name another folder with --state"
            );
        }
        let record = Record {
            boot: boot_id()?,
            checkout: Some(root()),
            ports: Ports::choose()?,
            processes: Vec::new(),
            tunables: BTreeMap::new(),
        };
        let cluster = Self {
            layout,
            record,
            _lock: lock,
        };
        cluster.save()?;
        Ok(cluster)
    }

    /// Writes the record so that a reader sees the old one or the new one.
    pub fn save(&self) -> Result<()> {
        let half = self.layout.state.join("cluster.json.half");
        fs::write(&half, serde_json::to_vec_pretty(&self.record)?)?;
        fs::rename(&half, self.layout.state.join("cluster.json"))
            .context("failed to write cluster.json")
    }

    /// Starts a process of the control plane unless it runs; says whether it did.
    pub fn ensure(&mut self, name: &str, command: &mut Command) -> Result<bool> {
        if self.record.alive(name, None).is_some() {
            return Ok(false);
        }
        let pid = start(command, &self.layout.log(None, name))?;
        self.track(Tracked::new(name, None, pid)?)?;
        Ok(true)
    }

    /// Notes a process in the place of an earlier one of the same name.
    pub fn track(&mut self, process: Tracked) -> Result<()> {
        let is_same = |known: &Tracked| known.name == process.name && known.node == process.node;
        self.record.processes.retain(|known| !is_same(known));
        self.record.processes.push(process);
        self.save()
    }
}

impl Ports {
    fn choose() -> Result<Self> {
        // All are held until the last is chosen, so that no two are the same.
        let mut held = Vec::new();
        let mut next = || -> Result<u16> {
            let listener =
                TcpListener::bind("127.0.0.1:0").context("failed to find a free port")?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok(port)
        };
        Ok(Self {
            api_server: next()?,
            etcd: next()?,
            etcd_peers: next()?,
            controller_manager: next()?,
            scheduler: next()?,
            kwok: next()?,
        })
    }
}

fn boot_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

fn lock(layout: &Layout) -> Result<File> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(layout.state.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `cargo xtask cluster` is at work on {}",
            layout.state.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).context("failed to lock the cluster"),
    }
}
