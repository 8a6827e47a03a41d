//! What CI runs, in the order in which a mistake is found soonest.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, run};
use crate::{docs, rooms, test, tools};

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

/// Licences, bans and sources. Advisories are left out, because their database comes from the
/// network each time and may fail a change that has nothing to do with it.
fn deny() -> Result<()> {
    let program = tools::CARGO_DENY.installed()?;
    run(Command::new(program)
        .args(["--locked", "--all-features", "check"])
        .args(["bans", "licenses", "sources"]))
}
