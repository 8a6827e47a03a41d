//! Attempts that end before their task does: crash classes, back-off, poison, and a provider that
//! is down.

use super::{Flow, sweep};
use crate::home::fleet;
use crate::rig::world::Fate::Fail;

/// A flag of the world: the agent crashes as long as it stands.
const BROKEN: &str = "broken";

const FLOWS: &[Flow] = &[
    Flow {
        name: "an agent crashes once",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "model a; crash-once x; keyed b").await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "an agent is killed from outside",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let acts = "model a; killed-once x; killed-once y; keyed b";
                let task = rig.give("one", acts).await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "an agent crashes again and again, and gets on between",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let acts = "model a; crash-once x; model b; crash-once y; model c; crash-once z";
                let task = rig.give("one", acts).await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "a poisoned session waits for a person",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                rig.world.first(BROKEN);
                let acts = "model a; crash-while broken; model b";
                let first = rig.give_in(Some("talk"), "one", acts).await.id;
                let second = rig.give_in(Some("talk"), "two", "model c").await.id;
                rig.until_parked(&first, "poison").await;
                rig.until_parked(&second, "poison").await;
                rig.world.no_longer(BROKEN);
                rig.retry(&first).await;
                rig.retry(&second).await;
                rig.until_state(&first, "completed").await;
                rig.until_state(&second, "completed").await;
                vec![first, second]
            })
        },
    },
    Flow {
        name: "an agent has crashed as often as it may",
        fleet: || fleet(|agent| agent.max_attempts = 1),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                rig.world.first(BROKEN);
                let task = rig.give("one", "crash-while broken").await.id;
                rig.until_state(&task, "failed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "a provider fails attempt after attempt, and works again",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[("hasty a", &[Fail; 3])],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "hasty a; model b").await.id;
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
];

#[test]
fn an_attempt_that_ends_is_followed_alike_whatever_fails() {
    sweep(FLOWS);
}
