//! Time that is up, in a real fleet: an exec that computes for ever and a service that never
//! answers, neither of which calls.

use crate::house::{House, wait_for};

const FLEET: &str = r#"apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: busy}
spec:
  runtime: {exec: {command: [sh, -c, 'while :; do :; done']}}
  budget: {task: {time: 6s}}
  restart: {grace: 1s}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: silent}
spec:
  runtime:
    service:
      protocol: http
      command:
      - python3
      - -c
      - |
        import http.server, os, time
        class Silent(http.server.BaseHTTPRequestHandler):
            def do_POST(self): time.sleep(1000)
        http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Silent).serve_forever()
  budget: {task: {time: 6s}}
  restart: {grace: 1s}
"#;

#[test]
fn a_task_that_never_calls_ends_when_its_time_is_up() {
    let mut house = House::new();
    house.write("fleet/fleet.yaml", FLEET);
    let fleet = house.path("fleet");
    house.up(&[&fleet]);
    for agent in ["busy", "silent"] {
        let started = house.run(&["run", agent, "x", "--detach", "-o", "json"]);
        let id = started.expect(0).json()["id"].as_str().unwrap().to_owned();
        let pid = house.agent_pid(agent, None);
        let ended = wait_for("the end of its time", || {
            let shown = house.run(&["task", "show", &id, "-o", "json"]);
            let task = shown.expect(0).json();
            let is_open = ["submitted", "working"].contains(&task["state"].as_str()?);
            (!is_open).then_some(task)
        });
        assert_eq!(
            (&ended["state"], &ended["reason"], &ended["attempts"]),
            (&"failed".into(), &"budget".into(), &1.into()),
            "{ended}"
        );
        wait_for("its process's end", || {
            let gone = !std::path::Path::new(&format!("/proc/{pid}")).exists();
            gone.then_some(())
        });
    }
    house.stop();
    house.run(&["log", "verify"]).expect(0);
    house.run(&["log", "rebuild", "--check"]).expect(0);
}

const BROKEN: &str = r#"apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: broken}
spec:
  runtime: {service: {protocol: http, command: [sh, -c, 'echo no key >&2; exit 1']}}
"#;

#[test]
fn a_run_that_waits_for_a_service_says_why() {
    let mut house = House::new();
    let fleet = house.write("fleet.yaml", BROKEN);
    house.up(&[&fleet]);
    let errors = house.path("run.err");
    let mut child = house
        .command(&["run", "broken", "x"])
        .stderr(std::fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    wait_for("the reason", || {
        let said = std::fs::read_to_string(&errors).unwrap();
        let told = said.contains("waits: broken-0 is starting") && said.contains("no key");
        told.then_some(())
    });
    let tasks = house.run(&["task", "list", "-o", "json"]).expect(0).json();
    let id = tasks["items"][0]["id"].as_str().unwrap();
    house.run(&["task", "cancel", id]).expect(0);
    child.wait().unwrap();
}
