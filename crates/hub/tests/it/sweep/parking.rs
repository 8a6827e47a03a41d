//! Tasks that wait for a person, and go on at a word. Questions about unknown calls are in
//! `step.rs`, poison and providers in `restart.rs`, Agents that went in `apply.rs`.

use mainstay_core::task::ResumeAs;

use super::{Flow, sweep, the_truth};
use crate::home::fleet;
use crate::rig::world::REFUSED;

const FLOWS: &[Flow] = &[
    Flow {
        name: "a call may be a second of one that is done, and is sent at a word",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; changes b; model c").await.id;
                rig.person(&task, the_truth).await;
                vec![task]
            })
        },
    },
    Flow {
        name: "a call may be a second of one that is done, and fails at a word",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; changes b; model c").await.id;
                let word = |reason: &str, was_done: bool| {
                    if reason == "divergence" {
                        ResumeAs::Fail
                    } else {
                        the_truth(reason, was_done)
                    }
                };
                rig.person(&task, word).await;
                vec![task]
            })
        },
    },
    Flow {
        name: "every credential is refused until there is another",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                rig.world.first(REFUSED);
                let task = rig.give("one", "model a; model b").await.id;
                rig.until_parked(&task, "credential").await;
                rig.world.no_longer(REFUSED);
                rig.retry(&task).await;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
];

#[test]
fn a_task_that_waits_for_a_person_goes_on_alike_whatever_fails() {
    sweep(FLOWS);
}
