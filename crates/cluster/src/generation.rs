//! A generation on disk, as the hub reads it: `generations/NNN/fleet.json`, with the documents that
//! it was made of beside it.
//!
//! Written whole or not at all. The hub's log decides which one is current; this only proposes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use api::{Document, Fleet, Kind};

use crate::disk;

/// Generations kept besides those that open tasks pin.
const KEPT: usize = 10;

/// A complete generation.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) hash: String,
}

/// Writes a set as a generation above `current`, and above all that were written before. One of the
/// same content that was written last and never committed is used again.
pub(crate) fn write(
    state_dir: &Path,
    fleet: &Fleet,
    documents: &[Document],
    current: u64,
) -> io::Result<Generation> {
    let hash = fleet.hash();
    let newest = numbers(state_dir)?.last().copied().unwrap_or(0);
    if newest > current && load(state_dir, newest).is_some_and(|written| written.hash() == hash) {
        return Ok(Generation {
            number: newest,
            hash,
        });
    }
    let number = newest.max(current) + 1;
    let root = state_dir.join("generations");
    let temporary = root.join(format!(".new-{number}"));
    // What a crash left there may be of another set.
    let _left_by_a_crash = std::fs::remove_dir_all(&temporary);
    let manifests = temporary.join("manifests");
    disk::directory(&manifests)?;
    for (index, document) in documents.iter().enumerate() {
        let name = document.path.replace('/', "-");
        disk::write(
            &manifests.join(format!("{index:03}-{name}.json")),
            document.text.as_bytes(),
        )?;
    }
    let text = serde_json::to_vec_pretty(fleet).map_err(io::Error::other)?;
    disk::write(&temporary.join("fleet.json"), &text)?;
    let target = directory(state_dir, number);
    std::fs::rename(&temporary, &target)?;
    std::fs::File::open(&root)?.sync_all()?;
    Ok(Generation { number, hash })
}

/// The fleet of a generation, if it is there whole.
pub(crate) fn load(state_dir: &Path, number: u64) -> Option<Fleet> {
    let text = std::fs::read(directory(state_dir, number).join("fleet.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What the generations that are there name of artifacts; none if one of them can't be read.
pub(crate) fn artifacts(state_dir: &Path) -> io::Result<Option<BTreeSet<String>>> {
    let mut named = BTreeSet::new();
    for number in numbers(state_dir)? {
        let Some(fleet) = load(state_dir, number) else {
            return Ok(None);
        };
        let sources = fleet.agents.into_values().filter_map(|agent| agent.source);
        named.extend(sources.filter_map(|source| source.hash));
    }
    Ok(Some(named))
}

/// The documents of a generation, each with what it is of.
pub(crate) fn documents(state_dir: &Path, number: u64) -> Vec<((Kind, String), Document)> {
    let manifests = directory(state_dir, number).join("manifests");
    let entries = std::fs::read_dir(manifests).into_iter().flatten().flatten();
    let mut documents: Vec<((Kind, String), Document)> = entries
        .filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let object: serde_json::Value = serde_json::from_str(&text).ok()?;
            let document = api::kubernetes::document(&object);
            let kind = Kind::parse(object["kind"].as_str()?)?;
            let name = object["metadata"]["name"].as_str()?.to_owned();
            Some(((kind, name), document))
        })
        .collect();
    documents.sort_by(|one, other| one.0.cmp(&other.0));
    documents
}

/// Removes generations that neither the hub nor a person needs any more.
pub(crate) fn tidy(state_dir: &Path, current: u64, pins: &BTreeSet<u64>) -> io::Result<()> {
    let numbers = numbers(state_dir)?;
    let oldest = numbers.range(..=current).rev().nth(KEPT - 1);
    let Some(oldest) = oldest.copied() else {
        return Ok(());
    };
    for number in numbers
        .range(..oldest)
        .filter(|number| !pins.contains(number))
    {
        // Renamed first: a generation is there whole, or not at all.
        let aside = state_dir.join(format!("generations/.old-{number}"));
        std::fs::rename(directory(state_dir, *number), &aside)?;
        std::fs::remove_dir_all(&aside)?;
    }
    Ok(())
}

fn directory(state_dir: &Path, number: u64) -> PathBuf {
    state_dir.join(format!("generations/{number:03}"))
}

fn numbers(state_dir: &Path) -> io::Result<BTreeSet<u64>> {
    let root = state_dir.join("generations");
    disk::directory(&root)?;
    let names = std::fs::read_dir(root)?.flatten();
    Ok(names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(description: &str) -> Fleet {
        Fleet {
            description: description.into(),
            ..Fleet::empty("acme")
        }
    }

    #[test]
    fn what_was_written_and_never_committed_is_used_again() {
        let state = tempfile::tempdir().unwrap();
        let object = serde_json::json!({"apiVersion": "mainstay.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "a"}, "spec": {}});
        let documents = [api::kubernetes::document(&object)];
        let one = write(state.path(), &fleet("x"), &documents, 0).unwrap();
        assert_eq!(
            write(state.path(), &fleet("x"), &documents, 0)
                .unwrap()
                .number,
            one.number
        );
        assert_eq!(
            write(state.path(), &fleet("y"), &documents, 0)
                .unwrap()
                .number,
            2
        );
        assert_eq!(load(state.path(), 1).unwrap(), fleet("x"));
        let read = super::documents(state.path(), 1);
        assert_eq!(
            read,
            [((Kind::Agent, "a".to_owned()), documents[0].clone())]
        );
    }

    #[test]
    fn the_last_ten_and_the_pinned_stay() {
        let state = tempfile::tempdir().unwrap();
        for n in 1..=15 {
            write(state.path(), &fleet(&n.to_string()), &[], n - 1).unwrap();
        }
        tidy(state.path(), 15, &BTreeSet::from([2])).unwrap();
        let left: Vec<u64> = numbers(state.path()).unwrap().into_iter().collect();
        assert_eq!(left, [2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    }
}
