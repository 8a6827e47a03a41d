//! Builds what a cluster is started from: Go programs, one per module of `testbed/` so that their
//! dependencies never collide, the pause program, and images of those that run in pods. Results lie
//! in the cache with a fingerprint of their sources; a program is built again when that changes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::layout::Layout;
use super::{missing, process};
use crate::image::{Content, Image, SOURCES, hex};
use crate::run::root;

/// A program of a Go module.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The module's folder.
    pub(super) module: &'static str,
    pub(super) package: &'static str,
    /// The module whose version the program calls its own, and the variable that holds it.
    pub(super) version: Option<(&'static str, &'static str)>,
}

const PROGRAMS: [Program; 6] = [
    Program {
        name: "kubernetes",
        module: "kubernetes",
        package: ".",
        version: Some((
            "k8s.io/kubernetes",
            "k8s.io/component-base/version.gitVersion",
        )),
    },
    Program {
        name: "coredns",
        module: "coredns",
        package: "github.com/coredns/coredns",
        version: None,
    },
    Program {
        name: "kwok",
        module: "kwok",
        package: "sigs.k8s.io/kwok/cmd/kwok",
        version: Some(("sigs.k8s.io/kwok", "sigs.k8s.io/kwok/pkg/consts.Version")),
    },
    Program {
        name: "helm",
        module: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
        version: Some((
            "helm.sh/helm/v4",
            "helm.sh/helm/v4/internal/version.version",
        )),
    },
    Program {
        name: "probe",
        module: "probe",
        package: ".",
        version: None,
    },
    Program {
        name: POLICIES,
        module: POLICIES,
        package: ".",
        version: None,
    },
];

/// An evaluator of NetworkPolicies that isn't ours.
pub const POLICIES: &str = "policies";

/// Images are named after their program, `localhost/NAME:testbed`: no registry is ever asked.
pub const IMAGES: [&str; 3] = ["pause", "coredns", "probe"];

/// The name of one of `IMAGES`.
pub fn image_name(of: &str) -> String {
    format!("localhost/{of}:testbed")
}

/// Builds whatever is not built yet.
pub fn build(layout: &Layout) -> Result<()> {
    let _lock = lock(layout)?;
    for program in &PROGRAMS {
        program.build(layout)?;
    }
    stages(layout)?;
    pause(layout)?;
    for name in IMAGES {
        image(layout, name, &[name])?;
    }
    Ok(())
}

/// Nobody else builds meanwhile.
pub(super) fn lock(layout: &Layout) -> Result<File> {
    for folder in ["bin", "images"] {
        fs::create_dir_all(layout.cache().join(folder))?;
    }
    let lock = File::create(layout.cache().join("lock"))?;
    lock.lock().context("failed to lock the cache")?;
    Ok(lock)
}

impl Program {
    pub(super) fn build(&self, layout: &Layout) -> Result<()> {
        let folder = module(self.module);
        let flags = self.flags(&folder)?;
        let to = layout.program(self.name);
        once(&to, &fingerprint(&folder, &flags)?, || {
            let mut go = go(layout)?;
            go.args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &flags])
                .arg("-o")
                .arg(&to)
                .arg(self.package)
                .current_dir(folder)
                .env("CGO_ENABLED", "0");
            crate::run::run(&mut go)
        })
    }

    fn flags(&self, folder: &Path) -> Result<String> {
        let Some((module, variable)) = self.version else {
            return Ok("-s -w".to_owned());
        };
        let text = fs::read_to_string(folder.join("go.mod"))?;
        let version = version_of(&text, module)
            .with_context(|| format!("{}/go.mod doesn't require {module}", folder.display()))?;
        Ok(format!("-s -w -X {variable}={version}"))
    }
}

/// Go, with its caches beside what is built, so that whoever keeps that folder keeps them.
fn go(layout: &Layout) -> Result<Command> {
    missing::for_go()?;
    let mut go = Command::new("go");
    go.env("GOCACHE", layout.go("build"))
        .env("GOMODCACHE", layout.go("modules"))
        // Otherwise nobody but `go clean` could remove them.
        .env("GOFLAGS", "-modcacherw");
    Ok(go)
}

pub(super) fn module(name: &str) -> PathBuf {
    root().join("testbed").join(name)
}

/// The version that a go.mod requires of a module.
fn version_of<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word == "require");
        (words.next()? == module).then(|| words.next())?
    })
}

/// What KWOK's nodes and pods go through, in one file: as its module has it, none of it ours.
fn stages(layout: &Layout) -> Result<()> {
    let folder = module("kwok");
    let to = layout.program("kwok-stages.yaml");
    once(&to, &fingerprint(&folder, "stages")?, || {
        let source = required(layout, &folder, "sigs.k8s.io/kwok")?.join("kustomize/stage");
        let mut text = String::new();
        for part in ["node/fast", "node/heartbeat-with-lease", "pod/fast"] {
            for file in sorted(&source.join(part))? {
                if file.is_file() && !file.ends_with("kustomization.yaml") {
                    text.push_str("---\n");
                    text.push_str(&fs::read_to_string(file)?);
                }
            }
        }
        fs::write(&to, text).context("failed to write KWOK's stages")
    })
}

fn pause(layout: &Layout) -> Result<()> {
    let folder = module("pause");
    let to = layout.program("pause");
    once(&to, &fingerprint(&folder, "-static -Os -s")?, || {
        missing::for_c()?;
        let mut compiler = Command::new("gcc");
        compiler
            .args(["-static", "-Os", "-s", "-o"])
            .arg(&to)
            .arg(folder.join("pause.c"));
        process::quiet(&mut compiler).map(drop)
    })
}

/// An image of these programs, called like the one that it begins with.
pub(super) fn image(layout: &Layout, name: &str, programs: &[&str]) -> Result<()> {
    let to = layout.image(name);
    let mut made_from = String::new();
    for program in programs {
        made_from += &fs::read_to_string(stamp(&layout.program(program)))?;
    }
    made_from += &SOURCES.concat();
    once(&to, &hex(made_from.as_bytes()), || {
        let file = |program: &&str| {
            let content = Content::Program(layout.program(program));
            ((*program).to_owned(), content)
        };
        let image = Image {
            name: image_name(name),
            entrypoint: vec![format!("/{name}")],
            files: programs.iter().map(file).collect(),
        };
        image.write(&to)
    })
}

/// Where Go has the files of a module that ours requires.
pub(super) fn required(layout: &Layout, folder: &Path, module: &str) -> Result<PathBuf> {
    let mut list = go(layout)?;
    list.args(["list", "-m", "-f", "{{.Dir}}", module])
        .current_dir(folder);
    Ok(crate::run::read(&mut list)?.trim().into())
}

/// Makes a file unless it was made from the same before.
pub(super) fn once(to: &Path, fingerprint: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = stamp(to);
    if to.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == fingerprint) {
        return Ok(());
    }
    let started = Instant::now();
    make()?;
    fs::write(&stamp, fingerprint)?;
    eprintln!(
        "made {} in {:.1} s",
        to.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The file beside a made one that says what it was made from.
pub(super) fn stamp(of: &Path) -> PathBuf {
    of.with_added_extension("made-from")
}

pub(super) fn fingerprint(folder: &Path, flags: &str) -> Result<String> {
    let mut text = flags.to_owned();
    for file in sorted(folder)? {
        if file.is_file() {
            let name = file.file_name().unwrap_or_default().display();
            text.push_str(&format!("\n{name} {}", hex(&fs::read(&file)?)));
        }
    }
    Ok(hex(text.as_bytes()))
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
