//! The peers that `cargo xtask bench` measures beside ours and that a distribution doesn't have:
//! LiteLLM's proxy from PyPI and pm2 from npm, in the versions of `tests/peers`.
//!
//! They lie in the target directory, are installed when a section that measures them is asked for,
//! and are no part of any test. One that can't be installed is left out of its table.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::root;
use crate::sdk;

/// A peer: its name, the section that measures it, the variable that tells where it is.
struct Peer {
    name: &'static str,
    section: &'static str,
    variable: &'static str,
    install: fn(&Path) -> Result<PathBuf>,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "LiteLLM's proxy",
        section: "gateway-latency",
        variable: "MAINSTAY_PEER_LITELLM",
        install: litellm,
    },
    Peer {
        name: "pm2",
        section: "crash-ready",
        variable: "MAINSTAY_PEER_PM2",
        install: pm2,
    },
];

/// Installs the peers of the sections that `only` asks for, and tells the measurements where.
pub fn install(target: &Path, only: Option<&str>, measure: &mut Command) {
    let folder = target.join("peers");
    for peer in PEERS {
        if !only.is_none_or(|only| peer.section.contains(only)) {
            continue;
        }
        match (peer.install)(&folder) {
            Ok(program) => drop(measure.env(peer.variable, program)),
            Err(why) => eprintln!("bench: {} is left out: {why:#}", peer.name),
        }
    }
}

fn litellm(folder: &Path) -> Result<PathBuf> {
    let wanted = root().join("tests/peers/requirements.txt");
    let python = sdk::environment(&folder.join("python"), &wanted)?;
    Ok(python.with_file_name("litellm"))
}

/// In a copy of its two files, so that npm writes nothing into the checkout.
fn pm2(folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("node");
    std::fs::create_dir_all(&copy).context("failed to create the peers' folder")?;
    for file in ["package.json", "package-lock.json"] {
        let wanted = root().join("tests/peers").join(file);
        std::fs::copy(wanted, copy.join(file)).context("failed to copy the lock file")?;
    }
    sdk::modules(&copy)?;
    Ok(copy.join("node_modules/.bin/pm2"))
}
