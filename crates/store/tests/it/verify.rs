//! Verification: honest logs pass beside a running writer too, and consistent is not authentic.

use std::sync::atomic::{AtomicBool, Ordering};

use store::{Log, Mismatch, PublicKey, SigningKey, VerifyError, VerifyOptions, verify};

use crate::fixture::{chain, fill, key, on_both, open, temp};

fn options(public_key: Option<PublicKey>, since: Option<String>) -> VerifyOptions {
    VerifyOptions { public_key, since }
}

#[test]
fn a_log_is_authentic_only_against_a_key_or_head_from_elsewhere() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 3);
        let since = log.last_head().to_text();
        let since_size = log.size();
        fill(&mut log, 3);
        let public_key = key()
            .public_key(log.last_head().head.origin.as_str())
            .unwrap();
        let alone = home.verify(&VerifyOptions::default()).unwrap();
        assert_eq!(
            (alone.size, alone.heads, alone.authentic_size),
            (log.size(), 7, None)
        );
        assert_eq!(&alone.last_head, log.last_head());
        let by_head = home.verify(&options(None, Some(since))).unwrap();
        assert_eq!(by_head.authentic_size, Some(since_size));
        let by_key = home.verify(&options(Some(public_key), None)).unwrap();
        assert_eq!(by_key.authentic_size, Some(log.size()));
    });
}

#[test]
fn a_log_made_up_whole_is_consistent_but_fails_against_what_came_from_elsewhere() {
    let (dir, forged) = (temp(), temp());
    let mut log = open(dir.path());
    fill(&mut log, 3);
    let public_key = key()
        .public_key(log.last_head().head.origin.as_str())
        .unwrap();
    let mut other = open(forged.path());
    fill(&mut other, 3);
    verify(forged.path(), &VerifyOptions::default()).unwrap();
    let by_key = verify(forged.path(), &options(Some(public_key), None)).unwrap_err();
    assert!(matches!(by_key, VerifyError::Mismatch(Mismatch::OtherKey)));
    let by_head = verify(
        forged.path(),
        &options(None, Some(log.last_head().to_text())),
    )
    .unwrap_err();
    assert!(matches!(
        by_head,
        VerifyError::Mismatch(Mismatch::SinceOtherLog { .. })
    ));
}

#[test]
fn a_log_that_forgot_what_an_earlier_head_had_is_caught_by_that_head() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 2);
    let earlier = crate::fixture::copy(dir.path());
    fill(&mut log, 2);
    let since = log.last_head().clone();
    let shorter = verify(earlier.path(), &options(None, Some(since.to_text()))).unwrap_err();
    assert!(
        matches!(shorter, VerifyError::Mismatch(Mismatch::SinceBeyond { .. })),
        "{}",
        chain(&shorter)
    );

    // The same log told differently after the copy was taken.
    let mut branch = open(earlier.path());
    while branch.size() < since.head.size {
        fill(&mut branch, 1);
    }
    let forked = verify(earlier.path(), &options(None, Some(since.to_text()))).unwrap_err();
    assert!(
        matches!(forked, VerifyError::Mismatch(Mismatch::SinceRoot { .. })),
        "{}",
        chain(&forked)
    );

    let mut unsigned = since.clone();
    unsigned.head.root[0] ^= 1;
    let unsigned = verify(dir.path(), &options(None, Some(unsigned.to_text()))).unwrap_err();
    assert!(matches!(
        unsigned,
        VerifyError::Mismatch(Mismatch::SinceSignature)
    ));
    let garbage = verify(dir.path(), &options(None, Some("no head".to_owned()))).unwrap_err();
    assert!(matches!(garbage, VerifyError::Since(_)));
}

#[test]
fn entries_signed_by_another_key_from_some_point_on_are_caught() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 2);
    log.close().unwrap();
    // Whoever changes the key in entry 0 changes the tree.
    let stranger = SigningKey::from_seed(&[3; 32]).unwrap();
    let connection = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    let mut first: Vec<u8> = connection
        .query_row("SELECT bytes FROM entry WHERE seq = 0", [], |row| {
            row.get(0)
        })
        .unwrap();
    let at = first
        .windows(32)
        .position(|window| window == key().public_bytes())
        .unwrap();
    first[at..at + 32].copy_from_slice(stranger.public_bytes());
    connection
        .execute("UPDATE entry SET bytes = ?1 WHERE seq = 0", [first])
        .unwrap();
    drop(connection);
    let error = verify(dir.path(), &VerifyOptions::default()).unwrap_err();
    assert!(
        chain(&error).contains("head 0 at size 1 does not match the tree"),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_running_writer_never_makes_a_verification_fail() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 5);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fill(&mut log, 1);
                }
                log
            });
            for _ in 0..20 {
                let report = home.verify(&VerifyOptions::default());
                if let Err(error) = &report {
                    done.store(true, Ordering::Relaxed);
                    panic!("{}", chain(error));
                }
            }
            done.store(true, Ordering::Relaxed);
            let log: Log = writer.join().unwrap();
            assert_eq!(
                home.verify(&VerifyOptions::default()).unwrap().size,
                log.size()
            );
        });
    });
}
