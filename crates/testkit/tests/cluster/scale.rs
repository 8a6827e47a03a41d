//! From zero and back: a task wakes an agent that has no pod, and an idle one gives its pods up.

use testkit::cluster::{Cluster, Workspace};
use testkit::until;

use crate::world::{BOUND, submit};

const TELLER: &str = "teller";

#[test]
fn an_agent_without_a_pod_is_woken_by_a_task_and_leaves_when_it_has_none() {
    let Some(cluster) = Cluster::find("an agent at zero") else {
        return;
    };
    let workspace = Workspace::start(cluster, "zero");
    let scale = "scale: {min: 0, max: 3, idleAfter: 2s}";
    workspace.apply(&cluster.teller(TELLER, scale));
    let client = workspace.client();
    let is_empty = || workspace.pods(TELLER).is_empty().then_some(());
    until("the agent has no pod", BOUND, || {
        let agent = workspace.get(&["agent", TELLER])?;
        (agent["spec"]["replicas"] == 0).then(is_empty)?
    });
    let id = submit(&client, TELLER, "hello");
    let task = client.reached(&id, &["completed", "failed"], BOUND);
    let task = task.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(task["state"], "completed", "{task}");
    assert_eq!(task["attempts"], 1, "{task}");
    until("the agent has no pod again", BOUND, is_empty);
    // The hub's own part of status, beside the operator's.
    let status = until("the hub says what it knows of the agent", BOUND, || {
        let agent = workspace.get(&["agent", TELLER])?;
        agent["status"]["version"]
            .is_string()
            .then(|| agent["status"].clone())
    });
    assert_eq!(status["tasks"]["open"], 0, "{status}");
    assert_eq!(status["costToday"], "0.00", "{status}");
}
