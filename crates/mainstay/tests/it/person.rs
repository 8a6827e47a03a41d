//! Work that only a person can decide about: an opaque call whose outcome nobody knows.

use serde_json::Value;

use crate::house::{House, signal, wait_for};

/// A stdio MCP server whose one tool takes long and leaves a line for each time it was called.
const SERVER: &str = r#"
import json, os, sys, time
def reply(id, result): print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "initialize":
        reply(m["id"], {"protocolVersion": m["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "pay", "version": "1"}})
    elif m.get("method") == "tools/list":
        reply(m["id"], {"tools": [{"name": "refund", "description": "Refund.", "inputSchema": {"type": "object", "properties": {"order": {"type": "string"}}}}]})
    elif m.get("method") == "tools/call":
        with open(os.path.join(os.environ["HOME"], "calls"), "a") as f: f.write("refund\n")
        time.sleep(4)
        reply(m["id"], {"content": [{"type": "text", "text": "refunded"}]})
    elif "id" in m:
        reply(m["id"], {})
"#;

const SCRIPT: &str = "rules:
  - when: {turn: 0}
    answer: {toolCalls: [{name: refund, arguments: {order: \"17\"}}]}
  - answer: {text: \"The tool says: {{lastToolResult}}\"}
";

fn house() -> House {
    let mut house = House::new();
    let code: Vec<String> = SERVER
        .lines()
        .map(|line| format!("          {line}"))
        .collect();
    let manifest = format!(
        "apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: script}}
spec: {{type: script, script: {{file: script.yaml}}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {{name: pay}}
spec:
  tools:
    - name: desk
      mcp:
        command:
        - python3
        - -c
        - |
{}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: clerk}}
spec: {{models: [script/demo], tools: [pay/desk]}}
",
        code.join("\n")
    );
    house.write("fleet/script.yaml", SCRIPT);
    house.write("fleet/fleet.yaml", &manifest);
    let fleet = house.path("fleet");
    house.up(&[&fleet]);
    house
}

/// Kills the hub while the refund is under way; returns the waiting task.
fn interrupted(house: &House) -> Value {
    let mut command = house.command(&["run", "clerk", "refund order 17", "-o", "json"]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let calls = house.state().join("run/home/pay-desk-0/home/calls");
    wait_for("the call", || calls.exists().then_some(()));
    signal(house.hub_pid(), "KILL");
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(7),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        house.said()
    );
    let task: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(task["state"], "input-required", "{task}");
    task
}

fn calls(house: &House) -> usize {
    let text =
        std::fs::read_to_string(house.state().join("run/home/pay-desk-0/home/calls")).unwrap();
    text.lines().count()
}

#[track_caller]
fn check(how: &str, expect: &str, expect_calls: usize) {
    let mut house = house();
    let task = interrupted(&house);
    let (id, step) = (task["id"].as_str().unwrap(), task["askedStep"].to_string());
    let shown = house.run(&["task", "show", id]).expect(0);
    assert!(shown.out.contains("task resume"), "{shown:?}");
    assert!(
        house
            .run(&["task", "list", "--in", "input-required"])
            .expect(0)
            .out
            .contains(id)
    );
    house
        .run(&["task", "resume", id, "--step", "99", "--as", "repeat"])
        .expect(4);
    house
        .run(&["task", "resume", id, "--step", &step, "--as", how])
        .expect(0);
    let done = wait_for("the answer", || {
        let task = house
            .run(&["task", "show", id, "-o", "json"])
            .expect(0)
            .json();
        (task["state"] == "completed").then_some(task)
    });
    assert_eq!(done["output"], expect, "{done}");
    assert_eq!(calls(&house), expect_calls);
    house.stop();
    house.run(&["log", "verify"]).expect(0);
    house.run(&["log", "rebuild", "--check"]).expect(0);
}

#[test]
fn a_person_says_that_it_was_done() {
    check(
        "done=\"refunded by hand\"",
        "The tool says: refunded by hand",
        1,
    );
}

#[test]
fn a_person_has_it_sent_again() {
    check("repeat", "The tool says: refunded", 2);
}
