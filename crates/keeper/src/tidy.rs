//! What nothing needs any more: old generations, the artifacts that only they name, and what
//! instances left that the fleet no longer has. Volumes and logs stay.
//!
//! Safe against a crash at any point: a thing is renamed aside in one step before it is taken
//! apart, generations before the artifacts they name, and what lies aside is found again by the
//! next round. Taking apart happens in a process of its own, for there may be a million files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use api::Fleet;

use crate::artifact;
use crate::generation;
use crate::state::State;

/// Generations kept besides those that something pins: to look at, and to return to.
const KEPT: usize = 10;
/// How names of things aside begin.
const ASIDE: &str = ".old-";

/// What stays, besides the newest generations.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) current: u64,
    /// Generations that open tasks pin, by the hub's word.
    pub(crate) pins: BTreeSet<u64>,
    /// Artifacts of a set that is no generation yet.
    pub(crate) artifacts: BTreeSet<String>,
}

/// The artifacts that a fleet names.
pub(crate) fn artifacts(fleet: &Fleet) -> impl Iterator<Item = String> {
    let sources = fleet
        .agents
        .values()
        .filter_map(|agent| agent.source.as_ref());
    sources.filter_map(|source| source.hash.clone())
}

/// Puts aside what isn't kept; returns all that lies aside, from earlier rounds too.
pub(crate) fn generations(state: &State, keep: &Keep) -> io::Result<Vec<PathBuf>> {
    let root = state.root.join("generations");
    let numbers = numbers(&root)?;
    let mut past = numbers.range(..=keep.current).rev();
    let oldest = past.nth(KEPT - 1).copied().unwrap_or(0);
    let gone = |number: &u64| *number < oldest && !keep.pins.contains(number);
    for number in numbers.iter().filter(|number| gone(number)) {
        aside(&generation::directory(state, *number))?;
    }
    let mut aside = lying_aside(&root)?;
    aside.extend(unnamed_artifacts(state, keep, &root)?);
    Ok(aside)
}

fn unnamed_artifacts(state: &State, keep: &Keep, generations: &Path) -> io::Result<Vec<PathBuf>> {
    let root = state.root.join("artifacts");
    let mut named = keep.artifacts.clone();
    for number in numbers(generations)? {
        let Some(generation) = generation::load(state, number) else {
            // It may name any of them, if only to a newer program.
            tracing::warn!(number, "a generation can't be read: all artifacts stay");
            return lying_aside(&root);
        };
        named.extend(artifacts(&generation.fleet));
    }
    for name in names(&root)? {
        if !name.starts_with('.') && !named.contains(&name) {
            aside(&root.join(name))?;
        }
    }
    lying_aside(&root)
}

/// Puts aside the scratch directory of an instance that is gone for good, and removes its spool if
/// the hub's log has all of it.
pub(crate) fn instance(state: &State, name: &str) -> io::Result<Vec<PathBuf>> {
    let spool = state.run(&format!("{name}.spool"));
    if crate::shim::is_settled(&spool)? {
        std::fs::remove_file(&spool)?;
    }
    let homes = state.run("home");
    let scratch = homes.join(name);
    if scratch.is_dir() {
        aside(&scratch)?;
    }
    lying_aside(&homes)
}

/// Takes apart what lies aside, in a process of its own.
pub(crate) fn take_apart(aside: Vec<PathBuf>) -> io::Result<()> {
    if aside.is_empty() {
        return Ok(());
    }
    sandbox::fork::fork(|| {
        sandbox::descriptors::close_all_but(&[]);
        for path in aside {
            let _found_again_by_the_next_round = artifact::remove(&path);
        }
        0
    })
    .map(drop)
}

fn aside(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // One of the same name may be taken apart at this moment.
    let names = (0..1000).map(|n| path.with_file_name(format!("{ASIDE}{name}-{n}")));
    let mut free = names.filter(|aside| std::fs::symlink_metadata(aside).is_err());
    let aside = free.next().ok_or(io::ErrorKind::AlreadyExists)?;
    std::fs::rename(path, aside)
}

fn lying_aside(root: &Path) -> io::Result<Vec<PathBuf>> {
    let names = names(root)?.into_iter();
    let aside = names.filter(|name| name.starts_with(ASIDE));
    Ok(aside.map(|name| root.join(name)).collect())
}

fn numbers(root: &Path) -> io::Result<BTreeSet<u64>> {
    let names = names(root)?.into_iter();
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

fn names(root: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(root)?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}
