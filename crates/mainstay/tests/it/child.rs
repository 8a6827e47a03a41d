//! A fleet in which one agent calls another as a tool, and the other comes to wait for a person.

use serde_json::Value;

use crate::house::{House, wait_for};

const SCRIPT: &str = "rules:
  - when: {turn: 0}
    answer: {toolCalls: [{name: ask-writer, arguments: {input: hello}}]}
  - answer: {text: \"The writer says: {{lastToolResult}}\"}
";

/// The writer crashes until there is a file that only this test makes.
fn house() -> House {
    let mut house = House::new();
    let manifest = format!(
        "apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: script}}
spec: {{type: script, script: {{file: script.yaml}}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {{name: team}}
spec:
  tools:
    - {{name: ask-writer, agent: writer, description: Hand text to the writer.}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: editor}}
spec: {{models: [script/demo], tools: [team/ask-writer]}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: writer}}
spec:
  runtime:
    exec: {{command: [sh, -c, 'test -e {} || {{ echo no pen >&2; exit 1; }}; echo written']}}
",
        house.path("pen").display()
    );
    house.write("fleet/script.yaml", SCRIPT);
    house.write("fleet/fleet.yaml", &manifest);
    let fleet = house.path("fleet");
    house.up(&[&fleet]);
    house
}

fn shown(house: &House, id: &str) -> Value {
    house
        .run(&["task", "show", id, "-o", "json"])
        .expect(0)
        .json()
}

#[test]
fn a_task_is_parked_while_the_agent_it_called_waits_for_a_person_and_goes_on_by_itself() {
    let mut house = house();
    let started = house.run(&["run", "editor", "x", "--detach", "-o", "json"]);
    let id = started.expect(0).json()["id"].as_str().unwrap().to_owned();
    let parked = wait_for("the caller to be parked", || {
        let task = shown(&house, &id);
        (task["state"] == "input-required").then_some(task)
    });
    assert_eq!(parked["reason"], "parked", "{parked}");
    let listed = house
        .run(&["task", "list", "--in", "input-required", "-o", "json"])
        .expect(0)
        .json();
    let child = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|task| task["agent"] == "writer")
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let said = parked["error"]["message"].as_str().unwrap();
    assert!(said.contains(&child), "{said}");

    house.write("pen", "");
    house.run(&["task", "retry", &child]).expect(0);
    let done = wait_for("the caller's answer", || {
        let task = shown(&house, &id);
        (task["state"] == "completed").then_some(task)
    });
    assert_eq!(done["output"], "The writer says: written", "{done}");
    assert_eq!(
        (&done["attempts"], &done["repeated"]),
        (&2.into(), &0.into())
    );
    house.stop();
    house.run(&["log", "verify"]).expect(0);
    house.run(&["log", "rebuild", "--check"]).expect(0);
}
