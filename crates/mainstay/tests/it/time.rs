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
