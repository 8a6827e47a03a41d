//! The official SDKs, which tests use as agents and as clients: Python's in `.venv`, Node's in
//! `tests/node/node_modules`. Versions are pinned by `tests/requirements.txt` and
//! `tests/node/package-lock.json`; an installation of the pinned versions is used again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{is_installed, root, run};
use crate::test::Sdks;

/// What could be set up, and a line for each that could not.
#[derive(Default)]
pub struct Installed {
    /// The virtual environment's interpreter.
    pub python: Option<PathBuf>,
    /// The folder whose `node_modules` holds the packages.
    pub node: Option<PathBuf>,
    pub left_out: Vec<String>,
}

/// Installs what the tests need into the checkout.
pub fn install(sdks: Sdks) -> Result<Installed> {
    let mut installed = Installed::default();
    match python() {
        Ok(path) => installed.python = Some(path),
        Err(why) => installed.left_out.push(format!(
            "the Python SDK tests are left out: {why:#} (Debian: apt install python3-venv)"
        )),
    }
    match node() {
        Ok(path) => installed.node = Some(path),
        Err(why) => installed.left_out.push(format!(
            "the Node SDK tests are left out: {why:#} (Debian: apt install nodejs npm)"
        )),
    }
    for line in &installed.left_out {
        eprintln!("test: {line}");
    }
    if sdks == Sdks::Required && !installed.left_out.is_empty() {
        bail!("the SDK tests are required here");
    }
    Ok(installed)
}

fn python() -> Result<PathBuf> {
    environment(
        &root().join(".venv"),
        &root().join("tests/requirements.txt"),
    )
}

/// A virtual environment with exactly these packages; returns its interpreter.
pub fn environment(venv: &Path, wanted: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    let stamp = venv.join("installed-requirements.txt");
    if is_same(wanted, &stamp) && python.is_file() {
        return Ok(python);
    }
    if !is_installed("python3") {
        bail!("python3 is not installed");
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(venv))
    .context("python3 has no working venv module")?;
    // Old pips fail on source packages whose metadata is newer than they are.
    pip(&python, &["--upgrade", "pip"])?;
    pip(&python, &["--requirement", &wanted.to_string_lossy()])?;
    fs::copy(wanted, &stamp).context("failed to note what is installed")?;
    Ok(python)
}

fn pip(python: &Path, what: &[&str]) -> Result<()> {
    let arguments = ["-m", "pip", "install", "--quiet", "--no-input"];
    run(Command::new(python).args(arguments).args(what)).context("pip could not install")
}

fn node() -> Result<PathBuf> {
    let folder = root().join("tests/node");
    modules(&folder)?;
    Ok(folder)
}

/// A `node_modules` with exactly what the folder's lock file names.
pub fn modules(folder: &Path) -> Result<()> {
    let wanted = folder.join("package-lock.json");
    let stamp = folder.join("node_modules/installed-package-lock.json");
    if is_same(&wanted, &stamp) {
        return Ok(());
    }
    for program in ["node", "npm"] {
        if !is_installed(program) {
            bail!("{program} is not installed");
        }
    }
    let arguments = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--silent",
    ];
    run(Command::new("npm").args(arguments).current_dir(folder))
        .context("npm could not install")?;
    fs::copy(&wanted, &stamp).context("failed to note what is installed")?;
    Ok(())
}

fn is_same(wanted: &Path, stamp: &Path) -> bool {
    match (fs::read(wanted), fs::read(stamp)) {
        (Ok(wanted), Ok(stamp)) => wanted == stamp,
        _ => false,
    }
}
