//! Projections follow from entries: a changed row is named, and a rebuild puts it right.

use std::error::Error;

use store::{Entry, Fold, Reader, RebuildError, RebuildMode, Row};

use crate::fixture::{SampleFold, chain, fill, on_both, options};

fn check(sql: &str, expect: &str) {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 8);
        log.close().unwrap();
        let before = home.dump();
        home.sql(sql);
        let error = home
            .rebuild(&mut SampleFold, RebuildMode::Check)
            .unwrap_err();
        assert_eq!(chain(&error), expect);
        home.rebuild(&mut SampleFold, RebuildMode::Write).unwrap();
        assert_eq!(home.dump(), before);
        home.rebuild(&mut SampleFold, RebuildMode::Check).unwrap();
    });
}

#[test]
fn a_changed_missing_or_added_row_is_named_and_put_right() {
    check(
        "UPDATE task SET state = 'completed' WHERE id = 'task-1'",
        "row task-1 of table task is not what the entries say: column state differs",
    );
    check(
        "DELETE FROM step WHERE task = 'task-1' AND n = 1",
        "row task-1 1 of table step is missing",
    );
    check(
        "DELETE FROM session WHERE id = 'session of task-4'",
        "row session of task-4 of table session is missing",
    );
    check(
        "INSERT INTO idempotency (key, task) VALUES ('key 99', 't')",
        "row key 99 of table idempotency follows from no entry",
    );
    check(
        "UPDATE state SET body = (SELECT body FROM step WHERE n = 1) WHERE key = '002'",
        "row generation 002 of table state is not what the entries say: column body differs",
    );
}

#[test]
fn a_rebuild_in_place_needs_the_log_for_itself_but_a_check_does_not() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 4);
        let error = home
            .rebuild(&mut SampleFold, RebuildMode::Write)
            .unwrap_err();
        let said = chain(&error);
        assert!(
            said.contains("in use by process") || said.contains("is written by"),
            "{said}"
        );
        let rebuilt = home.rebuild(&mut SampleFold, RebuildMode::Check).unwrap();
        assert_eq!(rebuilt.entries, log.size());
    });
}

struct Failing;

impl Fold for Failing {
    fn apply(
        &mut self,
        entry: &Entry,
        log: &Reader,
    ) -> Result<Vec<Row>, Box<dyn Error + Send + Sync>> {
        let payload = log.payload(entry.seq, "text")?;
        if entry.seq == 3 {
            Err(format!("{} bytes", payload.unwrap_or_default().len()).into())
        } else {
            Ok(Vec::new())
        }
    }
}

#[test]
fn a_fold_that_fails_is_reported_with_its_entry_and_changes_nothing() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 4);
        log.close().unwrap();
        let before = home.dump();
        let error = home.rebuild(&mut Failing, RebuildMode::Write).unwrap_err();
        assert!(
            matches!(&error, RebuildError::Fold { seq: 3, source } if source.to_string().ends_with("bytes"))
        );
        assert_eq!(home.dump(), before);
        home.try_open(options()).unwrap();
    });
}
