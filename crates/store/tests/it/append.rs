//! Appending: dense, durable, counted, and nothing of what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use store::{Batch, StoreError};

use crate::fixture::{batch, chain, entry, examine, fill, on_both, open, temp};

#[test]
fn what_was_appended_is_read_after_a_restart() {
    on_both(|home| {
        let mut log = home.open();
        let first = batch(&log, vec![entry(1), entry(2)]);
        let appended = log.append(&first).unwrap();
        assert_eq!((appended.first_seq, appended.size), (1, 3));
        assert_eq!(appended.head.head.size, 3);
        let incarnation = log.incarnation().to_owned();
        log.close().unwrap();

        let mut log = home.open();
        assert_eq!(
            (log.size(), log.incarnation(), log.healed_heads()),
            (3, incarnation.as_str(), 0)
        );
        assert_eq!(log.last_head(), &appended.head);
        let second = batch(&log, vec![entry(4)]);
        assert_eq!(log.append(&second).unwrap().first_seq, 3);
        let read = log.reader().unwrap();
        let entries = read.entries(0, 10).unwrap();
        assert_eq!(
            entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        // entry(1) and entry(4) have the same author, whose counter goes on after the restart.
        assert_eq!((entries[1].author_seq, entries[3].author_seq), (0, 1));
        assert_eq!(entries[1].data, entry(1).data);
        assert_eq!(
            read.payload(1, "text").unwrap().unwrap(),
            entry(1).payloads[0].1
        );
        home.examine().unwrap();
    });
}

#[test]
fn a_batch_that_is_refused_leaves_no_trace() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 2);
        let (size, head) = (log.size(), log.last_head().clone());
        let mut control = entry(9);
        control.subject = "\u{7}".to_owned();
        let mut twice = entry(9);
        twice.payloads.push(twice.payloads[0].clone());
        let mut reserved = entry(9);
        reserved.kind = "log.created".to_owned();
        let rows_only = Batch {
            rows: batch(&log, vec![entry(9)]).rows,
            ..Batch::default()
        };
        for bad in [
            batch(&log, vec![entry(8), control]),
            batch(&log, vec![twice]),
            batch(&log, vec![reserved]),
            rows_only,
            Batch::default(),
        ] {
            let error = log.append(&bad).unwrap_err();
            assert!(!error.is_fatal(), "{}", chain(&error));
        }
        assert_eq!((log.size(), log.last_head()), (size, &head));
        fill(&mut log, 1);
        home.examine().unwrap();
    });
}

#[test]
fn after_a_failed_commit_the_log_takes_nothing_more() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 2);
    let before = examine(dir.path()).unwrap();
    // A writer that broke in: the commit fails, and nobody knows why.
    let intruder = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    let sql = "INSERT INTO head (number, size, root, signature) VALUES (3, 0, x'', x'')";
    intruder.execute(sql, []).unwrap();
    let next = batch(&log, vec![entry(9)]);
    let error = log.append(&next).unwrap_err();
    assert!(matches!(error, StoreError::Commit(_)) && error.is_fatal());
    assert!(matches!(log.append(&next), Err(StoreError::Failed)));
    intruder
        .execute("DELETE FROM head WHERE number = 3", [])
        .unwrap();
    drop(log);
    assert_eq!(examine(dir.path()).unwrap(), before);
}

#[test]
fn a_reader_sees_whole_commits_while_the_writer_goes_on() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 3);
        let reader = log.reader().unwrap();
        let size = log.size();
        reader
            .snapshot(|reader| {
                assert_eq!(reader.size()?, size);
                fill(&mut log, 1);
                assert_eq!(reader.size()?, size);
                Ok(())
            })
            .unwrap();
        assert_eq!(reader.size().unwrap(), log.size());
        assert_eq!(reader.last_head().unwrap().as_ref(), Some(log.last_head()));
    });
}

#[test]
fn files_are_for_their_owner_only() {
    let dir = temp();
    let dir = dir.path().join("deep").join("log");
    let mut log = open(&dir);
    fill(&mut log, 1);
    for name in ["", "log.db", "log.db-wal", "heads", "lock"] {
        let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} {mode:o}");
    }
}

#[test]
fn a_reader_that_stays_does_not_stop_commits_and_the_wal_is_cut_once_it_is_gone() {
    let dir = temp();
    let mut log = open(dir.path());
    let wal = || fs::metadata(dir.path().join("log.db-wal")).unwrap().len();
    let mut big = entry(1);
    big.payloads = vec![("big".to_owned(), vec![7; 8 * 1024 * 1024])];
    let big = Batch {
        entries: vec![big],
        ..Batch::default()
    };
    let reader = log.reader().unwrap();
    reader
        .snapshot(|reader| {
            reader.size()?;
            for _ in 0..10 {
                log.append(&big).unwrap();
            }
            Ok(())
        })
        .unwrap();
    assert!(
        wal() > 64 * 1024 * 1024,
        "the reader held the WAL: {}",
        wal()
    );
    for _ in 0..3 {
        log.append(&big).unwrap();
    }
    assert!(wal() <= 64 * 1024 * 1024, "{}", wal());
}
