//! What must hold whatever happened.

use std::path::Path;
use std::sync::Arc;

use hub::projection::Rebuild;
use serde_json::Value;
use store::{Reader, Row, StoreError};

use super::agent::program;
use super::world::World;

/// Folds the whole log and compares each row with the stored one, in one snapshot: at any moment
/// this is what a hub that is killed leaves behind.
pub(crate) fn rows_are_what_the_entries_say(directory: &Path) {
    let reader = Reader::open(directory).unwrap();
    reader.snapshot(compare).unwrap();
}

fn compare(reader: &Reader) -> Result<(), StoreError> {
    let mut rebuild = Rebuild::default();
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
        }
    }
    for row in rebuild.rows() {
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

/// One step for each call of the program, performed once, or once more for each time that the
/// journal owns up to.
pub(crate) async fn nothing_was_done_twice(world: &Arc<World>, task: &str) {
    let hub = world.hub().await;
    let view = hub.task_get(task).await.unwrap();
    let steps = hub.task_steps(task).await.unwrap().items;
    let calls = program(view.input.as_str().unwrap());
    if view.state == "completed" {
        assert_eq!(steps.len(), calls.len(), "{view:#?}\n{steps:#?}");
        assert_eq!(view.steps as usize, calls.len(), "{view:#?}");
        assert_eq!(view.diverged_at, None);
    }
    if steps.len() > calls.len() {
        panic!("more steps than calls: {}", history(world, task).await);
    }
    let said: u32 = steps.iter().map(|step| step.repeated).sum();
    assert_eq!(said, view.repeated, "{view:#?}");
    for step in steps {
        let times = world.executions(&step.id);
        assert!(times <= 1 + step.repeated, "{times} times: {step:#?}");
        // What asks first, or is answered for by a person, is never done twice.
        let once = step.name == "Queryable" || step.name == "Opaque";
        assert!(times <= 1 || !once, "{times} times: {step:#?}");
    }
}

pub(crate) async fn views(world: &Arc<World>, tasks: &[String]) -> Vec<Value> {
    let hub = world.hub().await;
    let mut views = Vec::new();
    for task in tasks {
        let view = hub.task_get(task).await.unwrap();
        views.push(serde_json::to_value(view).unwrap());
    }
    views
}

/// The end of a task's history, for a person.
pub(crate) async fn history(world: &Arc<World>, task: &str) -> String {
    let hub = world.hub().await;
    let (mut lines, mut from) = (Vec::new(), 0);
    while let Ok(page) = hub.log_entries(from, 1000).await {
        let of_task = page.items.iter().filter(|entry| entry.subject == task);
        lines.extend(of_task.map(|entry| format!("{} {} {}", entry.seq, entry.time, entry.data)));
        let Some(next) = page.next else { break };
        from = next.parse().unwrap();
    }
    let instances = hub.instance_list().await.unwrap().items;
    let from = lines.len().saturating_sub(60);
    format!("{}\n{instances:#?}", lines[from..].join("\n"))
}
