//! What a machine lacks for the testbed, in one line that names all of it and what brings it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::run::is_installed;

/// Programs of Debian's packages in `setup`, and of util-linux.
const PROGRAMS: [&str; 9] = [
    "containerd",
    "ctr",
    "runc",
    "nft",
    "iptables",
    "conntrack",
    "ip",
    "nsenter",
    "unshare",
];
/// Where Debian's containernetworking-plugins puts them.
pub const PLUGINS: &str = "/usr/lib/cni";

/// Fails where a cluster can't run.
pub fn for_up() -> Result<()> {
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|program| !is_found(program))
        .collect();
    if !Path::new(PLUGINS).join("ptp").is_file() {
        missing.push("containernetworking-plugins");
    }
    if !missing.is_empty() {
        bail!(
            "a cluster can't run here: {} not installed (cargo xtask setup)",
            listed(&missing)
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!("a cluster can't run here: it takes root, for namespaces and cgroups");
    }
    Ok(())
}

/// Fails where Kubernetes can't be built.
pub fn for_go() -> Result<()> {
    if !is_installed("go") {
        bail!(
            "a cluster can't be built here: go is not installed (1.21 or newer; it fetches the rest)"
        );
    }
    Ok(())
}

/// Fails where the pause program can't be built.
pub fn for_c() -> Result<()> {
    if !is_installed("gcc") {
        bail!("a cluster can't be built here: gcc is not installed (cargo xtask setup)");
    }
    Ok(())
}

/// Also in the folders for administrators, which a person's PATH often lacks.
fn is_found(program: &str) -> bool {
    let folders = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
    is_installed(program)
        || folders
            .iter()
            .any(|folder| Path::new(folder).join(program).is_file())
}

fn listed(missing: &[&str]) -> String {
    let verb = if missing.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", missing.join(", "))
}
