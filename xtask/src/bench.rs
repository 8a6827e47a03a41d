//! `cargo xtask bench`: builds the release program and runs the measurements of `testkit`.
//!
//! The measuring itself is `crates/testkit/benches/figures`, one file per figure; this chore only
//! builds, runs and puts what was measured into docs/benchmarks.md.

use anyhow::Result;

use crate::figures;
use crate::run::{cargo, run, target_dir};

/// Measures all sections, or those whose name contains `only`.
pub fn bench(only: Option<&str>) -> Result<()> {
    run(cargo().args(["build", "--release", "--locked", "--package", "mainstay"]))?;
    let results = target_dir()?.join("figures");
    if results.exists() {
        std::fs::remove_dir_all(&results)?;
    }
    std::fs::create_dir_all(&results)?;
    let mut measure = cargo();
    measure.args([
        "bench",
        "--locked",
        "--package",
        "testkit",
        "--bench",
        "figures",
        "--",
    ]);
    measure.args(only);
    measure.env("MAINSTAY_BIN", target_dir()?.join("release/mainstay"));
    measure.env("MAINSTAY_RESULTS", &results);
    run(&mut measure)?;
    figures::publish(&results)
}
