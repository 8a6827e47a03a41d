//! What CI runs, in the order in which a mistake is found soonest.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, is_installed, run};
use crate::{docs, rooms, test};

/// Formatting, rooms and bans, lints, generated documents, then every test with the SDKs required.
pub fn ci() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    rooms::check()?;
    deny()?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))?;
    docs::check()?;
    test::test(test::Sdks::Required)
}

/// cargo-deny where it is installed; the bans that matter most are checked by `rooms` always.
fn deny() -> Result<()> {
    if !is_installed("cargo-deny") {
        eprintln!(
            "deny: cargo-deny is not installed; bans were checked, licences and advisories were not"
        );
        return Ok(());
    }
    run(Command::new("cargo-deny").args(["--all-features", "check", "bans", "licenses", "sources"]))
}
