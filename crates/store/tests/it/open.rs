//! Opening: one writer, the right log, a known format.

use std::fs;

use store::{
    Log, OpenError, Options, Reader, RebuildMode, SigningKey, VerifyOptions, rebuild, verify,
};

use crate::fixture::{SampleFold, chain, examine, fill, on_both, open, options, temp};

#[test]
fn a_second_writer_is_refused_and_told_who_the_first_is() {
    on_both(|home| {
        let log = home.open();
        let error = home.try_open(options()).unwrap_err();
        let pid = std::process::id().to_string();
        assert!(
            chain(&error).contains(&format!("process {pid}")),
            "{}",
            chain(&error)
        );
        drop(log);
        home.open();
    });
}

#[test]
fn a_log_is_made_only_when_asked_for() {
    let dir = temp();
    let not_there = Log::open(
        &dir.path().join("no"),
        Options {
            create: false,
            ..options()
        },
    );
    assert!(matches!(not_there, Err(OpenError::NotFound { .. })));
    let empty = Log::open(
        dir.path(),
        Options {
            create: false,
            ..options()
        },
    );
    assert!(matches!(empty, Err(OpenError::NotFound { .. })));
    assert!(matches!(
        Reader::open(dir.path()),
        Err(OpenError::NotFound { .. })
    ));
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let dir = temp();
    // What a kill before the first commit leaves: an empty database in WAL mode and no head.
    let connection = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    drop(connection);
    fs::write(dir.path().join("heads"), b"").unwrap();
    let mut log = open(dir.path());
    fill(&mut log, 2);
    examine(dir.path()).unwrap();
}

#[test]
fn another_workspace_or_key_is_refused() {
    on_both(|home| {
        home.open().close().unwrap();
        let other = home.try_open(Options {
            workspace: "other".to_owned(),
            ..options()
        });
        assert!(
            matches!(other, Err(OpenError::OtherWorkspace { found, .. }) if found == "default")
        );
        let key = SigningKey::from_seed(&[12; 32]).unwrap();
        assert!(matches!(
            home.try_open(Options { key, ..options() }),
            Err(OpenError::OtherKey { .. })
        ));
        let slash = Log::open(
            temp().path(),
            Options {
                workspace: "a/b".to_owned(),
                ..options()
            },
        );
        assert!(matches!(slash, Err(OpenError::Workspace(_))));
    });
}

#[test]
fn a_newer_format_is_refused_and_untouched() {
    let dir = temp();
    open(dir.path()).close().unwrap();
    let connection = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    assert!(matches!(
        Log::open(dir.path(), options()),
        Err(OpenError::NewerFormat {
            found: 2,
            known: 1,
            ..
        })
    ));
    assert!(matches!(
        Reader::open(dir.path()),
        Err(OpenError::NewerFormat {
            found: 2,
            known: 1,
            ..
        })
    ));
}

#[test]
fn a_file_that_is_no_log_is_refused() {
    let dir = temp();
    fs::write(
        dir.path().join("log.db"),
        b"not a database, but long enough to look like one".repeat(100),
    )
    .unwrap();
    assert!(matches!(
        Log::open(dir.path(), options()),
        Err(OpenError::Database { .. })
    ));
    let dir = temp();
    let connection = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    connection
        .execute_batch("CREATE TABLE somebody_elses (x)")
        .unwrap();
    drop(connection);
    assert!(matches!(
        Log::open(dir.path(), options()),
        Err(OpenError::Damaged { .. })
    ));
}

#[test]
fn two_logs_have_two_incarnations_and_a_restored_one_names_its_past() {
    let (one, two) = (temp(), temp());
    let first = open(one.path());
    let head = first.last_head().to_text();
    let second = Log::open(
        two.path(),
        Options {
            previous_head: Some(head.clone()),
            ..options()
        },
    )
    .unwrap();
    assert_ne!(first.incarnation(), second.incarnation());
    assert_eq!(second.incarnation().len(), 32);
    let data = second.read().entry(0).unwrap().unwrap().data;
    assert!(
        data.windows(head.len())
            .any(|window| window == head.as_bytes())
    );
}

#[test]
fn a_read_only_copy_can_be_read_where_no_file_can_be_made() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 2);
    log.close().unwrap();
    fs::remove_file(dir.path().join("log.db-wal")).ok();
    fs::remove_file(dir.path().join("log.db-shm")).ok();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let verified = verify(dir.path(), &VerifyOptions::default());
    let rebuilt = rebuild(dir.path(), &mut SampleFold, RebuildMode::Check);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(verified.unwrap().size, rebuilt.unwrap().entries);
}
