//! KEDA for the test of agents that it scales: its operator and its metrics server from its module,
//! in one image, and its own manifest. Only built when asked for; where it is built, tests get it.
//!
//! Its admission webhook is left out: it refuses mistakes of people, and none writes here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::build::{self, Program, fingerprint, image_name, module, once, required, stamp};
use super::layout::{Layout, NODES};
use super::node;
use super::record::Cluster;

const MODULE: &str = "keda";
const REQUIRED: &str = "github.com/kedacore/keda/v2";

/// Called as KEDA's manifest calls them.
const PROGRAMS: [Program; 2] = [
    Program {
        name: "keda",
        module: MODULE,
        package: "github.com/kedacore/keda/v2/cmd/operator",
        version: Some((REQUIRED, "github.com/kedacore/keda/v2/version.Version")),
    },
    Program {
        name: "keda-adapter",
        module: MODULE,
        package: "github.com/kedacore/keda/v2/cmd/adapter",
        version: Some((REQUIRED, "github.com/kedacore/keda/v2/version.Version")),
    },
];

const MANIFEST: &str = "keda.yaml";
/// What KEDA's manifest says, and what is said here instead.
const CHANGES: [(&str, &str); 3] = [
    ("imagePullPolicy: Always", "imagePullPolicy: Never"),
    ("ghcr.io/kedacore/keda:main", "localhost/keda:testbed"),
    (
        "ghcr.io/kedacore/keda-metrics-apiserver:main",
        "localhost/keda:testbed",
    ),
];
const ROTATION: &str = "        - --enable-cert-rotation=true\n";
/// Of what is left out.
const WEBHOOK: &str = "keda-admission";

/// Builds whatever of it is not built yet.
pub fn build(layout: &Layout) -> Result<()> {
    build::build(layout)?;
    let _lock = build::lock(layout)?;
    for program in &PROGRAMS {
        program.build(layout)?;
    }
    manifest(layout)?;
    build::image(layout, MODULE, &PROGRAMS.map(|program| program.name))
}

/// What is applied to have it, once its image is in every node; nothing where it isn't built.
pub fn in_cluster(layout: &Layout) -> Result<Option<PathBuf>> {
    let archive = layout.image(MODULE);
    if !stamp(&archive).exists() {
        return Ok(None);
    }
    let cluster = Cluster::open(layout.clone())?.context("no cluster is up")?;
    let name = image_name(MODULE);
    for node in &NODES {
        let images = node::images(&cluster, node)?;
        if !images.lines().any(|line| line == name) {
            node::import(&cluster, node, &archive.to_string_lossy())?;
        }
    }
    Ok(Some(layout.program(MANIFEST)))
}

/// As its module has it, by kustomize.
fn manifest(layout: &Layout) -> Result<()> {
    let folder = module(MODULE);
    let to = layout.program(MANIFEST);
    let source = include_str!("keda.rs");
    once(&to, &fingerprint(&folder, source)?, || {
        let source = required(layout, &folder, REQUIRED)?;
        let mut kustomize = Command::new(layout.program("kubernetes"));
        kustomize
            .args(["kubectl", "kustomize"])
            .arg(source.join("config/default"));
        let text = crate::run::read(&mut kustomize)?;
        fs::write(&to, changed(&text)).context("failed to write KEDA's manifest")
    })
}

fn changed(text: &str) -> String {
    let documents = text.split("\n---\n");
    let kept: Vec<&str> = documents
        .filter(|document| !document.contains(&format!("\n  name: {WEBHOOK}")))
        .collect();
    let mut text = kept.join("\n---\n");
    for (theirs, ours) in CHANGES {
        text = text.replace(theirs, ours);
    }
    let without = format!("{ROTATION}        - --enable-webhook-patching=false\n");
    text.replace(ROTATION, &without)
}
