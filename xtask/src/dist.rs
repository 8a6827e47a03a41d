//! `cargo xtask dist`: what a person without a Rust tool chain installs.
//!
//! One static program, packed as a tarball and as a Debian package, with an SBOM and checksums.
//! Archives are reproducible: sorted names, owner 0, times of the commit. It uses `tar`, `gzip`
//! and `sha256sum`, which every Debian has; the package's outer `ar` archive is written here.

mod deb;
mod sbom;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::metadata::{self, TARGET};
use crate::run::{cargo, read, root, run, target_dir};

/// Builds everything into `target/dist`.
pub fn dist() -> Result<()> {
    let metadata = metadata::load()?;
    let mainstay = metadata.member("mainstay")?;
    let version = mainstay.version.clone();
    let target = target_dir()?;
    let program = build(&target)?;
    let dist = target.join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    fs::create_dir_all(&dist)?;

    let name = format!("mainstay-{version}-{TARGET}");
    let tarball = format!("{name}.tar.gz");
    tarball_of(&program, &dist.join(&name), &tarball)?;
    let package = deb::build(&program, &version, &dist)?;
    let built = metadata::built(Some("mainstay"))?;
    let bill = format!("mainstay-{version}.cdx.json");
    let text = serde_json::to_string_pretty(&sbom::bill(&metadata, &mainstay.id, &built)?)?;
    fs::write(dist.join(&bill), text + "\n")?;

    let files = [tarball.as_str(), package.as_str(), bill.as_str()];
    let sums = read(Command::new("sha256sum").args(files).current_dir(&dist))?;
    fs::write(dist.join("SHA256SUMS"), &sums)?;
    println!("{}", dist.display());
    print!("{sums}");
    println!("install: tar -xzf {tarball} && sudo install {name}/mainstay /usr/local/bin/");
    println!("     or: sudo dpkg -i {package}");
    Ok(())
}

/// The static program. The target is named so that build scripts and macros stay dynamic.
pub fn build(target: &Path) -> Result<std::path::PathBuf> {
    // A folder of its own: other flags would rebuild everything each time they change.
    let folder = target.join("static");
    run(cargo()
        .args(["build", "--release", "--locked", "--package", "mainstay"])
        .args(["--target", TARGET])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let program = folder.join(TARGET).join("release/mainstay");
    let bytes =
        fs::read(&program).with_context(|| format!("no program at {}", program.display()))?;
    if needs_interpreter(&bytes) {
        bail!("{} is not static", program.display());
    }
    Ok(program)
}

/// Whether an ELF file names a dynamic loader (a program header of type 3).
fn needs_interpreter(elf: &[u8]) -> bool {
    let word = |at: usize, size: usize| -> Option<u64> {
        let mut bytes = [0_u8; 8];
        bytes[..size].copy_from_slice(elf.get(at..at + size)?);
        Some(u64::from_le_bytes(bytes))
    };
    let header = || -> Option<(u64, u64, u64)> { Some((word(32, 8)?, word(54, 2)?, word(56, 2)?)) };
    let Some((offset, size, count)) = header() else {
        return true;
    };
    (0..count).any(|index| {
        usize::try_from(offset + index * size).map_or(true, |at| word(at, 4) == Some(3))
    })
}

fn tarball_of(program: &Path, folder: &Path, tarball: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    install(program, &folder.join("mainstay"), 0o755)?;
    for file in ["LICENSE", "README.md", "CHANGELOG.md"] {
        install(&root().join(file), &folder.join(file), 0o644)?;
    }
    let parent = folder.parent().context("no parent")?;
    let name = folder.file_name().context("no name")?;
    pack(parent, &[&name.to_string_lossy()], &parent.join(tarball))?;
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// Copies with a mode that doesn't depend on anybody's umask.
fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("failed to copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// A reproducible .tar.gz of some entries of a folder.
fn pack(folder: &Path, entries: &[&str], archive: &Path) -> Result<()> {
    let tar = archive.with_extension("");
    run(Command::new("tar")
        .args([
            "--create",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ])
        .args(["--format=gnu", "--mode=u+rwX,go+rX,go-w"])
        .arg(format!("--mtime=@{}", commit_time()))
        .arg("--file")
        .arg(&tar)
        .arg("--directory")
        .arg(folder)
        .args(entries))?;
    run(Command::new("gzip")
        .args(["--force", "--no-name", "-9"])
        .arg(&tar))
}

/// Seconds of the last commit, or 0 outside a repository.
fn commit_time() -> u64 {
    let asked = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .output();
    asked
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}
