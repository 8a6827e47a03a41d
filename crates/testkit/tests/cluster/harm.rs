//! Deaths in the cluster: of an agent's process, of its pod, of the hub. No task is lost, and only a
//! hub's death repeats a call, which the task then says.

use std::time::Duration;

use serde_json::Value;
use testkit::cluster::{Cluster, Workspace};
use testkit::{Client, processes, until};

use crate::world::{BOUND, TALKER, WORKER, World, completed, submit};

const PACE: Duration = Duration::from_millis(100);

/// A fleet in a workspace of its own.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) workspace: Workspace,
    pub(crate) client: Client,
}

pub(crate) fn scene(label: &str, instances: usize) -> Option<Scene> {
    let cluster = Cluster::find(label)?;
    let world = World::start(cluster, PACE);
    let workspace = Workspace::start(cluster, label);
    world.in_cluster(&workspace, instances);
    let client = workspace.client();
    Some(Scene {
        world,
        workspace,
        client,
    })
}

/// Every model call and every effect of a task happened once, and the task says the same.
pub(crate) fn assert_once(world: &World, agent: &str, input: &str, task: &Value) {
    let asked = world.model_calls(input);
    assert!(asked.iter().all(|times| *times == 1), "{asked:?}: {task}");
    if agent == TALKER {
        let done = world.tool_calls(input);
        assert!(done.iter().all(|times| *times == 1), "{done:?}: {task}");
    }
    assert_eq!(task["repeated"], 0, "{task}");
    assert_eq!(task["divergedAt"], Value::Null, "{task}");
}

#[test]
fn a_killed_agent_goes_on_in_its_pod_and_repeats_nothing() {
    let Some(scene) = scene("crash", 1) else {
        return;
    };
    for agent in [TALKER, WORKER] {
        let input = format!("8 of {agent}");
        let before = scene.workspace.pods(agent);
        let id = submit(&scene.client, agent, &input);
        scene.world.wait_turn(&input, 4);
        let process = scene.workspace.agent_of(&id);
        assert!(processes::kill(process.pid));
        let task = completed(&scene.client, &id, &input);
        assert_once(&scene.world, agent, &input, &task);
        assert_eq!(task["attempts"], 2, "{task}");
        assert_ne!(task["replayed"], 0, "{task}");
        assert_eq!(
            scene.workspace.pods(agent),
            before,
            "the pod was not to notice"
        );
    }
}

#[test]
fn a_task_outlives_its_pod() {
    let Some(scene) = scene("pod", 1) else { return };
    for agent in [TALKER, WORKER] {
        let input = format!("20 of {agent}");
        let id = submit(&scene.client, agent, &input);
        scene.world.wait_turn(&input, 4);
        let process = scene.workspace.agent_of(&id);
        scene.workspace.kubectl(&[
            "delete",
            "pod",
            &process.instance,
            "--grace-period=0",
            "--force",
        ]);
        let task = completed(&scene.client, &id, &input);
        assert_once(&scene.world, agent, &input, &task);
        let pods = scene.workspace.wait_pods(agent, 1);
        assert_ne!(pods[0].name, process.instance);
    }
}

#[test]
fn a_killed_hub_loses_no_task_and_says_what_it_repeated() {
    let Some(scene) = scene("hub", 1) else { return };
    let before = scene.workspace.hub_pod();
    let inputs = [TALKER, WORKER].map(|agent| (agent, format!("12 of {agent}")));
    let ids = inputs
        .clone()
        .map(|(agent, input)| submit(&scene.client, agent, &input));
    for (_, input) in &inputs {
        scene.world.wait_turn(input, 3);
    }
    assert_ne!(before.kill("bin/mainstay"), 0);
    until("another hub", BOUND, || {
        (scene.workspace.hub_pod().restarts > before.restarts).then_some(())
    });
    for ((agent, input), id) in inputs.iter().zip(&ids) {
        let task = completed(&scene.client, id, input);
        let again: usize = scene
            .world
            .model_calls(input)
            .iter()
            .map(|times| times - 1)
            .sum();
        let repeated = task["repeated"].as_u64().unwrap();
        assert!(
            again as u64 <= repeated,
            "{again} unreported of {agent}: {task}"
        );
        let done = scene.world.tool_calls(input);
        let is_keyed_once = done.iter().all(|times| *times >= 1);
        assert!(*agent == WORKER || is_keyed_once, "{done:?}: {task}");
    }
}
