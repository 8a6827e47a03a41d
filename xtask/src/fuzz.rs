//! `cargo xtask fuzz`: every target of `fuzz/` under libFuzzer for a while, from the committed seeds
//! and from what earlier runs found.
//!
//! The sanitizer needs a nightly tool chain, and cargo-fuzz to drive it. Both stay a choice of the
//! person who fuzzes: nothing is installed here, and CI doesn't run it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{root, run, target_dir};

/// What is asked to see whether it is there, and how a person gets it.
const NEEDED: &[(&[&str], &str)] = &[
    (
        &["--version"],
        "a nightly tool chain: rustup toolchain install nightly",
    ),
    (
        &["fuzz", "--version"],
        "cargo-fuzz: cargo install cargo-fuzz --locked",
    ),
];

/// Runs the targets whose name contains `only`, each for that long; stops at the first finding.
pub fn fuzz(seconds: u32, only: Option<&str>) -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(question, _)| !is_answered(question))
        .map(|(_, what)| *what)
        .collect();
    if !missing.is_empty() {
        bail!("fuzzing needs\n  {}", missing.join("\n  "));
    }
    let wanted = targets(&root().join("fuzz/fuzz_targets"), only)?;
    if wanted.is_empty() {
        bail!("no target of that name in fuzz/fuzz_targets");
    }
    for target in wanted {
        one(&target, seconds)?;
    }
    Ok(())
}

fn one(target: &str, seconds: u32) -> Result<()> {
    let folder = root().join("fuzz");
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus).context("failed to create the corpus")?;
    let mut command = nightly(&["fuzz", "run", target]);
    command.arg(corpus).arg(folder.join("seeds").join(target));
    command.args(["--", "-timeout=20", "-rss_limit_mb=4096"]);
    command.args(["-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.current_dir(folder);
    // A folder of its own: the sanitizer's flags would rebuild everything else.
    command.env("CARGO_TARGET_DIR", target_dir()?.join("fuzz"));
    run(&mut command)
}

/// Names of the targets, sorted.
fn targets(folder: &Path, only: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).context("failed to list the targets")? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let name = file.strip_suffix(".rs");
        names.extend(
            name.filter(|name| only.is_none_or(|only| name.contains(only)))
                .map(str::to_owned),
        );
    }
    names.sort_unstable();
    Ok(names)
}

/// Cargo of the nightly tool chain, by rustup: ours would find no sanitizer.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(arguments);
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}

fn is_answered(question: &[&str]) -> bool {
    let mut command = nightly(question);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_declared_and_has_seeds() {
        let folder = root().join("fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let names = targets(&folder.join("fuzz_targets"), None).unwrap();
        assert!(!names.is_empty());
        for name in names {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let seeds = fs::read_dir(folder.join("seeds").join(&name)).unwrap();
            assert!(seeds.count() > 0, "{name}");
        }
    }
}
