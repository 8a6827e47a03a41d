//! Agents of root's, whose code lies below a directory that only root may enter.

use std::os::unix::fs::PermissionsExt;

use crate::fleet::{Fleet, exec_agent, wait_for};
use crate::{assign, attempt};

#[test]
fn what_an_agents_user_cannot_reach_is_told_with_the_directory_that_bars_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fleet = Fleet::up(&exec_agent("a", "true"));
    let home = fleet.directory().canonicalize().unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::create_dir_all(home.join("lib")).unwrap();
    std::fs::create_dir_all(home.join("tools/bin")).unwrap();
    let tool = home.join("tools/bin/tool");
    std::fs::write(&tool, "#!/bin/sh\necho reached\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let locked = home.join("locked");
    std::fs::copy(&tool, &locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).unwrap();
    let agent = |name: &str, command: &std::path::Path, env: &str| {
        let runtime = format!("exec: {{command: [{}]}}", command.display());
        format!(
            "apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec: {{env: {{{env}}}, runtime: {{{runtime}}}}}\n"
        )
    };
    let env = format!("LIBRARY: {}", home.join("lib").display());
    let manifest = [agent("b", &tool, &env), agent("c", &locked, "")].join("---\n");
    fleet.write("fleet.yaml", &manifest);
    let said = wait_for("both warnings", || {
        let said = fleet.errors();
        (said.contains("warning: b: ") && said.contains("warning: c: ")).then_some(said)
    });
    let closed = format!(
        "lib can't be used by the agent's user {}: {} is closed",
        fleet.first_agent() + 1,
        home.display()
    );
    assert!(said.contains(&closed), "{said}");
    assert!(said.contains("its mode is 0700"), "{said}");
    let run = |name: &str| {
        let mut hub = fleet.hub(name);
        let mut order = assign("t", vec![attempt(1, "")]);
        if let contract::shim::ToShim::Assign { generation, .. } = &mut order {
            *generation = 2;
        }
        hub.send(&order);
        hub.ended("t", 1).0
    };
    assert_eq!(run("b-0").stdout, "reached\n");
    let refused = run("c-0").spawn_error.unwrap_or_default();
    assert!(
        refused.contains("locked can't be used by the agent's user"),
        "{refused}"
    );
}
