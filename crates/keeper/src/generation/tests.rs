//! A keeper killed at each write of a generation: there is the old or the new, never a mixture,
//! and what comes next is not made of what was left.

use std::collections::BTreeMap;

use api::Document;

use super::*;
use crate::users::Users;

/// Sets that differ in everything.
fn set(size: u64) -> Set {
    let document = |n| Document {
        path: format!("fleet/{size}-{n}.yaml"),
        text: format!("document {n} of {size}\n"),
        found: true,
    };
    let mut fleet = Fleet::empty("default");
    fleet.retention.max_bytes = Some(size);
    Set {
        documents: (0..size).map(document).collect(),
        fleet,
        warnings: Vec::new(),
        objects: BTreeMap::new(),
        written: Vec::new(),
    }
}

fn open(root: &Path) -> State {
    let users = Users {
        separate: false,
        keeper: 0,
        hub: 0,
    };
    State::open(root, users).unwrap()
}

/// Writes a set and is killed before the n-th change; whether there was one.
fn killed_at(state: &State, set: &Set, nth: usize) -> bool {
    let mut count = 0;
    let written = write_on(state, set, 1, &mut |path| {
        count += 1;
        if count < nth {
            return Ok(());
        }
        // In the middle of a file, too: its new text is written aside first.
        if path.parent().is_some_and(Path::is_dir) && path.extension().is_some() {
            let aside = format!("{}.new", path.display());
            std::fs::write(aside, "docum").unwrap();
        }
        Err(io::Error::other("killed"))
    });
    written.is_err()
}

/// A generation is exactly what its set says.
fn is(state: &State, number: u64, set: &Set) -> bool {
    let directory = directory(state, number);
    let found = load(state, number).unwrap();
    let mut texts: Vec<String> = std::fs::read_dir(directory.join("manifests"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    texts.sort();
    let said = set.documents.iter().map(|document| document.text.clone());
    let files = std::fs::read_dir(directory).unwrap().count();
    found.hash == set.fleet.hash() && texts == said.collect::<Vec<_>>() && files == 2
}

#[test]
fn a_keeper_killed_at_each_write_leaves_the_old_or_the_new_and_never_a_mixture() {
    let (old, new) = (set(2), set(3));
    let mut points = 0;
    for nth in 1.. {
        let mut was_killed = false;
        // The person changes nothing, less, or more before the keeper is back.
        for next in [set(3), set(1), set(5)] {
            let directory = tempfile::tempdir().unwrap();
            let state = open(directory.path());
            assert_eq!(write(&state, &old, 0).unwrap().number, 1);
            was_killed = killed_at(&state, &new, nth);
            drop(state);

            let state = open(directory.path());
            assert!(is(&state, 1, &old), "write {nth}: the old one changed");
            let newest = newest(&state).unwrap();
            let is_whole = newest == 1 || newest == 2 && is(&state, 2, &new);
            assert!(is_whole, "write {nth}: {newest} is a mixture");

            let written = write(&state, &next, 1).unwrap();
            assert!(
                is(&state, written.number, &next),
                "write {nth}: the next one is a mixture"
            );
            assert!(is(&state, 1, &old), "write {nth}: the old one changed");
        }
        if !was_killed {
            break;
        }
        points += 1;
    }
    println!("sweep: a generation is written: {points} points, each with three ways on");
    assert_eq!(points, 2 + new.documents.len() + 3);
}
