//! A session that leaves and comes back: the file that was made is taken where it was made, so that
//! one sweep meets both ways.

use bytes::Bytes;
use hub::view::TaskView;
use hub::{Code, Hub, HubError};

use super::{Flow, sweep, the_truth};
use crate::home::fleet;
use crate::rig::{Look, Rig};

const FLOWS: &[Flow] = &[
    Flow {
        name: "a session leaves in the middle of a task and comes back",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let earlier = rig.give_in(Some("talk"), "one", "model a").await.id;
                rig.until_state(&earlier, "completed").await;
                let input = "model b; keyed c; opaque d; take 60; model e";
                let task = rig.give_in(Some("talk"), "two", input).await.id;
                let is_under_way = |task: &TaskView| task.steps >= 2 || task.asked_step.is_some();
                rig.until(&task, is_under_way).await;
                let file = leaves(rig, "talk").await;
                assert_eq!(rig.task(&task).await.reason.as_deref(), Some("moved"));
                arrives(rig, &file).await;
                // A question that a hub's death left goes along.
                if rig.task(&task).await.asked_step.is_none() {
                    assert_eq!(rig.task(&task).await.reason.as_deref(), Some("imported"));
                    rig.retry(&task).await;
                }
                rig.person(&task, the_truth).await;
                vec![earlier, task]
            })
        },
    },
    Flow {
        name: "a session with a task that waits its turn leaves and comes back",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let first = rig
                    .give_in(Some("talk"), "one", "take 60; keyed a")
                    .await
                    .id;
                let second = rig.give_in(Some("talk"), "two", "keyed b").await.id;
                let file = leaves(rig, "talk").await;
                arrives(rig, &file).await;
                for task in [&first, &second] {
                    rig.retry(task).await;
                }
                rig.until_state(&second, "completed").await;
                assert_eq!(rig.task(&first).await.state, "completed");
                vec![first, second]
            })
        },
    },
];

async fn leaves(rig: &Rig, session: &str) -> Vec<u8> {
    let export = |hub: Hub| async move { hub.session_export(session, "owner").await };
    if rig.world.is_double {
        done(rig, export).await;
    }
    done(rig, export).await
}

async fn arrives(rig: &Rig, file: &[u8]) {
    let import = |hub: Hub| {
        let file = Bytes::copy_from_slice(file);
        async move { hub.session_import(file, "owner").await }
    };
    done(rig, import).await;
    if rig.world.is_double {
        let again = done(rig, import).await;
        assert!(again.tasks.iter().all(|task| task.change == "known"));
    }
}

/// Asks until it is told, whichever hub tells.
async fn done<T, F>(rig: &Rig, ask: impl Fn(Hub) -> F) -> T
where
    F: Future<Output = Result<T, HubError>>,
{
    let mut look = Look::default();
    loop {
        match ask(rig.world.hub().await).await {
            Ok(told) => return told,
            Err(error) if error.code == Code::Unavailable && !look.is_over() => look.again().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_session_leaves_and_comes_back_alike_whatever_fails() {
    sweep(FLOWS);
}
