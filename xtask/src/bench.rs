//! `cargo xtask bench`: builds the release program and runs the measurements of `testkit`.
//!
//! The measuring itself is `crates/testkit/benches/figures`, one file per figure; this chore only
//! builds, runs and puts what was measured into docs/benchmarks.md.

use std::path::Path;

use anyhow::Result;

use crate::run::{cargo, read, run, target_dir};
use crate::{figures, peers};

/// Measurements that live beside what they measure: package, example, arguments, section.
const EXAMPLES: &[(&str, &str, &[&str], &str)] = &[
    (
        "hub",
        "steps_bench",
        &["DIR", "64", "500", "512"],
        "steps-process",
    ),
    ("store", "append_bench", &["DIR"], "log-appends"),
];

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
    peers::install(&target_dir()?, only, &mut measure);
    run(&mut measure)?;
    for (package, example, arguments, section) in EXAMPLES {
        if only.is_none_or(|only| section.contains(only)) {
            let text = example_output(&results, package, example, arguments)?;
            std::fs::write(results.join(format!("{section}.md")), text)?;
        }
    }
    figures::publish(&results)
}

/// Runs an example on a directory of the file system that the build uses, and returns its words.
fn example_output(results: &Path, package: &str, name: &str, arguments: &[&str]) -> Result<String> {
    let folder = results.join(name);
    let folder_text = folder.to_string_lossy();
    let arguments = arguments
        .iter()
        .map(|word| if *word == "DIR" { &*folder_text } else { word });
    let arguments: Vec<&str> = arguments.collect();
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--locked"]);
    command
        .args(["--package", package, "--example", name, "--"])
        .args(&arguments);
    let output = read(&mut command)?;
    let _left_for_the_next_build = std::fs::remove_dir_all(&folder);
    let shown = arguments.join(" ").replace(&*folder_text, "DIR");
    Ok(format!(
        "`cargo run --release -p {package} --example {name} -- {shown}`\n\n```text\n{}\n```\n",
        output.trim()
    ))
}
