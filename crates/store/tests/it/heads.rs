//! The heads file: healed where only its tail is gone, refused where it differs, and believed over the database.

use std::fs;

use store::{Log, OpenError};

use crate::fixture::{chain, copy, cut, dump, examine, fill, flip, open, options, temp};

#[test]
fn a_kill_between_commit_and_append_is_healed_at_the_next_start_wherever_the_tail_was_torn() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 4);
    let whole = fs::read(dir.path().join("heads")).unwrap();
    let copied = copy(dir.path());
    let before = dump(copied.path());
    let last = whole
        .windows(5)
        .rposition(|window| window == b"head ")
        .unwrap();
    for length in (last..whole.len()).step_by(41).chain([0, 3, 9, last / 2]) {
        let torn = copy(copied.path());
        cut(&torn.path().join("heads"), length);
        assert!(
            examine(torn.path())
                .unwrap_err()
                .contains("heads file ends before head"),
            "{length}"
        );
        let log = Log::open(torn.path(), options()).unwrap();
        assert!(log.healed_heads() >= 1);
        assert_eq!(log.healed_heads() > 1, length < last);
        drop(log);
        assert_eq!(examine(torn.path()).unwrap(), before);
    }
}

#[test]
fn a_heads_file_that_is_gone_is_missed_by_verify_and_written_again_by_a_start() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    log.close().unwrap();
    let before = dump(dir.path());
    fs::remove_file(dir.path().join("heads")).unwrap();
    assert!(
        examine(dir.path())
            .unwrap_err()
            .contains("heads file ends before head 0")
    );
    assert_eq!(open(dir.path()).healed_heads(), 4);
    assert_eq!(examine(dir.path()).unwrap(), before);
}

#[test]
fn a_flipped_byte_in_the_wal_that_loses_commits_is_noticed_by_the_heads_file() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 6);
    let damaged = copy(dir.path());
    let wal = damaged.path().join("log.db-wal");
    let length = fs::read(&wal).unwrap().len();
    flip(&wal, length / 2, 0x10);
    let wal_bytes = fs::read(&wal).unwrap();

    let error = examine(damaged.path()).unwrap_err();
    assert!(error.contains("the entries between are missing"), "{error}");
    let error = Log::open(damaged.path(), options()).unwrap_err();
    let OpenError::EntriesMissing {
        log_size,
        heads_size,
        head_number,
        ..
    } = &error
    else {
        panic!("{}", chain(&error));
    };
    assert!(*log_size < *heads_size && *heads_size == log.size() && *head_number == 6);
    assert_eq!(
        fs::read(&wal).unwrap(),
        wal_bytes,
        "refusing must not checkpoint away what is left"
    );
}

#[test]
fn a_log_whose_database_is_gone_is_not_made_anew() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    log.close().unwrap();
    for keep_empty in [false, true] {
        fs::remove_file(dir.path().join("log.db")).unwrap();
        if keep_empty {
            fs::write(dir.path().join("log.db"), b"").unwrap();
        }
        assert!(matches!(
            Log::open(dir.path(), options()),
            Err(OpenError::EntriesMissing { log_size: 0, .. })
        ));
        let error = store::verify(dir.path(), &store::VerifyOptions::default()).unwrap_err();
        assert!(
            chain(&error).contains("log.db ends at entry count 0"),
            "{}",
            chain(&error)
        );
        fs::write(dir.path().join("log.db"), b"").unwrap();
    }
}

#[test]
fn a_heads_file_with_bytes_of_others_at_its_end_is_refused() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    log.close().unwrap();
    let heads = dir.path().join("heads");
    let whole = fs::read(&heads).unwrap();
    let last = whole
        .windows(5)
        .rposition(|window| window == b"head ")
        .unwrap();
    for extra in ["x", "head ", "head 99 5\nabcde", "\n"] {
        fs::write(&heads, [&whole[..], extra.as_bytes()].concat()).unwrap();
        assert!(Log::open(dir.path(), options()).is_err(), "{extra:?}");
        assert!(examine(dir.path()).is_err(), "{extra:?}");
    }
    for at in (last..whole.len()).step_by(3) {
        fs::write(&heads, &whole).unwrap();
        flip(&heads, at, 0x04);
        assert!(Log::open(dir.path(), options()).is_err(), "byte {at}");
    }
    fs::write(&heads, &whole).unwrap();
    open(dir.path()).close().unwrap();
}
