//! Programs from crates.io that a chore needs, in pinned versions, below the target directory.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run::{cargo, run, target_dir};

/// A program and how it is built.
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

/// Checks licences, bans and sources. Raise its version when it can't read a newer lock file.
pub const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
};

impl Tool {
    /// Where it is, after building it if it isn't there yet: unoptimised and without what checks
    /// advisories, which takes half of the time, and is fast enough for our tree.
    pub fn installed(&self) -> Result<PathBuf> {
        let folder = target_dir()?.join("tools");
        let own = folder.join(format!("{}-{}", self.name, self.version));
        let program = own.join("bin").join(self.name);
        if program.is_file() {
            return Ok(program);
        }
        let build = folder.join("build");
        run(cargo()
            .args(["install", self.name, "--version", self.version, "--locked"])
            .args(["--debug", "--no-default-features", "--quiet", "--root"])
            .arg(&own)
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_PROFILE_DEV_DEBUG", "0"))
        .with_context(|| format!("failed to install {} {}", self.name, self.version))?;
        // The program is what a cache should keep, not a gigabyte of what it was made from.
        std::fs::remove_dir_all(&build).context("failed to remove what it was built in")?;
        Ok(program)
    }
}
