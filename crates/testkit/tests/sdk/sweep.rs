//! Kill sweeps: SIGKILL at random moments to agents, to the hub, to the keeper, over many tasks.
//!
//! Moments are drawn from a seed that is printed. A quarter of the agents' deaths come a while after
//! the process was first seen, the others when the provider sees a certain turn, so that start-up
//! and every step get their share. What must hold afterwards differs by who was killed: an agent's
//! death repeats nothing, a hub's death at most the model calls in flight, each reported.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::random::Random;
use testkit::{mcp_server, processes};

use crate::agents::{self, Sdk};
use crate::result::{Counted, Progress};
use crate::world::{Submitted, TURNS, World};

const KILLS_PER_TASK: usize = 2;
const REPLICAS: u32 = 3;

fn tasks() -> u32 {
    let given = std::env::var("MAINSTAY_SWEEP_TASKS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// Per task, generously: these run beside other tests on small machines.
fn bound(tasks: u32) -> Duration {
    Duration::from_secs(240 + 30 * u64::from(tasks))
}

/// When to kill a process.
enum Moment {
    At(Instant),
    Turn(u32),
}

struct AgentKiller<'a> {
    world: &'a World,
    random: Random,
    input_of: BTreeMap<String, String>,
    kills: BTreeMap<String, usize>,
    planned: BTreeMap<i32, Moment>,
}

impl AgentKiller<'_> {
    /// Kills whose moment has come; plans one for each process not seen before.
    fn look(&mut self) {
        let turns = self.world.provider.counts();
        for process in self.world.up.agents() {
            let Some(task) = process.task else { continue };
            if self.kills.get(&task).copied().unwrap_or(0) >= KILLS_PER_TASK {
                continue;
            }
            let random = &mut self.random;
            let moment = self.planned.entry(process.pid).or_insert_with(|| {
                if random.draw().is_multiple_of(4) {
                    let after = Duration::from_millis(random.between(0, 2000));
                    Moment::At(Instant::now() + after)
                } else {
                    let turn = random.between(1, u64::from(TURNS));
                    Moment::Turn(u32::try_from(turn).unwrap_or(1))
                }
            });
            let is_due = match moment {
                Moment::At(time) => Instant::now() >= *time,
                Moment::Turn(turn) => {
                    let input = self.input_of.get(&task).cloned().unwrap_or_default();
                    turns.contains_key(&(input, *turn))
                }
            };
            if is_due && processes::kill(process.pid) {
                self.planned.remove(&process.pid);
                *self.kills.entry(task).or_default() += 1;
            }
        }
    }
}

fn sweep_agents(agent: &Sdk) {
    let Some(world) = World::start(agent, REPLICAS) else {
        return;
    };
    let submitted = world.submit(tasks());
    let mut progress = Progress::start(agent.name, submitted.len());
    let pairs = submitted
        .iter()
        .map(|task| (task.id.clone(), task.input.clone()));
    let mut killer = AgentKiller {
        world: &world,
        random: Random::announced(agent.name),
        input_of: pairs.collect(),
        kills: BTreeMap::new(),
        planned: BTreeMap::new(),
    };
    run_down(&world, &submitted, |open| {
        killer.look();
        progress.tell(open, killer.kills.values().sum());
    });

    let (mut replayed, mut hits) = (0, 0);
    for task in &submitted {
        let shown = world.assert_completed(task);
        let kills = killer.kills.get(&task.id).copied().unwrap_or(0);
        assert_eq!(world.model_calls(task), vec![1; TURNS as usize], "{shown}");
        world.assert_effects_once(task);
        assert_eq!(shown["repeated"], 0, "{shown}");
        assert_eq!(shown["divergedAt"], Value::Null, "{shown}");
        let attempts = usize::try_from(shown["attempts"].as_u64().unwrap()).unwrap();
        // A task's last kill may meet a process that has just ended by itself.
        assert!(attempts >= kills, "{kills} kills: {shown}");
        hits += kills.min(attempts - 1);
        replayed += shown["replayed"].as_u64().unwrap();
    }
    world.assert_log_verifies();
    let least = submitted.len();
    assert!(
        hits >= least,
        "only {hits} kills over {least} tasks prove little"
    );
    let counted = Counted {
        killed: "agents",
        kills: hits,
        replayed: Some(replayed),
        again: 0,
        reported: 0,
        questions: 0,
    };
    counted.publish(&progress, agent);
}

/// Calls `act` again and again until every task has ended; answers questions about unknown steps.
fn run_down(world: &World, submitted: &[Submitted], mut act: impl FnMut(usize)) -> usize {
    let deadline = Instant::now() + bound(tasks());
    let mut open: Vec<_> = submitted.iter().collect();
    let mut resumed = 0;
    let mut next_look = Instant::now();
    while !open.is_empty() {
        act(open.len());
        if Instant::now() >= next_look {
            next_look = Instant::now() + Duration::from_millis(200);
            open.retain(|task| {
                let Some(shown) = world.up.task(&task.id) else {
                    return true;
                };
                if shown["state"] == "input-required" {
                    resumed += usize::from(answer(world, task, &shown));
                }
                let state = shown["state"].as_str().unwrap_or_default();
                !matches!(state, "completed" | "failed" | "canceled" | "rejected")
            });
        }
        assert!(
            Instant::now() < deadline,
            "still open: {:?}\n{}",
            open.iter()
                .map(|task| world.up.task(&task.id))
                .collect::<Vec<_>>(),
            world.up.tail()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    resumed
}

/// What a person does about an unknown step: looks whether it happened, and says so.
fn answer(world: &World, task: &Submitted, shown: &Value) -> bool {
    assert_eq!(shown["reason"], "question", "{shown}");
    let steps = world.up.steps(&task.id);
    let tools: Vec<_> = steps.iter().filter(|step| step["kind"] == "tool").collect();
    let unknown = tools.iter().position(|step| step["state"] == "unknown");
    let Some(index) = unknown else {
        return false;
    };
    let n = index as u64 + 1;
    let times = world.tools.counts().get(&(task.input.clone(), n)).copied();
    let step = tools[index]["n"].to_string();
    let decision = match times.unwrap_or(0) {
        0 => "repeat".to_owned(),
        1 => format!("done={}", Value::from(mcp_server::result_of(n))),
        times => panic!("effect {n} of {} happened {times} times", task.input),
    };
    let resume = [
        "task", "resume", &task.id, "--step", &step, "--as", &decision,
    ];
    let output = world.up.cli(&resume);
    // A hub that dies under the command leaves the question; the next look asks again.
    output.code == 0
}

/// Kills what `kill` kills at random moments, about two times per task, and checks what a hub's
/// death may cost.
fn sweep_hubs(killed: &'static str, agent: &Sdk, mut kill: impl FnMut(&mut World)) {
    let Some(mut world) = World::start(agent, REPLICAS) else {
        return;
    };
    let submitted = world.submit(tasks());
    let mut progress = Progress::start(killed, submitted.len());
    let mut random = Random::announced(killed);
    let most = submitted.len() * KILLS_PER_TASK;
    let mut kills = 0;
    let mut resumed = 0;
    while kills < most {
        let pause = Duration::from_millis(random.between(50, 2500));
        let until = Instant::now() + pause;
        let open = loop {
            let open = open_tasks(&world, &submitted, &mut resumed);
            progress.tell(open, kills);
            if open == 0 || Instant::now() >= until {
                break open;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if open == 0 {
            break;
        }
        kill(&mut world);
        kills += 1;
    }
    resumed += run_down(&world, &submitted, |open| progress.tell(open, kills));

    let (mut extra, mut reported) = (0, 0);
    for task in &submitted {
        let shown = world.assert_completed(task);
        let calls = world.model_calls(task);
        assert!(calls.iter().all(|times| *times >= 1), "{calls:?} {shown}");
        let again = calls.iter().sum::<usize>() as u64 - u64::from(TURNS);
        let repeated = shown["repeated"].as_u64().unwrap();
        assert!(
            again <= repeated,
            "{again} calls again, {repeated} reported: {shown}"
        );
        world.assert_effects_once(task);
        extra += again;
        reported += repeated;
    }
    world.assert_log_verifies();
    assert!(
        kills >= submitted.len() / 2,
        "only {kills} kills prove little"
    );
    assert!(
        extra <= (kills * REPLICAS as usize) as u64,
        "more than the calls in flight"
    );
    let counted = Counted {
        killed,
        kills,
        replayed: None,
        again: extra,
        reported,
        questions: resumed,
    };
    counted.publish(&progress, agent);
}

fn open_tasks(world: &World, submitted: &[Submitted], resumed: &mut usize) -> usize {
    let mut open = 0;
    for task in submitted {
        let shown = world.up.task(&task.id).unwrap_or(Value::Null);
        if shown["state"] == "input-required" {
            *resumed += usize::from(answer(world, task, &shown));
        }
        let state = shown["state"].as_str().unwrap_or_default();
        let has_ended = matches!(state, "completed" | "failed" | "canceled" | "rejected");
        open += usize::from(!has_ended);
    }
    open
}

#[test]
fn sweep_agents_openai_chat_in_python() {
    sweep_agents(&agents::CHAT);
}

#[test]
fn sweep_agents_anthropic_messages_in_python() {
    sweep_agents(&agents::MESSAGES_STREAM);
}

#[test]
fn sweep_agents_langgraph() {
    sweep_agents(&agents::LANGGRAPH);
}

#[test]
fn sweep_agents_openai_agents_sdk() {
    sweep_agents(&agents::AGENTS_SDK);
}

#[test]
fn sweep_agents_openai_chat_in_node() {
    sweep_agents(&agents::NODE_CHAT);
}

#[test]
fn sweep_hub() {
    sweep_hubs("hub", &agents::CHAT_STREAM, |world| {
        world.up.kill_hub();
        world.up.wait_ready();
    });
}

#[test]
fn sweep_keeper_followed_by_a_new_up() {
    sweep_hubs("keeper, then a new `up`", &agents::CHAT_STREAM, |world| {
        world.up.kill_keeper();
        world.up.restart();
    });
}
