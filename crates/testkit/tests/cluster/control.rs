//! The control plane in trouble: no API server for a minute, operators that are killed in the middle
//! of what they do, two of them. Tasks go on all the while, and in the end everything is as written.

use std::time::{Duration, Instant};

use testkit::cluster::{Cluster, OPERATOR, PATIENCE, Workspace, condition};
use testkit::random::Random;
use testkit::{processes, until};

use crate::harm::{assert_once, scene};
use crate::world::{BOUND, TALKER, WORKER, completed, submit};

const MINUTE: Duration = Duration::from_secs(60);
/// How long an operator lives before it's killed, at most: longer than a round of changes takes.
const LIFE_MS: u64 = 900;

#[test]
fn tasks_do_not_mind_a_minute_without_the_api_server() {
    let Some(scene) = scene("api-away", 1) else {
        return;
    };
    let cluster = scene.workspace.cluster;
    if !cluster.is_ours("a minute without the API server") {
        return;
    }
    let hub = scene.workspace.hub_pod();
    let failed = cluster.fail("control-plane", "api-server");
    let away = Instant::now();
    let mut number = 0;
    while away.elapsed() < MINUTE {
        number += 1;
        for agent in [TALKER, WORKER] {
            let input = format!("8 of {agent} {number}");
            let id = submit(&scene.client, agent, &input);
            scene.world.wait_turn(&input, 2);
            // One of three loses its process, and the third one the hub.
            let is_hubs = number == 3 && agent == WORKER;
            if is_hubs {
                assert_ne!(hub.kill("bin/mainstay"), 0);
            } else if number % 3 == 1 {
                assert!(processes::kill(scene.workspace.agent_of(&id).pid));
            }
            let task = completed(&scene.client, &id, &input);
            if !is_hubs {
                assert_once(&scene.world, agent, &input, &task);
            }
        }
    }
    assert!(number >= 3, "{number} rounds in a minute");
    drop(failed);
    // What is written now is followed, by the operator and by the hub.
    until("the API server to be back", PATIENCE, || {
        let output = cluster.kubectl(&["get", "--raw", "/readyz"], "");
        (output.code == 0).then_some(())
    });
    scene
        .workspace
        .kubectl(&["scale", "agent", WORKER, "--replicas=2"]);
    let _ = scene.workspace.wait_pods(WORKER, 2);
    let input = "4 of after";
    let id = submit(&scene.client, WORKER, input);
    let task = completed(&scene.client, &id, input);
    assert_once(&scene.world, WORKER, input, &task);
}

#[test]
fn two_operators_that_are_killed_at_any_moment_make_what_was_written_last() {
    let Some(cluster) = Cluster::find("operators that are killed") else {
        return;
    };
    let workspace = Workspace::start(cluster, "killed");
    let _two = cluster.operate(2);
    let mut random = Random::announced("the operators' deaths");
    let (rounds, mut killed) = (6, 0);
    for round in 1..=rounds {
        workspace.apply(&manifests(cluster, round));
        // Recreated under its name, and changed at once.
        workspace.kubectl(&[
            "delete",
            "agent",
            "again",
            "--ignore-not-found",
            "--wait=false",
        ]);
        let life = Duration::from_millis(random.below(LIFE_MS));
        let begun = Instant::now();
        until("an operator's time to die", PATIENCE, || {
            (begun.elapsed() >= life).then_some(())
        });
        // The one that leads is one of these; where it isn't, the next round has another chance.
        let operators = cluster.operators();
        let victim = random.choose(&operators);
        killed += victim.kill("bin/mainstay");
        // Another pod at once, which waits for no back-off.
        let delete = ["delete", "pod", &victim.name, "--grace-period=0", "--force"];
        let _ = cluster.kubectl(&[&delete[..], &[OPERATOR]].concat(), "");
    }
    assert_ne!(killed, 0, "no operator was killed");
    workspace.kubectl(&["delete", "agent", "again", "--ignore-not-found"]);
    workspace.apply(&manifests(cluster, rounds + 1));
    let marks = format!("round-{}", rounds + 1);
    until("everything to be as it was written last", 2 * BOUND, || {
        let list = workspace.get(&["deployments", "--selector=mainstay.dev/agent"])?;
        let made = list["items"].as_array()?.clone();
        let mut names: Vec<&str> = made
            .iter()
            .filter_map(|one| one["metadata"]["name"].as_str())
            .collect();
        names.sort_unstable();
        let is_last = made.iter().all(|one| one.to_string().contains(&marks));
        (is_last && names == NAMES).then_some(())
    });
    for name in NAMES {
        let _ = workspace.wait_pods(name, 1);
        until(
            "the agent to be ready as it was written last",
            BOUND,
            || {
                let agent = workspace.get(&["agent", name])?;
                let seen = &agent["status"]["observedGeneration"];
                let is_ready = condition(&agent, "Ready")?["status"] == "True";
                (is_ready && *seen == agent["metadata"]["generation"]).then_some(())
            },
        );
    }
}

const NAMES: [&str; 4] = ["again", "one", "three", "two"];

fn manifests(cluster: &Cluster, round: u32) -> String {
    let mark = format!("env: {{ROUND: round-{round}}}");
    let agents = NAMES.map(|name| cluster.teller(name, &mark));
    agents.join("---\n")
}
