//! A generation on disk: `generations/NNN/` with the manifests as written and the fleet they mean.
//!
//! Written whole or not at all. The hub's log decides which one is current; this only proposes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use api::{Fleet, Kind, Problem, Problems};

use crate::artifact::{self, ArtifactError};
use crate::manifest::Set;
use crate::state::{State, StateError, at, write_atomically};

/// A complete generation.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) hash: String,
    pub(crate) fleet: Fleet,
}

/// The directory of a generation, three digits at least.
pub(crate) fn directory(state: &State, number: u64) -> PathBuf {
    state.root.join(format!("generations/{number:03}"))
}

/// Copies the sources of every agent and notes their hashes in the fleet.
pub(crate) fn store_sources(state: &State, set: &mut Set) -> Result<(), Problems> {
    let mut wrong = Vec::new();
    for agent in set.fleet.agents.values_mut() {
        let Some(source) = &mut agent.source else {
            continue;
        };
        match artifact::store(state, source.path.as_ref()) {
            Ok(hash) => source.hash = Some(hash),
            Err(error) => wrong.push((agent.name.clone(), error)),
        }
    }
    let problems: Vec<Problem> = wrong
        .iter()
        .map(|(agent, error)| {
            let message = format!("`spec.source` {}", chain(error));
            let problem = set.problem(Kind::Agent, agent, "spec.source", message);
            match error {
                ArtifactError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    problem.with_hint("a path starts at the manifest's directory")
                }
                _ => problem,
            }
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Writes a set as a generation above `current`; one of the same content that was written before
/// and never committed is used again.
pub(crate) fn write(state: &State, set: &Set, current: u64) -> Result<Generation, StateError> {
    write_on(state, set, current, &mut |_| Ok(()))
}

/// The same with whoever is told before each change on disk what changes: an error there is the
/// disk's, and a sweep stops there as a kill would.
fn write_on(
    state: &State,
    set: &Set,
    current: u64,
    before: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> Result<Generation, StateError> {
    let mut before = |path: &Path| before(path).map_err(at("write", path));
    let hash = set.fleet.hash();
    let newest = newest(state)?;
    if newest > current
        && let Some(written) = load(state, newest)
        && written.hash == hash
    {
        return Ok(written);
    }
    let number = newest.max(current).checked_add(1);
    // The hub names what is current.
    let number = number.ok_or_else(|| {
        at("number", &state.root)(io::Error::other("there is no number after the current one"))
    })?;
    let target = directory(state, number);
    let new = format!("generations/.new-{number}");
    before(&state.root.join(&new))?;
    // What a crash left there may be of another set.
    let _left_by_a_crash = std::fs::remove_dir_all(state.root.join(&new));
    let temporary = state.directory(&new, hub_mode(state), true)?;
    let manifests = format!("{new}/manifests");
    before(&state.root.join(&manifests))?;
    let manifests = state.directory(&manifests, hub_mode(state), true)?;
    for (index, document) in set.documents.iter().enumerate() {
        let name = std::path::Path::new(&document.path);
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let path = manifests.join(format!("{index:03}-{name}"));
        before(&path)?;
        write_atomically(&path, document.text.as_bytes(), file_mode(state))
            .map_err(at("write", &path))?;
    }
    let path = temporary.join("fleet.json");
    let text = serde_json::to_vec_pretty(&set.fleet)
        .map_err(|error| at("write", &path)(io::Error::other(error)))?;
    before(&path)?;
    write_atomically(&path, &text, file_mode(state)).map_err(at("write", &path))?;
    let _left_by_a_crash = std::fs::remove_dir_all(&target);
    before(&target)?;
    std::fs::rename(&temporary, &target).map_err(at("write", &target))?;
    let parent = state.root.join("generations");
    before(&parent)?;
    File::open(&parent)
        .and_then(|directory| directory.sync_all())
        .map_err(at("flush", &parent))?;
    Ok(Generation {
        number,
        hash,
        fleet: set.fleet.clone(),
    })
}

/// Setgid where users are separate: the hub's group owns what is written below.
fn hub_mode(state: &State) -> u32 {
    if state.users.separate { 0o2750 } else { 0o700 }
}

fn file_mode(state: &State) -> u32 {
    if state.users.separate { 0o640 } else { 0o600 }
}

/// The generation with this number, if it is there whole.
pub(crate) fn load(state: &State, number: u64) -> Option<Generation> {
    let text = std::fs::read(directory(state, number).join("fleet.json")).ok()?;
    let fleet: Fleet = serde_json::from_slice(&text).ok()?;
    Some(Generation {
        number,
        hash: fleet.hash(),
        fleet,
    })
}

fn newest(state: &State) -> Result<u64, StateError> {
    let path = state.root.join("generations");
    let entries = std::fs::read_dir(&path).map_err(at("read", &path))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .max()
        .unwrap_or(0))
}

#[cfg(test)]
mod tests;
