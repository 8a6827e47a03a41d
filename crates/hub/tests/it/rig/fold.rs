//! Two accounts of one log: what its rows say and what its entries say; and all of it as bytes.

use std::path::Path;

use hub::projection::Rebuild;
use store::{Reader, Row, StoreError};

/// Folds the log up to its watermark and compares each row with the stored one, in one snapshot: at
/// any moment this is what a hub that is killed leaves behind. That the rest can be folded is shown
/// too.
pub(crate) fn rows_are_what_the_entries_say(log: &Path) {
    let reader = Reader::open(log).unwrap();
    reader.snapshot(compare).unwrap();
}

fn compare(reader: &Reader) -> Result<(), StoreError> {
    let watermark = reader.watermark()?;
    let (mut rebuild, mut rows) = (Rebuild::default(), Vec::new());
    let mut from = 0;
    loop {
        let page = reader.entries(from, 1000)?;
        let Some(last) = page.last() else { break };
        from = last.seq + 1;
        for entry in page {
            if !entry.kind.starts_with("log.") {
                rebuild
                    .entry(entry.seq, entry.time_ms, &entry.subject, &entry.data)
                    .unwrap();
            }
            if entry.seq + 1 == watermark {
                rows = rebuild.rows();
            }
        }
    }
    for row in rows {
        match row {
            Row::Task(row) => assert_eq!(reader.task(&row.id)?, Some(row)),
            Row::Step(row) => {
                let stored = reader.step(&row.task, row.n)?;
                let decoded = |row: &store::StepRow| {
                    hub::projection::decode::<mainstay_core::step::Step>(&row.body)
                };
                assert_eq!(stored.as_ref().and_then(decoded), decoded(&row));
                assert_eq!(stored, Some(row));
            }
            Row::Session(row) => assert_eq!(reader.session(&row.id)?, Some(row)),
            Row::Idempotency { key, task } => {
                assert_eq!(reader.idempotent_task(&key)?, Some(task));
            }
            Row::State(_) | Row::Delete(_) => panic!("no such rows come from tasks"),
        }
    }
    Ok(())
}

/// Every entry, a line each, and every head: equal texts are equal logs, to the byte.
pub(crate) fn told(log: &Path) -> Vec<String> {
    let reader = Reader::open(log).unwrap();
    let (mut lines, mut from) = (Vec::new(), 0);
    loop {
        let page = reader.entries(from, 1000).unwrap();
        let Some(last) = page.last() else { break };
        from = last.seq + 1;
        for entry in &page {
            let event: Option<mainstay_core::event::Event> = hub::projection::decode(&entry.data);
            lines.push(format!("{entry:?} {event:?}"));
        }
    }
    let heads = std::fs::read_to_string(log.join("heads")).unwrap();
    lines.extend(heads.lines().map(str::to_owned));
    lines
}
