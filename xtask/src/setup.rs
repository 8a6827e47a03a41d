//! `cargo xtask setup`: the Debian packages that the testbed's nodes and the store's tests need. As
//! root it installs those that are missing; otherwise it says what it would install and changes
//! nothing.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::run::{is_installed, run};

/// Each with what needs it. util-linux, for nsenter and unshare, is on every Debian.
pub const PACKAGES: &[&str] = &[
    "containerd",
    "runc",
    "containernetworking-plugins",
    // kube-proxy writes rules with nft, the CNI plugin for host ports with iptables.
    "nftables",
    "iptables",
    "conntrack",
    "ipset",
    "iproute2",
    // The pause image is a static C program.
    "gcc",
    "libc6-dev",
    // The store's second database; tests make servers of their own from its programs.
    "postgresql",
];

/// Installs what is missing.
pub fn setup() -> Result<()> {
    if !is_installed("dpkg-query") {
        bail!(
            "this is no Debian; what the testbed needs is there called {}",
            PACKAGES.join(" ")
        );
    }
    let missing: Vec<&str> = PACKAGES
        .iter()
        .copied()
        .filter(|package| !is_package_installed(package))
        .collect();
    if missing.is_empty() {
        eprintln!("setup: every package is installed");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "setup needs root; it would run: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_package_installed(package: &str) -> bool {
    let answer = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    answer.is_ok_and(|output| output.stdout == b"installed")
}
