//! A Debian package by hand: an `ar` archive of a version, the control files and the data.
//!
//! `dpkg-deb` would do it too, but isn't on every machine that can build the program.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::{commit_time, install, pack};
use crate::run::root;

/// Writes `mainstay_<version>_amd64.deb` into `dist` and returns its name.
pub fn build(program: &Path, version: &str, dist: &Path) -> Result<String> {
    let work = dist.join("deb");
    install(program, &work.join("data/usr/bin/mainstay"), 0o755)?;
    let documents = work.join("data/usr/share/doc/mainstay");
    install(&root().join("LICENSE"), &documents.join("copyright"), 0o644)?;
    install(
        &root().join("README.md"),
        &documents.join("README.md"),
        0o644,
    )?;
    let size = fs::metadata(program)?.len().div_ceil(1024);
    fs::create_dir_all(work.join("control"))?;
    fs::write(work.join("control/control"), control(version, size))?;
    pack(&work.join("data"), &["."], &work.join("data.tar.gz"))?;
    pack(&work.join("control"), &["."], &work.join("control.tar.gz"))?;

    let name = format!("mainstay_{version}_amd64.deb");
    let mut file = fs::File::create(dist.join(&name)).context("failed to create the package")?;
    file.write_all(b"!<arch>\n")?;
    member(&mut file, "debian-binary", b"2.0\n")?;
    for part in ["control.tar.gz", "data.tar.gz"] {
        member(&mut file, part, &fs::read(work.join(part))?)?;
    }
    file.sync_all()?;
    fs::remove_dir_all(&work)?;
    Ok(name)
}

fn control(version: &str, kibibytes: u64) -> String {
    format!(
        "Package: mainstay\n\
         Version: {version}\n\
         Architecture: amd64\n\
         Maintainer: Mainstay's authors\n\
         Installed-Size: {kibibytes}\n\
         Section: admin\n\
         Priority: optional\n\
         Description: Run a fleet of AI agents, crash-proof, budget-proof and auditable\n \
         One static program that starts agents, keeps them running, journals every model and\n \
         tool call before it leaves, and finishes tasks through crashes of any process.\n"
    )
}

/// One member of an `ar` archive: a header of fixed columns, the bytes, and a pad to an even size.
fn member(file: &mut fs::File, name: &str, bytes: &[u8]) -> Result<()> {
    let time = commit_time();
    writeln!(
        file,
        "{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`",
        0,
        0,
        "100644",
        bytes.len()
    )?;
    file.write_all(bytes)?;
    if bytes.len() % 2 == 1 {
        file.write_all(b"\n")?;
    }
    Ok(())
}
