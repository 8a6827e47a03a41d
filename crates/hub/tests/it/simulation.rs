//! Random histories on the real hub: tasks, calls, kills, cut links, hub restarts, cancels, and a
//! person who answers. Whatever happened, in the end every task is done, no call was made twice
//! unless the journal says so, and every row is what the entries say.
//!
//! `MAINSTAY_SIM_SEEDS` is how many seeds to run, `MAINSTAY_SIM_SEED` the one to run alone.

mod agent;
mod check;
mod shim;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hub::Code;
use hub::task::{Resume, SubmitTask};
use mainstay_core::task::ResumeAs;
use serde_json::json;

use shim::SimShim;
use world::{Random, World};

const SEEDS: u64 = 30;
const AT_ONCE: usize = 6;
const INSTANCES: u32 = 2;
/// Every task must be done by then, whatever came before.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_task_ends_and_no_call_is_made_twice_unsaid() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds: Vec<u64> = match number("MAINSTAY_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("MAINSTAY_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let mut running = tokio::task::JoinSet::new();
    for seed in seeds {
        if running.len() >= AT_ONCE {
            join(running.join_next().await);
        }
        running.spawn(async move {
            let run = tokio::spawn(simulate(seed)).await;
            assert!(run.is_ok(), "MAINSTAY_SIM_SEED={seed} failed: {run:?}");
        });
    }
    while !running.is_empty() {
        join(running.join_next().await);
    }
}

fn join(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// One history.
async fn simulate(seed: u64) {
    let state = tempfile::tempdir().unwrap();
    let mut random = Random::seeded(seed);
    // What a hub's death leaves in doubt is whether an answer arrived, and then it is repeated: an
    // equal request that was meant to be a second gets it too. So equal requests or dying hubs.
    let equals = seed.is_multiple_of(3);
    let world = World::new(seed);
    let shims: Vec<SimShim> = (0..INSTANCES)
        .map(|index| SimShim::start(&world, state.path(), index, random.draw()))
        .collect();
    let mut home = world::SimHome::start(&world, state.path(), &shims).await;
    let mut tasks = Vec::new();
    for n in 0..random.below(5) + 3 {
        tasks.push(submit(&world, &mut random, n, equals).await);
    }
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(random.below(12))).await;
        match random.below(20) {
            0..=5 => shims[random.pick(shims.len())].kill(),
            6 => shims[random.pick(shims.len())].cut_link(),
            7 | 8 if !equals => {
                home.end().await;
                home = world::SimHome::start(&world, state.path(), &shims).await;
            }
            9 => {
                let _ = world
                    .hub()
                    .await
                    .task_cancel(&tasks[random.pick(tasks.len())], "owner")
                    .await;
            }
            10 => {
                let _ = world
                    .hub()
                    .await
                    .task_retry(&tasks[random.pick(tasks.len())], "owner")
                    .await;
            }
            11 => check::rows_are_what_the_entries_say(&directory(state.path())),
            _ => answer(&world, &tasks, &mut random).await,
        }
    }
    settle(&world, &tasks, &mut random).await;
    for task in &tasks {
        check::nothing_was_done_twice(&world, task).await;
    }
    world.no_answer_changed();
    check::rows_are_what_the_entries_say(&directory(state.path()));
    let before = check::views(&world, &tasks).await;
    home.end().await;
    check::rows_are_what_the_entries_say(&directory(state.path()));
    store::verify(&directory(state.path()), &store::VerifyOptions::default()).unwrap();
    let home = world::SimHome::start(&world, state.path(), &shims).await;
    assert_eq!(check::views(&world, &tasks).await, before);
    home.end().await;
}

fn directory(state: &Path) -> std::path::PathBuf {
    state.join("workspaces/default")
}

/// Submits a task, twice under one key now and then, and now and then in a shared session.
async fn submit(world: &Arc<World>, random: &mut Random, n: u64, equals: bool) -> String {
    let input = random.draw() & !1 | u64::from(equals);
    let keyed = SubmitTask {
        agent: "helper".into(),
        input: json!(input.to_string()),
        session: (random.below(3) == 0).then(|| "shared".to_owned()),
        idempotency_key: Some(format!("key {n}")),
        author: "test".into(),
        ..Default::default()
    };
    let first = world.hub().await.task_submit(keyed.clone()).await.unwrap();
    if random.below(2) == 0 {
        let second = world.hub().await.task_submit(keyed).await.unwrap();
        assert_eq!(second.id, first.id);
    }
    first.id
}

/// The person: looks at what waits and says what is true, or tries again.
async fn answer(world: &Arc<World>, tasks: &[String], random: &mut Random) {
    let hub = world.hub().await;
    for task in tasks {
        let Ok(view) = hub.task_get(task).await else {
            return;
        };
        if !view.state.ends_with("-required") {
            continue;
        }
        assert_ne!(view.reason.as_deref(), Some("divergence"), "{view:?}");
        let Some(step) = view.asked_step else {
            let _ = hub.task_retry(task, "owner").await;
            continue;
        };
        let Ok(steps) = hub.task_steps(task).await else {
            return;
        };
        let asked = &steps.items[step as usize - 1];
        let was_done = world.executions(&asked.id) > 0;
        let resume = Resume {
            step,
            how: if was_done {
                ResumeAs::Done
            } else if random.below(4) == 0 {
                ResumeAs::Fail
            } else {
                ResumeAs::Repeat
            },
            result: None,
            author: "owner".into(),
        };
        if let Err(error) = hub.task_resume(task, resume).await {
            let raced = matches!(error.code, Code::Conflict | Code::Unavailable);
            assert!(raced, "{error}");
        }
    }
}

/// From here on nothing goes wrong any more: every task that nobody canceled is completed.
async fn settle(world: &Arc<World>, tasks: &[String], random: &mut Random) {
    world.be_kind();
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        answer(world, tasks, random).await;
        let mut left = Vec::new();
        for task in tasks {
            let view = world.hub().await.task_get(task).await.unwrap();
            match view.state.as_str() {
                "completed" | "canceled" => {}
                "failed" => panic!("a task failed: {view:?}"),
                _ => left.push(view),
            }
        }
        if left.is_empty() {
            return;
        }
        if tokio::time::Instant::now() > until {
            let told = check::history(world, &left[0].id).await;
            panic!("these wait for ever: {left:#?}\n{told}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
