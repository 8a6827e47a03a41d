//! A call: its intent, its making, its end, and what becomes of it where nobody knows that.

use mainstay_core::task::ResumeAs;

use super::{Flow, sweep, the_truth};
use crate::home::fleet;
use crate::rig::world::Fate::{BreakAfter, BreakBefore, DropAfter, Fail};

const FLOWS: &[Flow] = &[
    Flow {
        name: "a model is called",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a").await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "a call of each class is made",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let acts = "model a; pure b; keyed c; queryable d; opaque e; local f; model g";
                let task = rig.give("one", acts).await.id;
                rig.person(&task, the_truth).await;
                vec![task]
            })
        },
    },
    Flow {
        name: "a provider fails twice and is asked again",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[("model a", &[Fail, Fail])],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; model b").await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "calls break, and their classes say what follows",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[
            ("model a", &[BreakAfter]),
            ("pure b", &[BreakBefore]),
            ("keyed c", &[BreakAfter]),
            ("queryable d", &[BreakAfter]),
            ("queryable e", &[BreakBefore]),
        ],
        script: |rig| {
            Box::pin(async move {
                let acts = "model a; pure b; keyed c; queryable d; queryable e";
                let task = rig.give("one", acts).await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "whoever makes a call is gone in the middle of it",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[
            ("model a", &[DropAfter]),
            ("keyed c", &[DropAfter]),
            ("queryable d", &[DropAfter]),
            ("opaque e", &[DropAfter]),
        ],
        script: |rig| {
            Box::pin(async move {
                let acts = "model a; keyed c; queryable d; opaque e";
                let task = rig.give("one", acts).await.id;
                rig.person(&task, the_truth).await;
                vec![task]
            })
        },
    },
    Flow {
        name: "an unknown call was done, and a person says so",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[("opaque b", &[BreakAfter])],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; opaque b; model c").await.id;
                rig.person(&task, the_truth).await;
                vec![task]
            })
        },
    },
    Flow {
        name: "an unknown call was not done, and a person has it sent again",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[("opaque b", &[BreakBefore])],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; opaque b; model c").await.id;
                rig.person(&task, the_truth).await;
                vec![task]
            })
        },
    },
    Flow {
        name: "an unknown call was not done, and a person lets it fail",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[("opaque b", &[BreakBefore; 9])],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; opaque b; model c").await.id;
                rig.person(&task, |_, _| ResumeAs::Fail).await;
                vec![task]
            })
        },
    },
    Flow {
        name: "a budget refuses the next call and the task fails with it",
        fleet: || fleet(|agent| agent.budget.steps = Some(2)),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; pure b; model c").await.id;
                rig.until_state(&task, "failed").await;
                vec![task]
            })
        },
    },
];

#[test]
fn a_call_is_made_once_and_answered_alike_whatever_fails() {
    sweep(FLOWS);
}
