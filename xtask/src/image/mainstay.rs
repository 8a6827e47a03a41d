//! `cargo xtask image`: Mainstay's own image, `FROM scratch`: the program at `/bin/mainstay`,
//! Mozilla's root certificates, `/tmp`, and nothing else.
//!
//! What ships holds the static release build. With `--debug` it is the build that tests use, with
//! the libraries that it's linked with: a static build of that one would compile everything twice.
//! Such a program runs where an image has these libraries, so it's for images of tests only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Content, Image};
use crate::run::{cargo, read, run, target_dir};
use crate::{dist, metadata};

/// Where pods expect it; `contract::pod` has the same.
const PROGRAM: &str = "bin/mainstay";
/// Where programs look for roots on Debian, and rustls on any machine.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";

/// What the command line says of `image`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Its name with a tag; by default localhost/mainstay and the version.
    #[arg(long)]
    name: Option<String>,
    /// Where the archive goes; by default target/dist/mainstay-VERSION-image.tar.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the OCI layout into this folder, too.
    #[arg(long)]
    layout: Option<PathBuf>,
    /// The debug build with the libraries that it's linked with: for tests.
    #[arg(long)]
    debug: bool,
}

/// Builds the program and the image.
pub fn image(arguments: Arguments) -> Result<()> {
    let target = target_dir()?;
    let version = metadata::load()?.member("mainstay")?.version.clone();
    let name = arguments
        .name
        .unwrap_or_else(|| format!("localhost/mainstay:{version}"));
    let out = arguments
        .out
        .unwrap_or_else(|| target.join(format!("dist/mainstay-{version}-image.tar")));
    let image = if arguments.debug {
        run(cargo().args(["build", "--locked", "--package", "mainstay"]))?;
        let program = target.join("debug/mainstay");
        of_tests(&name, &program, &program)?
    } else {
        Image {
            name,
            entrypoint: vec![format!("/{PROGRAM}")],
            files: with_roots(vec![(
                PROGRAM.to_owned(),
                Content::Program(dist::build(&target)?),
            )]),
        }
    };
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder)?;
    }
    image.write(&out)?;
    if let Some(layout) = &arguments.layout {
        image.write_layout(layout)?;
    }
    println!("{}", out.display());
    Ok(())
}

/// An image for tests: a program in `/bin` with its libraries and those of `guest`, another that is
/// copied into its pods.
pub fn of_tests(name: &str, program: &Path, guest: &Path) -> Result<Image> {
    let file = program.file_name().context("a program has no name")?;
    let at = format!("bin/{}", file.display());
    let entrypoint = vec![format!("/{at}")];
    let mut files = vec![(at, Content::Program(stripped(program)?))];
    let libraries: BTreeSet<String> = linked(program)?.into_iter().chain(linked(guest)?).collect();
    for library in libraries {
        let at = library.trim_start_matches('/').to_owned();
        files.push((at, Content::Program(library.into())));
    }
    Ok(Image {
        name: name.to_owned(),
        entrypoint,
        files: with_roots(files),
    })
}

fn with_roots(mut files: Vec<(String, Content)>) -> Vec<(String, Content)> {
    files.push((ROOTS.to_owned(), Content::Text(roots().into_bytes())));
    files
}

/// Mozilla's roots, as files of that name have them (RFC 7468). Without any the program's HTTP
/// client isn't even made.
fn roots() -> String {
    let mut text = String::new();
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(root);
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// A copy without names and line numbers, which are half of it.
fn stripped(program: &Path) -> Result<PathBuf> {
    let copy = program.with_added_extension("stripped");
    run(Command::new("strip")
        .args(["--strip-all", "-o"])
        .arg(&copy)
        .arg(program))?;
    Ok(copy)
}

/// What the dynamic loader would load for it, itself included.
fn linked(program: &Path) -> Result<Vec<String>> {
    Ok(parse_ldd(&read(Command::new("ldd").arg(program))?))
}

/// Lines such as `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn parse_ldd(text: &str) -> Vec<String> {
    let words = text.lines().map(|line| line.split_whitespace());
    words
        .filter_map(|mut words| words.find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_would_load_is_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007f32d46c5000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f32d061e000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f32d46c7000)\n";
        assert_eq!(
            parse_ldd(text),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(parse_ldd("\tstatically linked\n"), Vec::<String>::new());
    }

    #[test]
    fn the_roots_are_certificates_that_openssl_would_read() {
        let text = roots();
        assert!(text.matches("-----BEGIN CERTIFICATE-----\nMII").count() > 100);
        assert!(
            text.lines()
                .all(|line| line.len() <= 64 && !line.is_empty())
        );
    }
}
