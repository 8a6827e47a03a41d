//! A save that changes what a service runs, in a real fleet: who is idle is replaced at once, who
//! works on a task ends it first, and nobody else notices.

use std::time::{Duration, Instant};

use crate::house::{House, wait_for};

/// Answers with its word; a task `slow` waits for a file `go` beside the manifest.
fn service(name: &str, word: &str, go: &std::path::Path) -> String {
    format!(
        r#"apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: {name}}}
spec:
  restart: {{grace: 5s}}
  runtime:
    service:
      protocol: http
      command:
      - python3
      - -c
      - |
        import http.server, json, os, time
        class Says(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                while b"slow" in asked and not os.path.exists("{go}"): time.sleep(0.02)
                body = json.dumps({{"output": "{word}"}}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *_): pass
        http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Says).serve_forever()
"#,
        go = go.display()
    )
}

fn answer(house: &House, agent: &str) -> String {
    house.run(&["run", agent, "x"]).expect(0).out
}

#[test]
fn a_saved_command_answers_new_tasks_and_lets_an_open_one_end_on_the_old_process() {
    let mut house = House::new();
    let go = house.path("go");
    house.write("fleet/other.yaml", &service("other", "other", &go));
    house.write("fleet/desk.yaml", &service("desk", "one", &go));
    let fleet = house.path("fleet");
    house.up(&[&fleet]);
    assert!(answer(&house, "desk").contains("one"));
    let (desk, other) = (
        house.agent_pid("desk", None),
        house.agent_pid("other", None),
    );

    house.write("fleet/desk.yaml", &service("desk", "two", &go));
    let saved = Instant::now();
    let second = house.agent_pid("desk", Some(desk));
    let took = saved.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(answer(&house, "desk").contains("two"));

    let slow = house.run(&["run", "desk", "slow", "--detach", "-o", "json"]);
    let slow = slow.expect(0).json()["id"].as_str().unwrap().to_owned();
    let shown = |id: &str| {
        let shown = house.run(&["task", "show", id, "-o", "json"]);
        shown.expect(0).json()
    };
    wait_for("its start", || {
        (shown(&slow)["state"] == "working").then_some(())
    });
    house.write("fleet/desk.yaml", &service("desk", "three", &go));
    wait_for("the switch", || {
        let kept = house.state().join("generations/003").exists();
        kept.then_some(())
    });
    let next = house.run(&["run", "desk", "x", "--detach", "-o", "json"]);
    let next = next.expect(0).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        shown(&next)["state"],
        "submitted",
        "not for the old process"
    );
    assert_eq!(house.agent_pid("desk", None), second);
    std::fs::write(&go, "").unwrap();
    let ended = |id: &str| {
        wait_for("its end", || {
            let task = shown(id);
            (task["state"] == "completed").then_some(task)
        })
    };
    let (slow, next) = (ended(&slow), ended(&next));
    assert!(slow["output"].to_string().contains("two"), "{slow}");
    assert!(next["output"].to_string().contains("three"), "{next}");
    assert_eq!(
        (&slow["attempts"], &next["attempts"]),
        (&1.into(), &1.into())
    );
    assert_ne!(house.agent_pid("desk", None), second);
    assert_eq!(house.agent_pid("other", None), other);
    let list = house.run(&["get", "instances", "-o", "json"]).json();
    let restarts = list["items"].as_array().unwrap().iter();
    assert!(
        restarts
            .map(|item| &item["restarts"])
            .all(|count| *count == 0),
        "{list}"
    );
}
