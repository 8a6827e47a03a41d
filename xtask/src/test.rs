//! `cargo xtask test`: the second command of the README. It builds the program once, installs the
//! official SDKs into the checkout, and runs every test of the workspace.

use std::process::Command;

use anyhow::Result;

use crate::cluster::{self, Building};
use crate::run::{cargo, is_installed, run, target_dir};
use crate::sdk;

/// What to do where Python or Node can't be set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sdks {
    /// Leave their tests out and say so.
    WhereInstalled,
    /// Fail.
    Required,
}

/// Runs all tests in the dev profile: those that need a cluster at last, once the testbed is built,
/// or not at all with the reason why there is none.
pub fn test(sdks: Sdks, testbed: Result<Building>) -> Result<()> {
    let mut installed = sdk::install(sdks)?;
    run(cargo().args(["build", "--locked", "--package", "mainstay"]))?;
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    environment(&mut tests, &installed)?;
    run(&mut tests)?;
    match testbed {
        Ok(building) => cluster::test(building)?,
        Err(why) => {
            let line = format!("the cluster's tests are left out: {why:#}");
            installed.left_out.push(line);
        }
    }
    if !has_postgres() {
        let line = "tests on Postgres are left out: none is installed (`cargo xtask setup`)";
        installed.left_out.push(line.to_owned());
    }
    for line in &installed.left_out {
        eprintln!("test: {line}");
    }
    Ok(())
}

/// Where `testkit` looks: Debian's place, which is not in the path.
fn has_postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let mut versions = versions.into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin/initdb").is_file()) || is_installed("initdb")
}

/// Tells the tests where the program, the SDKs and the evaluator of policies are.
pub fn environment(tests: &mut Command, installed: &sdk::Installed) -> Result<()> {
    tests.env("MAINSTAY_BIN", target_dir()?.join("debug/mainstay"));
    if let Some(python) = &installed.python {
        tests.env("MAINSTAY_TEST_PYTHON", python);
    }
    if let Some(node) = &installed.node {
        tests.env("MAINSTAY_TEST_NODE", node);
    }
    cluster::evaluator(tests)
}
