//! Which users a state's hub and agents have, so that two states on one machine don't share them.
//!
//! A user of one state's agents could signal and trace those of another that had the same. Each
//! state has a block of numbers for good, because its volumes are owned by them: the state says
//! which, and a directory of the machine says whose each block is. A claim counts as long as the
//! state it names says the same; the state of a removed directory is no state.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::state::{read_file, write_atomically};
use crate::users::{FIRST_BLOCK, blocks};

/// The machine's list. It outlives a boot, as the volumes do.
pub(crate) const REGISTRY: &str = "/var/lib/mainstay-users";
/// What a state says of itself.
const FILE: &str = "users.json";
/// What one of these files may hold; whoever remade a state's directory may have put anything there.
const MAX_BYTES: u64 = 64 * 1024;

/// A block as its state knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Block {
    base: u32,
    /// Tells a state from another that lies at the same path later, and finds one that was moved.
    id: String,
}

/// A block as the machine knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    state: PathBuf,
    id: String,
}

/// The first number of this state's block, and what a person should know about it.
pub(crate) fn block(root: &Path, registry: &Path) -> (u32, Option<String>) {
    let own = own(root);
    let base = own.as_ref().map_or(FIRST_BLOCK, |own| own.base);
    match claim(root, registry, own) {
        Ok((base, None)) => (base, None),
        Ok((base, Some(other))) => {
            let text = format!(
                "this state has the same users ({base} and up) as the one in {}: their agents are not kept apart; don't run both",
                other.display()
            );
            (base, Some(text))
        }
        Err(error) => {
            let text = format!(
                "{} can't be used ({error}): agents of another state on this machine may have the same users",
                registry.display()
            );
            (base, Some(text))
        }
    }
}

/// What the state says; one from before it said anything has the first block.
fn own(root: &Path) -> Option<Block> {
    read(&root.join(FILE)).or_else(|| {
        let used = root.join("instances.json").exists();
        let base = FIRST_BLOCK;
        used.then(|| random_id().ok())?.map(|id| Block { base, id })
    })
}

/// Claims a block under the registry's lock; returns its base, and who else lives in it.
fn claim(root: &Path, registry: &Path, own: Option<Block>) -> io::Result<(u32, Option<PathBuf>)> {
    let _lock = lock(registry)?;
    let held = held(registry)?;
    let block = match own {
        Some(own) => own,
        None => {
            let free = blocks().find(|base| !held.contains_key(base));
            let base = free.ok_or_else(|| io::Error::other("no block of users is left"))?;
            let id = random_id()?;
            Block { base, id }
        }
    };
    let other = held.get(&block.base);
    if let Some(other) = other.filter(|other| other.state.as_path() != root) {
        return Ok((block.base, Some(other.state.clone())));
    }
    let claim = Claim {
        state: root.to_owned(),
        id: block.id.clone(),
    };
    // In this order: a claim that its state doesn't confirm is void.
    write(&registry.join(block.base.to_string()), &claim)?;
    write(&root.join(FILE), &block)?;
    Ok((block.base, None))
}

fn lock(registry: &Path) -> io::Result<File> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(registry)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(registry.join("lock"))?;
    rustix::fs::flock(file.as_fd(), rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

/// The claims that their states confirm.
fn held(registry: &Path) -> io::Result<BTreeMap<u32, Claim>> {
    let mut held = BTreeMap::new();
    for entry in std::fs::read_dir(registry)?.flatten() {
        let base = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(base) = base
            && let Some(claim) = read::<Claim>(&entry.path())
            && let Some(block) = read::<Block>(&claim.state.join(FILE))
            && block.base == base
            && block.id == claim.id
        {
            held.insert(base, claim);
        }
    }
    Ok(held)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read_file(path, MAX_BYTES).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    write_atomically(path, &text, 0o600)
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(directory: &Path, name: &str) -> PathBuf {
        let root = directory.join(name);
        std::fs::create_dir(&root).unwrap();
        root
    }

    #[test]
    fn each_state_has_a_block_of_its_own_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let registry = directory.path().join("users");
        let (a, b) = (state(directory.path(), "a"), state(directory.path(), "b"));
        let first = block(&a, &registry).0;
        let second = block(&b, &registry).0;
        assert_ne!(first, second);
        assert_eq!(block(&a, &registry), (first, None));
        // Moved, it is the same state.
        let moved = directory.path().join("moved");
        std::fs::rename(&a, &moved).unwrap();
        assert_eq!(block(&moved, &registry), (first, None));
        // Removed, its block is free.
        std::fs::remove_dir_all(&moved).unwrap();
        assert_eq!(
            block(&state(directory.path(), "c"), &registry),
            (first, None)
        );
    }

    #[test]
    fn a_copy_keeps_the_users_that_own_its_volumes_and_says_whose_they_are_too() {
        let directory = tempfile::tempdir().unwrap();
        let registry = directory.path().join("users");
        let (a, copy) = (
            state(directory.path(), "a"),
            state(directory.path(), "copy"),
        );
        let (base, _) = block(&a, &registry);
        std::fs::copy(a.join(FILE), copy.join(FILE)).unwrap();
        let (same, warning) = block(&copy, &registry);
        assert_eq!(same, base);
        assert!(warning.unwrap().contains(&a.display().to_string()));
        assert_eq!(
            block(&a, &registry),
            (base, None),
            "the first is not put out"
        );
    }

    #[test]
    fn a_state_of_an_earlier_version_has_the_first_block() {
        let directory = tempfile::tempdir().unwrap();
        let old = state(directory.path(), "old");
        std::fs::write(old.join("instances.json"), "{}").unwrap();
        let registry = directory.path().join("users");
        assert_eq!(block(&old, &registry), (FIRST_BLOCK, None));
        let nowhere = old.join("instances.json/registry");
        let (base, warning) = block(&old, &nowhere);
        assert!(base == FIRST_BLOCK && warning.is_some());
    }
}
