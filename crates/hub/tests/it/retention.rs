//! What the workspace's retention takes away, and what stays.

use std::time::Duration;

use api::fleet::Retention;
use hub::Code;
use serde_json::{Value, json};

use crate::home::{Home, WAIT, exited, fleet, model, work};

/// Longer than the hub waits between two looks at the rules.
const PERIOD: Duration = Duration::from_secs(61);

/// A task is done and another runs; then the rules are followed.
async fn follow(rules: Retention) {
    let state = tempfile::tempdir().unwrap();
    let mut fleet = fleet(|_| {});
    fleet.retention = rules;
    let mut home = Home::start(state.path(), &fleet, vec![]).await;
    let keyed = || {
        let mut submit = work("failed");
        submit.idempotency_key = Some("key".into());
        submit
    };
    let failed = home.hub.task_submit(keyed()).await.unwrap().id;
    home.shim.assigned().await;
    home.ended(&failed, 1, exited(78, ""), false).await;
    let done = home.submit("done").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    home.call(&caller, model("one"), "answer").await;
    home.ended(&done, 1, exited(0, "output"), false).await;
    let before = home.hub.task_wait(&done, WAIT).await.unwrap();
    assert_eq!(
        (before.input, before.output),
        (json!("done"), json!("output"))
    );
    let open = home.submit("open").await.id;
    home.shim.assigned().await;

    let until = std::time::Instant::now() + WAIT;
    let after = loop {
        tokio::time::pause();
        tokio::time::advance(PERIOD).await;
        tokio::time::resume();
        let view = home.hub.task_get(&done).await.unwrap();
        let other = home.hub.task_get(&failed).await.unwrap();
        if view.output.is_null() && view.input.is_null() && other.input.is_null() {
            break view;
        }
        assert!(std::time::Instant::now() < until, "nothing is erased");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((after.state.as_str(), after.steps), ("completed", 1));
    let session = home.hub.session_get(&after.session).await.unwrap();
    assert!(session.turns.iter().all(|turn| turn.content == Value::Null));
    let running = home.hub.task_get(&open).await.unwrap();
    assert_eq!(running.input, json!("open"), "what runs keeps its content");
    let said = home.hub.task_retry(&failed, "owner").await.unwrap_err();
    assert!(
        said.code == Code::Conflict && said.message.contains("erased"),
        "{said}"
    );
    let said = home.hub.task_cancel(&failed, "owner").await.unwrap_err();
    assert!(said.message.contains("is failed already"), "{said}");
    let known = home.hub.task_submit(keyed()).await.unwrap();
    assert_eq!(known.id, failed, "its key is known as long as it is");
    home.end().await;

    let directory = state.path().join("workspaces/default");
    let report = store::verify(&directory, &store::VerifyOptions::default()).unwrap();
    assert!(
        report.erased >= 4,
        "input, key, request, answer: {report:?}"
    );

    // What is left is enough for the next hub: the open task is still there.
    let home = Home::start(state.path(), &fleet, vec![]).await;
    assert_eq!(home.hub.task_get(&open).await.unwrap().state, "working");
    assert_eq!(home.hub.task_get(&done).await.unwrap().output, Value::Null);
    home.end().await;
}

#[tokio::test]
async fn payloads_of_ended_tasks_older_than_the_rule_are_erased() {
    follow(Retention {
        payloads_seconds: Some(0),
        max_bytes: None,
    })
    .await;
}

#[tokio::test]
async fn payloads_beyond_the_most_that_is_kept_are_erased_oldest_first() {
    follow(Retention {
        payloads_seconds: None,
        max_bytes: Some(1),
    })
    .await;
}
