//! What ran on the box runs in the cluster: the same manifests, the same tasks, the same JSON.

use std::time::Duration;

use serde_json::Value;
use testkit::Client;
use testkit::cluster::{Cluster, Workspace};

use crate::world::{TALKER, WORKER, World, completed, submit};

/// Other in each run of the same task, in one home as well as in two: ids, times, and what a machine
/// in bad shape makes of it. A generation is counted by its home.
const OWN: [&str; 8] = [
    "id",
    "session",
    "generation",
    "created",
    "updated",
    "attempts",
    "replayed",
    "repeated",
];

fn task(client: &Client, agent: &str, input: &str) -> Value {
    let id = submit(client, agent, input);
    let mut task = completed(client, &id, input);
    let fields = task.as_object_mut().unwrap();
    fields.retain(|name, _| !OWN.contains(&name.as_str()));
    task
}

#[test]
fn a_fleet_gives_the_same_tasks_in_both_homes() {
    let Some(cluster) = Cluster::find("a fleet in both homes") else {
        return;
    };
    let world = World::start(cluster, Duration::ZERO);
    let up = world.on_the_box();
    let workspace = Workspace::start(cluster, "alike");
    world.in_cluster(&workspace, 1);
    for agent in [TALKER, WORKER] {
        let input = format!("5 of {agent}");
        let on_the_box = task(&up.client(), agent, &input);
        let asked = world.model_calls(&input);
        assert_eq!(asked, vec![1; 5]);
        world.provider.forget();
        let in_cluster = task(&workspace.client(), agent, &input);
        assert_eq!(in_cluster, on_the_box);
        assert_eq!(world.model_calls(&input), asked);
    }
}
