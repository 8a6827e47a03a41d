//! A session moves from the box into the cluster with a task open, and another one the way back:
//! each goes on at its step, and what was done is not done again.

use std::path::Path;
use std::time::Duration;

use testkit::cli::Output;
use testkit::cluster::{Cluster, Workspace};
use testkit::{Client, Up};

use crate::world::{TALKER, WORKER, World, completed, submit};

#[test]
fn a_session_moves_between_the_homes_with_its_open_task() {
    let Some(cluster) = Cluster::find("a session that moves") else {
        return;
    };
    let world = World::start(cluster, Duration::from_millis(300));
    let up = world.on_the_box();
    let workspace = Workspace::start(cluster, "move");
    world.in_cluster(&workspace, 1);
    let folder = up.fleet().state();
    let on_the_box = Home::Box(&up);
    let in_cluster = Home::Workspace(&workspace);

    let there = moves(&world, &on_the_box, &in_cluster, TALKER, &folder);
    let _back = moves(&world, &in_cluster, &on_the_box, WORKER, &folder);

    // What ended in the cluster is known on the box once it's brought back.
    let session = there["session"].as_str().unwrap();
    let file = folder.join("again.session");
    in_cluster.export(session, &file);
    on_the_box.import(&file);
    let known = up.client().task(there["id"].as_str().unwrap()).unwrap();
    assert_eq!(known["state"], "completed", "{known}");
    assert_eq!(known["output"], there["output"]);
}

/// Begins a task at one home and ends it at the other.
fn moves(
    world: &World,
    from: &Home<'_>,
    to: &Home<'_>,
    agent: &str,
    folder: &Path,
) -> serde_json::Value {
    let input = format!("6 of {agent}");
    let id = submit(&from.client(), agent, &input);
    world.wait_turn(&input, 2);
    let session = from.client().task(&id).unwrap()["session"].clone();
    let file = folder.join(format!("{agent}.session"));
    from.export(session.as_str().unwrap(), &file);
    let left = from.client().task(&id).unwrap();
    assert_eq!(left["state"], "input-required", "{left}");
    to.import(&file);
    let _ = to.mainstay(&["task", "retry", &id]).expect_code(0);
    let task = completed(&to.client(), &id, &input);
    assert_eq!(world.model_calls(&input), vec![1; 6], "{agent}");
    if agent == TALKER {
        assert_eq!(world.tool_calls(&input), vec![1; 5]);
    }
    task
}

enum Home<'a> {
    Box(&'a Up),
    Workspace(&'a Workspace),
}

impl Home<'_> {
    fn client(&self) -> Client {
        match self {
            Self::Box(up) => up.client(),
            Self::Workspace(workspace) => workspace.client(),
        }
    }

    fn mainstay(&self, arguments: &[&str]) -> Output {
        match self {
            Self::Box(up) => up.cli(arguments),
            Self::Workspace(workspace) => {
                let there = ["--namespace", workspace.name()];
                workspace
                    .cluster
                    .mainstay(&[&there[..], arguments].concat())
            }
        }
    }

    fn export(&self, session: &str, to: &Path) {
        let to = to.to_str().unwrap();
        let _ = self
            .mainstay(&["session", "export", session, "-o", to])
            .expect_code(0);
    }

    fn import(&self, from: &Path) {
        let from = from.to_str().unwrap();
        let _ = self.mainstay(&["session", "import", from]).expect_code(0);
    }
}
