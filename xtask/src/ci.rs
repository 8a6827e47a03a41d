//! What CI runs, in the order in which a mistake is found soonest.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, run};
use crate::{cluster, docs, rooms, setup, test, tools};

/// Formatting, rooms and bans, lints, generated documents, then every test with the SDKs required.
/// What the testbed needs is built beside it from the start.
pub fn ci() -> Result<()> {
    if let Err(why) = setup::setup() {
        eprintln!("ci: {why:#}");
    }
    let testbed = cluster::for_tests();
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
    fuzz_targets()?;
    docs::check()?;
    test::test(test::Sdks::Required, testbed)
}

/// Licences, bans and sources. Advisories are left out, because their database comes from the
/// network each time and may fail a change that has nothing to do with it.
fn deny() -> Result<()> {
    let program = tools::CARGO_DENY.installed()?;
    run(Command::new(program)
        .args(["--locked", "--all-features", "check"])
        .args(["bans", "licenses", "sources"]))
}

/// The fuzz targets are a workspace of their own: nothing else would notice that one of them doesn't
/// compile any more. libFuzzer itself, which takes a C++ compiler, isn't needed for that.
fn fuzz_targets() -> Result<()> {
    let own = ["--manifest-path", "fuzz/Cargo.toml"];
    run(cargo().arg("fmt").args(own).arg("--check"))?;
    run(cargo()
        .args(["clippy", "--locked"])
        .args(own)
        .args(["--", "--deny", "warnings"])
        .env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a"))
}
