//! One flipped byte anywhere, or a cut file: noticed by verify or by the rebuild check, unless the state reads the same
//! to the byte. `MAINSTAY_SWEEP=1` flips every byte instead of a sample.

use std::fs;
use std::path::Path;

use store::{Batch, Log, VerifyOptions, verify};

use crate::fixture::{
    chain, copy, cut, dump, examine, fill, fill_later, flip, open, options, temp,
};

fn stride(sampled: usize) -> usize {
    if std::env::var_os("MAINSTAY_SWEEP").is_some() {
        1
    } else {
        sampled
    }
}

/// Damages a copy of `from` and demands that it is noticed or reads the same. Returns whether it was noticed.
fn check(from: &Path, whole: &str, what: &str, damage: impl FnOnce(&Path)) -> bool {
    let damaged = copy(from);
    damage(damaged.path());
    match examine(damaged.path()) {
        Err(_) => true,
        Ok(found) => {
            assert_eq!(found, whole, "{what} went unnoticed and reads differently");
            false
        }
    }
}

/// Flips bytes of one file; returns how many flips were noticed.
fn sweep(from: &Path, name: &str, offsets: impl Iterator<Item = usize>) -> usize {
    let whole = dump(copy(from).path());
    let mut noticed = 0;
    for at in offsets {
        let mask = 1 << (at / 3 % 8);
        noticed += usize::from(check(
            from,
            &whole,
            &format!("byte {at} of {name}"),
            |dir| flip(&dir.join(name), at, mask),
        ));
    }
    noticed
}

fn length(dir: &Path, name: &str) -> usize {
    fs::read(dir.join(name)).unwrap().len()
}

#[test]
fn a_flipped_byte_in_the_database_is_noticed() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 6);
    fill_later(&mut log, 1);
    log.close().unwrap();
    let bytes = fs::read(dir.path().join("log.db")).unwrap();
    // Empty space in pages is most of a small database; a sample of it is enough.
    let used = (100..bytes.len())
        .filter(|at| bytes[*at] != 0 || at % 8 == 0)
        .step_by(stride(31));
    let noticed = sweep(dir.path(), "log.db", (0..100).chain(used));
    assert!(noticed > 300 / stride(1).max(1), "only {noticed} noticed");
}

#[test]
fn a_flipped_byte_in_the_heads_file_is_noticed_every_time() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    log.close().unwrap();
    let offsets = (0..length(dir.path(), "heads")).step_by(stride(7));
    let count = offsets.len();
    assert_eq!(sweep(dir.path(), "heads", offsets), count);
}

#[test]
fn a_flipped_byte_in_the_wal_is_noticed_every_time() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 2);
    let rows = fill_later(&mut log, 1);
    log.append(&Batch {
        rows,
        ..Batch::default()
    })
    .unwrap();
    let copied = copy(dir.path());
    let header = 0..32;
    let frames = (32..length(copied.path(), "log.db-wal")).step_by(stride(701));
    let noticed = sweep(
        copied.path(),
        "log.db-wal",
        header.clone().chain(frames.clone()),
    );
    // Of a frame's header the page's commit size and the like are covered by checksums as its page is; of the WAL's
    // header only the sequence of checkpoints is free to differ.
    assert!(
        noticed >= frames.len() + header.len() - 4,
        "{noticed} of {}",
        frames.len() + header.len()
    );
}

#[test]
fn the_wals_index_is_never_believed() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    let copied = copy(dir.path());
    let used = (0..400)
        .step_by(stride(13))
        .chain((400..length(copied.path(), "log.db-shm")).step_by(stride(997)));
    assert_eq!(sweep(copied.path(), "log.db-shm", used), 0);
}

#[test]
fn a_cut_tail_of_any_file_is_noticed() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 4);
    let running = copy(dir.path());
    log.close().unwrap();
    for (from, name, step) in [(&running, "log.db-wal", 4_001), (&running, "heads", 97)] {
        let (whole, length) = (dump(copy(from.path()).path()), length(from.path(), name));
        for length in (0..length).step_by(step).chain([length - 1]) {
            let noticed = check(from.path(), &whole, name, |dir| {
                cut(&dir.join(name), length)
            });
            assert!(noticed, "{name} cut to {length}");
        }
    }
    for length in (0..length(dir.path(), "log.db")).step_by(4096).skip(1) {
        let damaged = copy(dir.path());
        cut(&damaged.path().join("log.db"), length);
        assert!(examine(damaged.path()).is_err(), "log.db cut to {length}");
        assert!(Log::open(damaged.path(), options()).is_err() || examine(damaged.path()).is_err());
    }
}

/// Where the damage is, in words.
fn place(sql: &str) -> String {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 5);
    log.close().unwrap();
    let connection = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    assert_eq!(connection.execute(sql, []).unwrap(), 1, "{sql}");
    drop(connection);
    let error = verify(dir.path(), &VerifyOptions::default()).unwrap_err();
    chain(&error).replace("log does not verify: ", "")
}

#[test]
fn the_place_of_the_damage_is_named() {
    let flipped = |bytes: &str| format!("substr({bytes}, 1, 9) || x'00' || substr({bytes}, 11)");
    let check = |sql: &str, expect: &str| assert_eq!(place(sql), expect, "{sql}");
    check("DELETE FROM entry WHERE seq = 4", "entry 4 is missing");
    check(
        &format!(
            "UPDATE payload SET bytes = CAST({} AS BLOB) WHERE id / 16384 = 3 AND name = 'text'",
            flipped("bytes")
        ),
        "payload text of entry 3 does not have the length and salted digest that the entry names",
    );
    check(
        "UPDATE payload SET salt = zeroblob(32) WHERE id / 16384 = 3 AND name = 'text'",
        "payload text of entry 3 does not have the length and salted digest that the entry names",
    );
    check(
        "UPDATE payload SET name = 'tex' WHERE id / 16384 = 3 AND name = 'text'",
        "payload tex of entry 3 is there, but the entry names none such",
    );
    check(
        "UPDATE head SET root = zeroblob(32) WHERE number = 2",
        "head 2 at size 4 does not match the tree: entry 3 or a later one is not what was signed, or the head isn't",
    );
    check(
        "UPDATE head SET signature = zeroblob(64) WHERE number = 2",
        "head 2 at size 4 is not signed by the log's key",
    );
    check(
        "DELETE FROM head WHERE number = 2",
        "table head lacks number 2",
    );
    check(
        "UPDATE author SET counter = 9 WHERE name = 'author-1'",
        "counter of author author-1 in log.db is not what the entries say",
    );
    check(
        "UPDATE payload SET id = id + 5 WHERE id / 16384 = 3 AND name = 'text'",
        "payload text of entry 3 is there, but the entry names none such",
    );
    check(
        "UPDATE meta SET value = x'820080' WHERE key = 'edge'",
        "tree's edge (table meta) in log.db is not what the entries say",
    );
    check(
        "UPDATE meta SET value = x'1903e8' WHERE key = 'watermark'",
        "watermark (table meta) in log.db is not what the entries say",
    );
    check(
        "UPDATE meta SET value = x'ff' WHERE key = 'watermark'",
        "watermark (table meta) in log.db is damaged",
    );
}

#[test]
fn a_wal_damaged_in_its_first_frames_has_lost_entries_and_is_not_a_log_that_never_was() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    // Beside a writer everything still lies in the WAL.
    let running = copy(dir.path());
    for damage in ["header", "first frame"] {
        let damaged = copy(running.path());
        let at = if damage == "header" { 3 } else { 60 };
        flip(&damaged.path().join("log.db-wal"), at, 1);
        let error = verify(damaged.path(), &VerifyOptions::default()).unwrap_err();
        let why = std::error::Error::source(&error).map(ToString::to_string);
        assert!(
            why.as_deref()
                .is_some_and(|why| why.contains("ends at entry count 0")),
            "{damage}: {why:?}"
        );
    }
}
