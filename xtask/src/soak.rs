//! The kill sweeps by the hundred, against the release build, with their result in the documents.

use anyhow::Result;

use crate::run::{cargo, run, target_dir};
use crate::test::Sdks;
use crate::{figures, sdk};

/// Runs the sweeps of the SDK tests with that many tasks each.
pub fn soak(tasks: u32) -> Result<()> {
    let installed = sdk::install(Sdks::Required)?;
    run(cargo().args(["build", "--release", "--locked", "--package", "mainstay"]))?;
    let results = target_dir()?.join("soak");
    if results.exists() {
        std::fs::remove_dir_all(&results)?;
    }
    std::fs::create_dir_all(&results)?;
    let mut tests = cargo();
    tests.args([
        "test",
        "--release",
        "--locked",
        "--package",
        "testkit",
        "--test",
        "sdk",
    ]);
    tests.args(["sweep_", "--", "--nocapture", "--test-threads=1"]);
    crate::test::environment(&mut tests, &installed)?;
    tests.env("MAINSTAY_BIN", target_dir()?.join("release/mainstay"));
    tests.env("MAINSTAY_SWEEP_TASKS", tasks.to_string());
    tests.env("MAINSTAY_RESULTS", &results);
    run(&mut tests)?;
    figures::publish(&results)
}
