//! A generation: proposed, journaled, and the keeper told.

use super::{Flow, sweep};
use crate::home::fleet;
use crate::rig::keeper::Verdict;

const FLOWS: &[Flow] = &[
    Flow {
        name: "a generation is applied while a task of the one before works",
        fleet: || fleet(|_| {}),
        instances: 2,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let pinned = rig.give("one", "model a; take 2; model b").await.id;
                rig.until_state(&pinned, "working").await;
                let number = rig.keeper.propose(fleet(|agent| agent.max_attempts = 5));
                rig.keeper.committed(number).await;
                let next = rig.give("two", "model c").await.id;
                let next = rig.until_state(&next, "completed").await;
                let pinned = rig.until_state(&pinned, "completed").await;
                assert_eq!((pinned.generation, next.generation), (Some(1), Some(2)));
                vec![pinned.id, next.id]
            })
        },
    },
    Flow {
        name: "a generation is refused, and what runs goes on",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let task = rig.give("one", "take 1; model a").await.id;
                let mut other = fleet(|_| {});
                other.workspace = "other".into();
                let number = rig.keeper.propose(other);
                let verdict = rig.keeper.verdict(number).await;
                assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
                rig.until_state(&task, "completed").await;
                vec![task]
            })
        },
    },
    Flow {
        name: "an agent goes, its tasks wait, and go on when it is back",
        fleet: || fleet(|_| {}),
        instances: 1,
        fates: &[],
        script: |rig| {
            Box::pin(async move {
                let works = rig.give("one", "take 2; model a").await.id;
                rig.until_state(&works, "working").await;
                let waits = rig.give("two", "model b").await.id;
                let mut without = fleet(|_| {});
                without.agents.clear();
                let number = rig.keeper.propose(without);
                rig.keeper.committed(number).await;
                rig.until_parked(&waits, "interrupted").await;
                let number = rig.keeper.propose(fleet(|_| {}));
                rig.keeper.committed(number).await;
                rig.until_state(&waits, "completed").await;
                rig.until_state(&works, "completed").await;
                vec![works, waits]
            })
        },
    },
];

#[test]
fn a_generation_is_applied_whole_or_not_at_all_whatever_fails() {
    sweep(FLOWS);
}
