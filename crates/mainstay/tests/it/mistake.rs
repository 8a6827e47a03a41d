//! What a person's mistake gets: an exit code, a sentence on standard error, and nothing done.

use crate::house::{House, wait_for};

const AGENT: &str = "apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\n";

/// The message on standard error, with nothing on standard output.
#[track_caller]
fn check(arguments: &[&str], manifest: Option<&str>, code: i32, expect: &[&str]) {
    let house = House::new();
    if let Some(text) = manifest {
        house.write("f.yaml", text);
    }
    let ran = house.run(arguments).expect(code);
    assert_eq!(ran.out, "", "{ran:?}");
    for part in expect {
        assert!(ran.err.contains(part), "no {part:?} in {}", ran.err);
    }
}

#[test]
fn a_wrong_command_is_2() {
    check(&["nonsense"], None, 2, &["nonsense"]);
    check(&["run"], None, 2, &["AGENT"]);
    check(&["get", "agentz"], None, 2, &["agentz", "hint: kinds:"]);
    check(&["up", "--listen", "nowhere"], None, 2, &["nowhere"]);
    check(
        &["task", "resume", "x", "--step", "1", "--as", "maybe"],
        None,
        2,
        &["maybe"],
    );
    check(&["hub"], None, 2, &["mainstay up"]);
}

#[test]
fn a_wrong_manifest_is_3_with_place_and_nearest_name() {
    let typo = format!("{AGENT}spec:\n  modles: [script/x]\n");
    check(
        &["up", "f.yaml"],
        Some(&typo),
        3,
        &["f.yaml:5:3", "modles", "models", "^"],
    );
    check(
        &["apply", "f.yaml"],
        Some(&typo),
        3,
        &["f.yaml:5:3", "models"],
    );
    let missing = format!("{AGENT}spec:\n  models: [nobody/x]\n");
    check(
        &["up", "f.yaml"],
        Some(&missing),
        3,
        &["f.yaml:5", "nobody"],
    );
    check(&["up", "f.yaml"], Some("kind: [\n"), 3, &["f.yaml"]);
    check(&["apply", "f.yaml"], Some("{}"), 3, &["f.yaml"]);
}

#[test]
fn what_only_keeper_and_hub_can_see_is_3_with_place_and_fix() {
    let up = ["up", "f.yaml", "--listen", "127.0.0.1:0"];
    let source =
        format!("{AGENT}spec:\n  runtime: {{exec: {{command: [sh]}}}}\n  source: ./nowhere\n");
    check(
        &up,
        Some(&source),
        3,
        &["f.yaml:6:11", "nowhere", "^", "hint: a path"],
    );
    let pin = "apiVersion: mainstay.dev/v1alpha1
kind: PromptPack
metadata: {name: words}
spec: {version: v2, prompts: {hello: Hello.}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: a}
spec:
  models: [openai/gpt-5.1]
  prompt: {pack: words, name: hello, version: v1}
";
    let fix = "hint: pin version v2 of words";
    check(&up, Some(pin), 3, &["f.yaml:16:47", "v1", "^", fix]);
}

#[test]
fn a_directory_without_a_manifest_is_said_and_followed() {
    let mut house = House::new();
    house.write("fleet/notes.txt", "");
    let fleet = house.path("fleet");
    house.up(&[&fleet]);
    assert!(house.said().contains("no manifest in"), "{}", house.said());
    let agent = format!("{AGENT}spec: {{runtime: {{exec: {{command: [cat]}}}}}}\n");
    house.write("fleet/a.yaml", &agent);
    wait_for("the agent", || {
        let agents = house.run(&["get", "agents"]).expect(0);
        agents.out.contains("\na ").then_some(())
    });
}

#[test]
fn what_is_not_there_is_4() {
    check(&["up", "nothing.yaml"], None, 4, &["nothing.yaml"]);
    check(&["apply", "nothing.yaml"], None, 4, &["nothing.yaml"]);
    check(&["log", "verify"], None, 4, &["--state"]);
    check(&["logs", "a"], None, 4, &["a"]);
}

#[test]
fn a_hub_that_nobody_runs_is_6() {
    for arguments in [
        ["run", "a", "x"].as_slice(),
        &["task", "list"],
        &["apply", "f.yaml"],
        &["start", "a"],
        &["events"],
    ] {
        check(
            arguments,
            Some(&format!("{AGENT}spec: {{models: [script/x]}}\n")),
            6,
            &["mainstay up"],
        );
    }
}

#[test]
fn a_configuration_that_names_no_known_context_is_2() {
    let house = House::new();
    house.write(
        ".config/mainstay/config.yaml",
        "current: far\ncontexts:\n  near: {url: 'http://127.0.0.1:1'}\n",
    );
    let ran = crate::house::House::run(&house, &["--context", "far", "token"]).expect(2);
    assert!(
        ran.err.contains("far") && ran.err.contains("near"),
        "{}",
        ran.err
    );
}
