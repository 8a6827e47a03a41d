//! A task from its submission to its end.

use std::time::Duration;

use hub::task::SubmitTask;
use serde_json::json;

use super::{Flow, sweep};
use crate::home::fleet;

const FLOWS: &[Flow] = &[
    Flow {
        name: "a task is taken, leased and done",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "take 1").await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "two turns of a session follow each other",
        fleet: || fleet(|_| {}),
        instances: 2,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let first = rig.give_in(Some("talk"), "one", "take 1").await.id;
                let second = rig.give_in(Some("talk"), "two", "take 1").await.id;
                rig.until_state(&second, "completed").await;
                assert_eq!(rig.task(&first).await.state, "completed");
                vec![first, second]
            })
        },
    },
    Flow {
        name: "a task that works is canceled, and the next gets its instance",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "take 120").await.id;
                rig.until_state(&task, "working").await;
                rig.command("cancel", |hub| {
                    let task = task.clone();
                    async move { hub.task_cancel(&task, "owner").await }
                })
                .await;
                let next = rig.give("two", "take 1").await.id;
                rig.until_state(&next, "completed").await;
                vec![task, next]
            })
        },
    },
    Flow {
        name: "a failed task is tried again",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "give-up-once x; take 1").await.id;
                rig.until_state(&task, "failed").await;
                rig.retry(&task).await;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "a deadline passes",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let deadline_ms = rig.outside.now_ms() + 5_000;
                let submit = SubmitTask {
                    agent: "helper".into(),
                    input: json!("take 60"),
                    deadline_ms: Some(deadline_ms),
                    idempotency_key: Some("one".into()),
                    author: "test".into(),
                    ..Default::default()
                };
                let task = rig.submit(submit).await.id;
                rig.until_state(&task, "failed").await;
                let late_ms = rig.outside.now_ms() - deadline_ms;
                assert!((0..1_000).contains(&late_ms), "{late_ms} ms late");
                vec![task]
            })
        },
    },
    Flow {
        name: "a link breaks for longer than an instance is waited for",
        fleet: || fleet(|_| {}),
        instances: 2,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; take 8; opaque b").await.id;
                rig.until_state(&task, "working").await;
                for shim in &rig.shims {
                    shim.cut_link(Duration::from_secs(5));
                }
                rig.person(&task, super::the_truth).await;
                vec![task]
            })
        },
    },
];

#[test]
fn a_task_comes_to_the_same_end_whatever_fails() {
    sweep(FLOWS);
}
