//! Volumes: a default StorageClass, and for each node a number of folders offered as volumes, since
//! nothing here provisions any. A volume stays where it is: its pod runs on that node or waits.
//!
//! A claim that is deleted leaves its volume `Released`, which nobody gets again. `up` empties such
//! a folder and offers it anew.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::Kubectl;
use super::layout::{Layout, NODES, Node};
use super::record::Cluster;

/// The class, and the label of our volumes.
const CLASS: &str = "local";
/// On each node. Claims beyond it wait for the next `up`.
const VOLUMES: usize = 40;
/// What each says that it has. Nothing enforces it.
const SIZE: &str = "10Gi";

/// Offers every volume that no claim has.
pub fn offer(cluster: &Cluster) -> Result<()> {
    let kubectl = Kubectl::of(&cluster.layout);
    let phases = phases(&kubectl)?;
    let mut missing = Vec::new();
    for node in &NODES {
        for number in 0..VOLUMES {
            let name = format!("{}-{number:02}", node.name);
            match phases.get(&name).map(String::as_str) {
                Some("Released" | "Failed") => {
                    kubectl.read(&["delete", "persistentvolume", &name])?;
                }
                Some(_) => continue,
                None => {}
            }
            missing.push(volume(node, &name, &emptied(&cluster.layout, node, &name)?));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    missing.push(class());
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": missing });
    kubectl.give(&["apply", "--server-side", "--force-conflicts"], &list)
}

/// Our volumes by name, with `Available`, `Bound`, `Released` or `Failed`.
fn phases(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let lines = "--output=jsonpath={range .items[*]}{.metadata.name} {.status.phase}{\"\\n\"}{end}";
    let own = format!("--selector=testbed={CLASS}");
    let text = kubectl.read(&["get", "persistentvolumes", &own, lines])?;
    let words = text.lines().filter_map(|line| line.split_once(' '));
    Ok(words
        .map(|(name, phase)| (name.to_owned(), phase.to_owned()))
        .collect())
}

/// An empty folder that every user may write to, as provisioners make them.
fn emptied(layout: &Layout, node: &Node, name: &str) -> Result<PathBuf> {
    let folder = layout.of_node(node).join("volumes").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
    Ok(folder)
}

fn class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
        },
        "provisioner": "kubernetes.io/no-provisioner",
        // The pod decides on the node, and with it on the volume.
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

fn volume(node: &Node, name: &str, folder: &std::path::Path) -> Value {
    let on_node = json!({
        "key": "kubernetes.io/hostname",
        "operator": "In",
        "values": [node.name],
    });
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name, "labels": { "testbed": CLASS } },
        "spec": {
            "capacity": { "storage": SIZE },
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": { "path": folder },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [on_node] }] } },
        },
    })
}
