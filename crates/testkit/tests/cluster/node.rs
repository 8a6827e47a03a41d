//! A node is lost while a task runs on it, with the hub and a second instance on the other node. The
//! task goes on there long before Kubernetes even notices.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::cluster::{Cluster, Workspace};
use testkit::until;

use crate::world::{BOUND, WORKER, World, completed, submit};

/// From the loss to the next model call of the task.
const SOON: Duration = Duration::from_secs(5);

fn task_goes_on_after(loss: &str) -> Option<Value> {
    let name = format!("a lost node ({loss})");
    let cluster = Cluster::find(&name).filter(|cluster| cluster.is_ours(&name))?;
    let world = World::start(cluster, Duration::from_millis(200));
    let workspace = Workspace::start(cluster, loss);
    world.in_cluster(&workspace, 2);
    let hub = workspace.hub_pod();
    let pods = workspace.pods(WORKER);
    let lost = pods.iter().find(|pod| pod.node != hub.node);
    let lost = lost.unwrap_or_else(|| panic!("no instance is away from the hub: {pods:?}"));
    let has_another = pods.iter().any(|pod| pod.node == hub.node);
    assert!(has_another, "no instance is beside the hub: {pods:?}");
    // By its own address: that of a service leads through node-1.
    let client = workspace.client_at(&hub);
    // There is room for one on each instance.
    let tasks = ["30 of one", "30 of two"].map(|input| (input, submit(&client, WORKER, input)));
    let is_lost = |id: &str| workspace.agent_of(id).instance == lost.name;
    let (running, other): (Vec<_>, Vec<_>) = tasks.iter().partition(|(_, id)| is_lost(id));
    let [(input, id)] = running[..] else {
        panic!("not one task is on {lost:?}: {running:?}");
    };
    world.wait_turn(input, 4);
    // So that the other instance has room.
    for (_, id) in other {
        let cancel = format!("/api/v1/tasks/{id}/cancel");
        let answer = client.request("POST", &cancel).send().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let started = Instant::now();
    let _failed = cluster.fail(&lost.node, loss);
    // What comes from now on comes from the other node, or never left.
    let at_loss = world.provider.calls_of(input).len();
    until("the task's next model call", BOUND, || {
        (world.provider.calls_of(input).len() > at_loss).then_some(())
    });
    let after = started.elapsed();
    eprintln!(
        "{loss}: the task went on {:.2} s after its node was lost",
        after.as_secs_f64()
    );
    let task = completed(&client, id, input);
    let asked = world.model_calls(input);
    let again: usize = asked.iter().map(|times| times - 1).sum();
    assert!(
        again as u64 <= task["repeated"].as_u64().unwrap(),
        "{asked:?}: {task}"
    );
    assert!(after <= SOON, "it took {after:?}: {task}");
    Some(task)
}

#[test]
fn a_task_goes_on_elsewhere_when_its_node_loses_its_power() {
    if let Some(task) = task_goes_on_after("power") {
        assert_eq!(task["attempts"], 2, "{task}");
    }
}

#[test]
fn a_task_goes_on_elsewhere_when_its_nodes_cable_is_pulled() {
    if let Some(task) = task_goes_on_after("cable") {
        assert_eq!(task["attempts"], 2, "{task}");
    }
}

#[test]
fn a_task_does_not_mind_the_death_of_its_nodes_kubelet() {
    if let Some(task) = task_goes_on_after("kubelet") {
        assert_eq!(task["attempts"], 1, "{task}");
    }
}
