//! A wall clock that jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hub::ground::Ground;

use crate::home::{Home, WAIT, exited, fleet, work};

const HOUR_MS: i64 = 3_600_000;

/// The machine's ground with a wall clock that the test sets.
#[derive(Debug, Default)]
struct Jumpy {
    ahead_ms: AtomicI64,
}

impl store::Ground for Jumpy {}

impl Ground for Jumpy {
    fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() + self.ahead_ms.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_is_noted_and_moves_no_deadline_and_no_budget() {
    let state = tempfile::tempdir().unwrap();
    let fleet = fleet(|agent| {
        agent.budget.time_ms = Some(60_000);
        agent.concurrency = 2;
    });
    let ground = Arc::new(Jumpy::default());
    let mut home = Home::start_on(ground.clone(), state.path(), &fleet, vec![]).await;
    let mut submit = work("has a minute");
    submit.deadline_ms = Some(ground.now_ms() + 60_000);
    let id = home.hub.task_submit(submit).await.unwrap().id;
    home.shim.assigned().await;
    let jumps = || {
        let reader = store::Reader::open(&state.path().join("system")).unwrap();
        let entries = reader.entries(0, 1000).unwrap();
        let jumps = entries.iter().filter(|entry| entry.kind == "clock.jumped");
        jumps.count()
    };
    for (by_ms, noted) in [(HOUR_MS, 1), (-HOUR_MS, 2)] {
        ground.ahead_ms.fetch_add(by_ms, Ordering::SeqCst);
        let until = std::time::Instant::now() + WAIT;
        while jumps() < noted {
            assert!(std::time::Instant::now() < until, "the jump is not noted");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(home.hub.task_get(&id).await.unwrap().state, "working");
    }
    home.ended(&id, 1, exited(0, "ok"), false).await;
    let view = home.hub.task_wait(&id, WAIT).await.unwrap();
    assert_eq!(view.state, "completed");
    home.end().await;
}
