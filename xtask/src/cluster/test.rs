//! `cluster test`: the tests of the second home, in a cluster of this machine. One that is up already
//! is used and stays up; otherwise one is started for them and taken down after.
//!
//! It hands over what tests can't find by themselves, in variables that `testkit::cluster` reads.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::build::POLICIES;
use super::layout::{HOST, Layout, NODES};
use super::record::{Cluster, Record};
use super::{down, fake, keda, missing, node, up};
use crate::image::hex;
use crate::image::mainstay::of_tests;
use crate::run::{cargo, root, run, target_dir};

/// The variable that names the evaluator of policies.
const EVALUATOR: &str = "MAINSTAY_TEST_POLICIES";
/// The operator's tests that ask it.
const REACH: &str = "reach";

/// Why no cluster can be used here, if so; cheap to ask.
pub fn why_not(layout: &Layout) -> Result<()> {
    if let Some(record) = Record::read(layout)?
        && let Some(checkout) = record.checkout
        && checkout != root()
    {
        bail!("the cluster that is up is that of {}", checkout.display());
    }
    missing::for_up()?;
    missing::for_go()?;
    missing::for_c()
}

/// The testbed's build beside other work: at the lowest priority, with its output in a file.
pub struct Building {
    build: Child,
    log: PathBuf,
}

impl Building {
    /// Starts it.
    pub fn start(layout: &Layout) -> Result<Self> {
        fs::create_dir_all(layout.cache())?;
        let log = layout.cache().join("build.log");
        let output = File::create(&log)?;
        let build = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .args(["cluster", "build", "--state"])
            .arg(&layout.state)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("failed to start the testbed's build")?;
        Ok(Self { build, log })
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<()> {
        let status = self.build.wait()?;
        let said = fs::read_to_string(&self.log)?;
        if !status.success() {
            bail!("the testbed's build failed: {}", said.trim());
        }
        for line in said.lines().filter(|line| line.starts_with("made ")) {
            eprintln!("  {line}");
        }
        Ok(())
    }
}

/// Runs the tests whose name contains `only`.
pub fn test(layout: &Layout, only: Option<&str>) -> Result<()> {
    why_not(layout)?;
    let was_up = Record::read(layout)?.is_some();
    up::up(layout.clone(), &fake::Fleet::new(0, &[])?)?;
    let tested = in_cluster(layout, only);
    if !was_up {
        down::down(layout.clone())?;
    }
    tested
}

/// What policies mean, by an evaluator that isn't ours; this one needs no cluster.
fn reach(layout: &Layout) -> Result<()> {
    let mut tests = cargo();
    let of_operator = ["--package", "operator", "--test", "it", REACH];
    tests.args(["test", "--locked"]).args(of_operator);
    run(tests.env(EVALUATOR, layout.program(POLICIES)))
}

/// Tells tests where that evaluator is, where it is built.
pub fn evaluator(tests: &mut Command) -> Result<()> {
    let program = Layout::new(None)?.program(POLICIES);
    if program.exists() {
        tests.env(EVALUATOR, program);
    }
    Ok(())
}

fn in_cluster(layout: &Layout, only: Option<&str>) -> Result<()> {
    if only.is_none_or(|only| REACH.contains(only)) {
        reach(layout)?;
    }
    let target = target_dir()?;
    let program = target.join("debug/mainstay");
    run(cargo().args(["build", "--locked", "--package", "mainstay"]))?;
    let steps = ["--package", "testkit", "--bin", "testkit-steps"];
    run(cargo().args(["build", "--locked"]).args(steps))?;
    let image = loaded(layout, &program, &program)?;
    let agent_image = loaded(layout, &target.join("debug/testkit-steps"), &program)?;
    let mut tests = cargo();
    tests.args([
        "test",
        "--locked",
        "--package",
        "testkit",
        "--test",
        "cluster",
    ]);
    tests.args(["--", "--nocapture"]);
    // Each of them waits for the same few pods; and a lost node is lost for all.
    tests.arg("--test-threads=1").args(only);
    tests
        .env("MAINSTAY_BIN", &program)
        .env("MAINSTAY_TEST_CLUSTER", layout.kubeconfig())
        .env("MAINSTAY_TEST_KUBECTL", layout.state.join("bin/kubectl"))
        .env("MAINSTAY_TEST_IMAGE", image)
        .env("MAINSTAY_TEST_AGENT_IMAGE", agent_image)
        .env("MAINSTAY_TEST_ADDRESS", HOST)
        .env("MAINSTAY_TEST_XTASK", std::env::current_exe()?)
        .env("MAINSTAY_TEST_STATE", &layout.state);
    if let Some(manifest) = keda::in_cluster(layout)? {
        tests.env("MAINSTAY_TEST_KEDA", manifest);
    }
    run(&mut tests)
}

/// An image with that program, imported into every node; its tag is the program's, so that whatever
/// runs an older one is rolled. Pods of it run `shim`, too.
fn loaded(layout: &Layout, program: &Path, shim: &Path) -> Result<String> {
    let content =
        fs::read(program).with_context(|| format!("failed to read {}", program.display()))?;
    let name = program.file_name().unwrap_or_default().display();
    let tag = &hex(&content)[..12];
    let image = format!("localhost/{name}:test-{tag}");
    let cluster = Cluster::open(layout.clone())?.context("no cluster is up")?;
    let archive: PathBuf = layout.image(&format!("test-{name}"));
    let mut is_written = false;
    for node in &NODES {
        if node::images(&cluster, node)?
            .lines()
            .any(|line| line == image)
        {
            continue;
        }
        if !is_written {
            of_tests(&image, program, shim)?.write(&archive)?;
            is_written = true;
        }
        node::import(&cluster, node, &archive.to_string_lossy())?;
    }
    Ok(image)
}
