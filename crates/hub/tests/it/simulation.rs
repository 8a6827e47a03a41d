//! Random histories on the real hub, in virtual time: tasks, calls, kills of agents and of the hub
//! at any moment, commits that fail, a disk that fills, links that are cut, a clock that jumps,
//! cancels, retries, and a person who answers. The invariants of `rig/invariant.rs` are looked at
//! after every commit; in the end every task is done, no call was made twice unless the journal
//! says so, and nothing that was acknowledged is lost.
//!
//! `MAINSTAY_SIM_SEEDS` is how many seeds to run, `MAINSTAY_SIM_SEED` the one to run alone. A seed
//! is a history: run again it gives the same log.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::fleet::Fleet;
use hub::task::SubmitTask;
use hub::view::TaskView;
use mainstay_core::task::ResumeAs;
use serde_json::{Value, json};
use store::Stage;

use crate::home::fleet;
use crate::rig::agent::{calls, program};
use crate::rig::ground::{Fault, Outside};
use crate::rig::world::{Random, Results, World};
use crate::rig::{Look, Rig, fold, in_virtual_time};

const SEEDS: u64 = 60;
/// Of these every one is run twice.
const TWICE: u64 = 8;
const INSTANCES: u32 = 2;
/// The agent that may spend little.
const MISER: &str = "miser";
const MISER_TOKENS: u64 = 45;

#[test]
fn whatever_happens_every_task_ends_and_no_call_is_made_twice_unsaid() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (from, to) = match number("MAINSTAY_SIM_SEED") {
        Some(seed) => (seed, seed),
        None => (1, number("MAINSTAY_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    on_two_threads(from, to, |seed| {
        in_virtual_time(History::run(seed));
    });
}

#[test]
fn the_same_seed_is_the_same_history_to_the_byte() {
    on_two_threads(1, TWICE, |seed| {
        let first = in_virtual_time(History::run(seed));
        let second = in_virtual_time(History::run(seed));
        let differs = first
            .iter()
            .zip(&second)
            .position(|(one, other)| one != other);
        if let Some(at) = differs {
            let from = at.saturating_sub(3);
            let (one, other) = (&first[from..=at], &second[from..=at]);
            panic!("two histories part at line {at}: {one:#?}\n{other:#?}");
        }
        assert_eq!(first.len(), second.len());
    });
}

/// Runs every seed; what one says when it fails comes with its number.
fn on_two_threads(from: u64, to: u64, run: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(from);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed > to {
                    return;
                }
                let ran = std::panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
                if let Err(panic) = ran {
                    eprintln!("MAINSTAY_SIM_SEED={seed} failed");
                    std::panic::resume_unwind(panic);
                }
            }
        };
        let threads = [scope.spawn(work), scope.spawn(work)];
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn two_agents() -> Fleet {
    let mut fleet = fleet(|agent| {
        agent.queue_max = 1000;
        agent.max_attempts = 1_000_000;
    });
    let mut miser = fleet.agents["helper"].clone();
    miser.name = MISER.into();
    miser.budget.tokens = Some(MISER_TOKENS);
    fleet.agents.insert(MISER.into(), miser);
    fleet
}

/// One history.
struct History {
    rig: Rig,
    random: Random,
    /// What a hub's death leaves in doubt is whether an answer arrived, and then it is repeated: an
    /// equal request that was meant to be a second gets it too. So equal requests or dying hubs.
    equals: bool,
    tasks: Vec<String>,
}

impl History {
    /// Returns all that its logs hold.
    async fn run(seed: u64) -> Vec<String> {
        let world = World::new(seed, Results::ByStep, false);
        let outside = Outside::new(seed);
        world.watch.budget(MISER, MISER_TOKENS);
        let mut history = Self {
            rig: Rig::start(world, outside, two_agents(), INSTANCES).await,
            random: Random::seeded(seed),
            equals: seed.is_multiple_of(3),
            tasks: Vec::new(),
        };
        for n in 0..history.random.below(5) + 3 {
            history.submit(n).await;
        }
        for _ in 0..40 {
            let pause = [3, 30, 300][history.random.pick(3)];
            let ms = history.random.below(pause);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            history.something_happens().await;
            history.nothing_is_wrong().await;
        }
        history.settle().await;
        history.hold_up().await
    }

    async fn something_happens(&mut self) {
        let (shims, random) = (&self.rig.shims, &mut self.random);
        match random.below(24) {
            0..=4 => shims[random.pick(shims.len())].kill(),
            5 => shims[random.pick(shims.len())].cut_link(Duration::ZERO),
            6 => {
                // Longer than the hub waits for it, or not.
                let closed_for = Duration::from_millis(random.below(6_000));
                shims[random.pick(shims.len())].cut_link(closed_for);
            }
            7 | 8 if !self.equals => {
                let away = Duration::from_millis(random.below(40));
                self.rig.keeper.kill_hub(away);
            }
            9..=11 if !self.equals => {
                let stages = [
                    Fault::Disk(Stage::Begin),
                    Fault::Disk(Stage::Written),
                    Fault::Disk(Stage::Committed),
                    Fault::Disk(Stage::Headed),
                    Fault::Told,
                    Fault::Orderly,
                ];
                let at = self.rig.outside.commits() + 1 + random.below(12);
                self.rig.outside.fail_at(at, *random.choose(&stages));
            }
            12 => {
                let is_full = random.below(3) == 0;
                self.rig.outside.fill(is_full);
            }
            13 => {
                let by_ms = i64::try_from(random.below(20_000)).unwrap() - 10_000;
                self.rig.outside.jump(by_ms);
            }
            14 => {
                let task = random.choose(&self.tasks).clone();
                let cancel = |hub: hub::Hub| {
                    let task = task.clone();
                    async move { hub.task_cancel(&task, "owner").await }
                };
                self.rig.command("cancel", cancel).await;
            }
            15 => {
                let task = random.choose(&self.tasks).clone();
                self.rig.retry(&task).await;
            }
            16 => fold::rows_are_what_the_entries_say(&self.rig.log()),
            _ => self.answer().await,
        }
    }

    /// Submits a task, twice under one key now and then, and now and then in a shared session.
    async fn submit(&mut self, n: u64) {
        let agent = if self.random.below(4) == 0 {
            MISER
        } else {
            "helper"
        };
        let now_ms = self.rig.outside.now_ms();
        let wait_ms = i64::try_from(self.random.below(60_000)).unwrap();
        let submit = SubmitTask {
            agent: agent.into(),
            input: json!(self.input()),
            session: (self.random.below(3) == 0)
                .then(|| format!("shared by {agent}s").replace(' ', "-")),
            idempotency_key: Some(format!("key {n}")),
            deadline_ms: (self.random.below(6) == 0).then_some(now_ms + wait_ms),
            author: "test".into(),
            ..Default::default()
        };
        let first = self.rig.submit(submit.clone()).await;
        if self.random.below(2) == 0 {
            let second = self.rig.submit(submit).await;
            assert_eq!(second.id, first.id);
        }
        self.tasks.push(first.id);
    }

    /// What an agent is to do. Equal requests are told apart by occurrence.
    fn input(&mut self) -> String {
        let mut acts = Vec::new();
        for turn in 0..=self.random.below(4) {
            acts.push(format!("model turn {turn}"));
            for _ in 0..self.random.below(3) {
                let verbs = ["pure", "keyed", "queryable", "opaque", "local"];
                let verb = *self.random.choose(&verbs);
                let order = if self.equals {
                    self.random.below(3)
                } else {
                    acts.len() as u64
                };
                acts.push(format!("{verb} {order}"));
            }
            if self.random.below(4) == 0 {
                acts.push("take 1".to_owned());
            }
        }
        acts.join("; ")
    }

    /// The person: looks at what waits and says what is true, or tries again.
    async fn answer(&mut self) {
        for task in self.tasks.clone() {
            let view = self.rig.task(&task).await;
            if !view.state.ends_with("-required") {
                continue;
            }
            assert_ne!(view.reason.as_deref(), Some("divergence"), "{view:?}");
            let Some(step) = view.asked_step else {
                self.rig.retry(&task).await;
                continue;
            };
            let Some(id) = self.step_id(&task, step).await else {
                continue;
            };
            let how = if self.rig.world.executions(&id) > 0 {
                ResumeAs::Done
            } else if self.random.below(4) == 0 {
                ResumeAs::Fail
            } else {
                ResumeAs::Repeat
            };
            self.rig.resume(&task, step, how, None).await;
        }
    }

    async fn step_id(&self, task: &str, step: u32) -> Option<String> {
        let steps = self.rig.world.hub().await.task_steps(task).await.ok()?;
        let asked = steps.items.into_iter().find(|known| known.n == step)?;
        Some(asked.id)
    }

    async fn nothing_is_wrong(&self) {
        let wrong = self.rig.wrong();
        if wrong.is_empty() {
            return;
        }
        let mut told = String::new();
        for task in self.tasks.iter().filter(|task| wrong[0].contains(*task)) {
            told.push_str(&self.rig.history(task).await);
        }
        panic!("{wrong:#?}\n{told}");
    }

    /// From here on nothing goes wrong any more: every task that nobody canceled ends.
    async fn settle(&mut self) {
        self.rig.world.be_kind();
        self.rig.outside.fill(false);
        let mut look = Look::default();
        loop {
            self.answer().await;
            self.nothing_is_wrong().await;
            let mut left = Vec::new();
            for task in &self.tasks {
                let view = self.rig.task(task).await;
                if !is_over(&view) {
                    left.push(view);
                }
            }
            let Some(first) = left.first() else { return };
            if look.is_over() {
                let told = self.rig.history(&first.id).await;
                panic!("these wait for ever: {left:#?}\n{told}");
            }
            look.again().await;
        }
    }

    /// What is there in the end, and after another start.
    async fn hold_up(self) -> Vec<String> {
        for task in &self.tasks {
            self.nothing_was_done_twice(task).await;
        }
        let before = self.views().await;
        self.rig.keeper.kill_hub(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(self.views().await, before);
        self.nothing_is_wrong().await;
        let (log, system) = (self.rig.log(), self.rig.system());
        let (_state, wrong) = self.rig.end().await;
        assert!(wrong.is_empty(), "{wrong:#?}");
        [fold::told(&log), fold::told(&system)].concat()
    }

    async fn views(&self) -> Vec<Value> {
        let mut views = Vec::new();
        for task in &self.tasks {
            views.push(serde_json::to_value(self.rig.task(task).await).unwrap());
        }
        views
    }

    /// One step for each call of the program, performed once, or once more for each time that the
    /// journal owns up to.
    async fn nothing_was_done_twice(&self, task: &str) {
        let view = self.rig.task(task).await;
        let steps = self.rig.world.hub().await.task_steps(task).await.unwrap();
        let asked = calls(view.input.as_str().unwrap());
        assert!(!program(view.input.as_str().unwrap()).is_empty());
        if view.state == "completed" {
            assert_eq!(steps.items.len(), asked, "{view:#?}\n{steps:#?}");
            // Marks die with a hub that is killed.
            let told = view.steps as usize;
            assert!(
                told <= asked && (told == asked || !self.equals),
                "{view:#?}"
            );
            assert_eq!(view.diverged_at, None);
        }
        assert!(
            steps.items.len() <= asked,
            "more steps than calls: {view:#?}"
        );
        let said: u32 = steps.items.iter().map(|step| step.repeated).sum();
        assert_eq!(said, view.repeated, "{view:#?}");
        for step in steps.items {
            let times = self.rig.world.executions(&step.id);
            assert!(times <= 1 + step.repeated, "{times} times: {step:#?}");
            // What asks first, or is answered for by a person, is never done twice.
            let once = ["queryable", "opaque", "local"].contains(&step.name.as_str());
            assert!(times <= 1 || !once, "{times} times: {step:#?}");
        }
    }
}

fn is_over(view: &TaskView) -> bool {
    match (view.state.as_str(), view.reason.as_deref()) {
        ("completed" | "canceled", _) | ("failed", Some("deadline")) => true,
        ("failed", Some("budget")) if view.agent == MISER => true,
        ("failed", _) => panic!("a task failed: {view:?}"),
        _ => false,
    }
}
