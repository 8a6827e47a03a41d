//! A view of the files in which an unprivileged user can reach the paths it was given.
//!
//! Theory: when root runs everything below a directory that only root may enter (`/root`, a fresh
//! `mktemp -d`), a child with a user of its own could not even reach its own code. Opening the
//! directory would let everybody in. Instead the child gets a mount namespace in which such a
//! directory is an empty one that holds just the wanted paths. It hides nothing that the user
//! could have reached otherwise, and paths keep their names.

mod namespace;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use probe::{Barred, Use, barred};

/// The first directory on the way to `path` that this user can't enter.
#[must_use]
pub fn first_closed(path: &Path, user: (u32, u32)) -> Option<PathBuf> {
    closed_on_the_way(path, user).into_iter().next()
}

/// Every directory on the way to `path`, itself included, that this user can't enter.
fn closed_on_the_way(path: &Path, (uid, gid): (u32, u32)) -> Vec<PathBuf> {
    let (mut at, mut closed) = (PathBuf::new(), Vec::new());
    for component in path.components() {
        at.push(component);
        match std::fs::metadata(&at) {
            Ok(found) if found.is_dir() && !may_enter(&found, uid, gid) => closed.push(at.clone()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    closed
}

fn may_enter(directory: &Metadata, uid: u32, gid: u32) -> bool {
    let needed = if directory.uid() == uid {
        0o100
    } else if directory.gid() == gid {
        0o010
    } else {
        0o001
    };
    directory.mode() & needed != 0
}

/// A closed directory, and what stands in its place.
#[derive(Debug)]
struct Closed {
    directory: CString,
    /// What to make inside it, parents first: directories, and files (false) to mount files on.
    make: Vec<(CString, bool)>,
    wanted: Vec<CString>,
}

/// A mount namespace in which this user reaches all of `wanted`; `None` if it does
/// already. Needs root. The calling process stays where it is.
pub fn view(wanted: &[PathBuf], user: (u32, u32)) -> io::Result<Option<OwnedFd>> {
    let plan = plan(wanted, user)?;
    if plan.is_empty() {
        return Ok(None);
    }
    namespace::build(&plan).map(Some)
}

/// What to replace, outer directories first. A directory that is closed itself can't be opened by
/// mounting it elsewhere, so it is left out: what is wanted inside it is mounted alone.
fn plan(wanted: &[PathBuf], user: (u32, u32)) -> io::Result<Vec<Closed>> {
    let mut ways = BTreeMap::new();
    for path in wanted.iter().filter_map(|path| path.canonicalize().ok()) {
        let closed = closed_on_the_way(&path, user);
        if closed.last() != Some(&path) {
            ways.insert(path, closed);
        }
    }
    let mut by_closed: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    // Sorted: a directory comes before what lies in it.
    for (path, ways_closed) in &ways {
        let mut rest = ways_closed.as_slice();
        while let Some((outer, inner)) = rest.split_first() {
            let mounted = by_closed.entry(outer.clone()).or_default();
            let Some(covering) = mounted.iter().find(|other| path.starts_with(other)) else {
                mounted.insert(path.clone());
                break;
            };
            // Visible there already, unless something in between is closed too.
            let below = inner.iter().position(|next| next.starts_with(covering));
            rest = below.map_or(&[], |from| &inner[from..]);
        }
    }
    by_closed
        .into_iter()
        .map(|(directory, paths)| closed(&directory, &paths))
        .collect()
}

fn closed(directory: &Path, paths: &BTreeSet<PathBuf>) -> io::Result<Closed> {
    let mut make = Vec::new();
    for path in paths {
        let mut at = directory.to_owned();
        let below = path.strip_prefix(directory).map_err(io::Error::other)?;
        for component in below.components() {
            at.push(component);
            make.push((c_path(&at)?, at.is_dir()));
        }
    }
    Ok(Closed {
        directory: c_path(directory)?,
        make,
        wanted: paths
            .iter()
            .map(|path| c_path(path))
            .collect::<io::Result<_>>()?,
    })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
