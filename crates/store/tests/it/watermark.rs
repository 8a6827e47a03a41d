//! Rows that come later than their entries: the tables say what the entries below the watermark do, and the rest is
//! folded from entries.

use store::{Batch, Fold, Log, RebuildError, RebuildMode, Row, StoreError, rebuild};

use crate::fixture::{SampleFold, copy, dump, fill, fill_later, on_both, open, options, temp};

fn rows_alone(rows: Vec<Row>) -> Batch {
    Batch {
        rows,
        ..Batch::default()
    }
}

/// What a start does: folds the entries after the watermark.
fn folded(log: &Log) -> Vec<Row> {
    let tail = log.read().entries(log.watermark(), 1000).unwrap();
    let rows = tail
        .iter()
        .flat_map(|entry| SampleFold.apply(entry, log.read()).unwrap());
    rows.collect()
}

#[test]
fn rows_left_for_later_are_written_with_the_next_batch_or_alone() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 2);
        assert_eq!(log.watermark(), log.size());
        let behind = log.watermark();
        let rows = fill_later(&mut log, 3);
        assert_eq!(log.watermark(), behind);
        let reader = home.reader().unwrap();
        assert_eq!(reader.watermark().unwrap(), behind);
        home.examine().unwrap();

        let (size, head) = (log.size(), log.last_head().clone());
        log.append(&rows_alone(rows)).unwrap();
        assert_eq!((log.size(), log.watermark()), (size, size));
        assert_eq!(log.last_head().head, head.head);
        assert_eq!(reader.watermark().unwrap(), size);
        home.examine().unwrap();
        let again = log.append(&rows_alone(Vec::new()));
        assert!(matches!(again, Err(StoreError::Batch { .. })));
    });
}

#[test]
fn a_writer_killed_before_its_rows_leaves_a_tail_that_gives_the_same_tables() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    let rows = fill_later(&mut log, 4);
    let killed = copy(dir.path());
    log.append(&rows_alone(rows)).unwrap();
    drop(log);

    let mut log = Log::open(killed.path(), options()).unwrap();
    assert!(log.watermark() < log.size());
    let rows = folded(&log);
    log.append(&rows_alone(rows)).unwrap();
    drop(log);
    assert_eq!(
        dump(killed.path())
            .lines()
            .filter(is_a_row)
            .collect::<Vec<_>>(),
        dump(dir.path())
            .lines()
            .filter(is_a_row)
            .collect::<Vec<_>>()
    );
}

fn is_a_row(line: &&str) -> bool {
    ["task", "step", "session", "idempotency", "state", "meta"]
        .iter()
        .any(|table| line.starts_with(table))
}

#[test]
fn a_watermark_that_lies_is_found_out_by_the_rebuild_check() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 3);
    fill_later(&mut log, 2);
    let size = log.size();
    log.close().unwrap();
    for lie in [size - 1, 3] {
        let damaged = copy(dir.path());
        let connection = rusqlite::Connection::open(damaged.path().join("log.db")).unwrap();
        let sql = "UPDATE meta SET value = ?1 WHERE key = 'watermark'";
        let value = vec![u8::try_from(lie).unwrap()];
        assert_eq!(connection.execute(sql, [value]).unwrap(), 1);
        drop(connection);
        let error = rebuild(damaged.path(), &mut SampleFold, RebuildMode::Check).unwrap_err();
        assert!(
            matches!(
                error,
                RebuildError::Missing { .. }
                    | RebuildError::Differs { .. }
                    | RebuildError::Unexpected { .. }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_rebuild_puts_the_rows_of_all_entries_in_place() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 3);
        fill_later(&mut log, 2);
        log.close().unwrap();
        home.rebuild(&mut SampleFold, RebuildMode::Write).unwrap();
        let log = home.try_open(options()).unwrap();
        assert_eq!(log.watermark(), log.size());
        home.examine().unwrap();
    });
}

#[test]
fn rows_and_a_promise_of_rows_are_refused_together() {
    on_both(|home| {
        let mut log = home.open();
        let mut batch = crate::fixture::batch(&log, vec![crate::fixture::entry(1)]);
        batch.rows_later = true;
        assert!(matches!(log.append(&batch), Err(StoreError::Batch { .. })));
    });
}
