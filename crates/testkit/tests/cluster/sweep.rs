//! A kill sweep: while tasks run, agents' processes, pods and the hub die at random moments. No task
//! is lost, and no call is made twice that its task doesn't report.
//!
//! A few tasks by default; `MAINSTAY_SWEEP_TASKS=100` for what proves more. Moments and victims are
//! drawn from a seed that is printed.

use std::time::{Duration, Instant};

use testkit::random::Random;
use testkit::{processes, until};

use crate::harm::{Scene, scene};
use crate::world::{TALKER, WORKER, completed, submit};

const INSTANCES: usize = 2;
/// Of ten victims: the others are agents' processes.
const PODS: u64 = 2;
const HUBS: u64 = 1;
/// For each task. Deaths without end would keep any task from its own.
const DEATHS: usize = 3;

fn tasks() -> usize {
    let given = std::env::var("MAINSTAY_SWEEP_TASKS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(8)
}

/// How many of each died.
#[derive(Debug, Default)]
struct Deaths {
    agents: usize,
    pods: usize,
    hubs: usize,
}

impl Deaths {
    fn all(&self) -> usize {
        self.agents + self.pods + self.hubs
    }

    /// Ends something, if it's there to be ended.
    fn draw(&mut self, scene: &Scene, random: &mut Random) {
        let drawn = random.below(10);
        if drawn < HUBS {
            let hub = scene.workspace.hub_process();
            self.hubs += usize::from(hub.is_some_and(processes::kill));
        } else if (HUBS..HUBS + PODS).contains(&drawn) {
            let agent: &&str = random.choose(&[TALKER, WORKER]);
            let pods = scene.workspace.pods(agent);
            if !pods.is_empty() {
                let name = &random.choose(&pods).name;
                scene
                    .workspace
                    .kubectl(&["delete", "pod", name, "--wait=false"]);
                self.pods += 1;
            }
        } else {
            let agents = scene.workspace.agents();
            let at_work: Vec<_> = agents.iter().filter(|agent| agent.task.is_some()).collect();
            if !at_work.is_empty() {
                self.agents += usize::from(processes::kill(random.choose(&at_work).pid));
            }
        }
    }
}

#[test]
fn a_sweep_of_deaths_loses_no_task_and_repeats_nothing_unsaid() {
    let Some(scene) = scene("sweep", INSTANCES) else {
        return;
    };
    let mut random = Random::announced("sweep in a cluster");
    let agents = [TALKER, WORKER];
    let inputs = (0..tasks()).map(|number| (agents[number % 2], format!("10 of {number}")));
    let submitted: Vec<_> = inputs
        .map(|(agent, input)| (agent, submit(&scene.client, agent, &input), input))
        .collect();
    let mut deaths = Deaths::default();
    let mut next = Instant::now();
    // Two at a time, a second of work each, and as much again for what is killed.
    let bound = Duration::from_secs(120 + 10 * submitted.len() as u64);
    until("every task's end", bound, || {
        if Instant::now() >= next && deaths.all() < DEATHS * submitted.len() {
            deaths.draw(&scene, &mut random);
            next = Instant::now() + Duration::from_millis(random.between(300, 2000));
        }
        let has_ended = |id: &str| {
            let task = scene.client.task(id);
            task.is_some_and(|task| {
                !matches!(task["state"].as_str(), Some("submitted" | "working"))
            })
        };
        submitted
            .iter()
            .all(|(_, id, _)| has_ended(id))
            .then_some(())
    });
    for (agent, id, input) in &submitted {
        let task = completed(&scene.client, id, input);
        let asked = scene.world.model_calls(input);
        let done = scene.world.tool_calls(input);
        let again = |counts: &[usize]| {
            counts
                .iter()
                .map(|times| times.saturating_sub(1))
                .sum::<usize>()
        };
        let repeated = usize::try_from(task["repeated"].as_u64().unwrap()).unwrap();
        assert!(
            again(&asked) + again(&done) <= repeated,
            "{asked:?} {done:?}: {task}"
        );
        assert!(asked.iter().all(|times| *times > 0), "{asked:?}: {task}");
        assert!(
            *agent == WORKER || done.iter().all(|times| *times > 0),
            "{done:?}: {task}"
        );
    }
    eprintln!("sweep: {} tasks, {deaths:?}", submitted.len());
    assert!(deaths.agents > 0, "nothing was harmed");
}
