//! Projections after any history equal what the entries say.

use hub::projection::Rebuild;
use hub::step::Effect;
use store::{Reader, Row};

use crate::home::{Home, exited, fleet, killed, model, tool};

/// Folds the whole log and compares each row with the stored one.
fn projections_are_what_the_entries_say(dir: &std::path::Path) {
    let reader = Reader::open(dir).unwrap();
    let mut rebuild = Rebuild::default();
    for entry in reader.entries(0, 10_000).unwrap() {
        if !entry.kind.starts_with("log.") {
            rebuild
                .entry(entry.seq, entry.time_ms, &entry.subject, &entry.data)
                .unwrap();
        }
    }
    let rows = rebuild.rows();
    assert!(!rows.is_empty());
    for row in rows {
        match row {
            Row::Task(row) => assert_eq!(reader.task(&row.id).unwrap(), Some(row)),
            Row::Step(row) => assert_eq!(reader.step(&row.task, row.n).unwrap(), Some(row)),
            Row::Session(row) => assert_eq!(reader.session(&row.id).unwrap(), Some(row)),
            Row::Idempotency { key, task } => {
                assert_eq!(reader.idempotent_task(&key).unwrap(), Some(task))
            }
            Row::State(_) | Row::Delete(_) => panic!("no such rows come from tasks"),
        }
    }
}

#[tokio::test]
async fn the_state_after_a_restart_is_the_state_before_it() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|_| {});
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let mut ids = Vec::new();
    for round in 0..3 {
        let task = home.submit(&format!("task {round}")).await.id;
        let (_, attempts) = home.shim.assigned().await;
        let caller = home.hub.identify(&attempts[0].token).await.unwrap();
        home.call(&caller, model("one"), "a").await;
        home.call(&caller, tool("{}", Effect::Opaque), "b").await;
        home.ended(&task, 1, killed(), true).await;
        let caller = home.hub.identify(&attempts[1].token).await.unwrap();
        home.call(&caller, model("one"), "never").await;
        home.call(&caller, tool("{}", Effect::Opaque), "never")
            .await;
        home.ended(&task, 2, exited(0, "ok"), false).await;
        ids.push(task);
    }
    let open = home.submit("open").await.id;
    home.shim.assigned().await;
    let before = home.hub.task_get(&open).await.unwrap();
    let done = home.hub.task_get(&ids[0]).await.unwrap();
    home.end().await;
    projections_are_what_the_entries_say(&state.path().join("workspaces/default"));

    let home = Home::start(state.path(), &fleet, vec![]).await;
    let text = |view: &hub::view::TaskView| serde_json::to_string(view).unwrap();
    assert_eq!(
        text(&home.hub.task_get(&open).await.unwrap()),
        text(&before)
    );
    assert_eq!(
        text(&home.hub.task_get(&ids[0]).await.unwrap()),
        text(&done)
    );
    home.end().await;
    projections_are_what_the_entries_say(&state.path().join("workspaces/default"));
}
