//! Whole fleets: a task from manifest to JSON, and the same with agent, hub and keeper killed in the middle.

use serde_json::Value;
use store::{Place, Server, VerifyOptions};
use testkit::postgres::Postgres;

use crate::house::{House, signal, wait_for};

/// Ten model calls, slow enough to be killed between; counts its calls in the answer.
const PROGRAM: &str = r#"
import json, os, sys, urllib.request
task = json.load(sys.stdin)
said = []
print("seen", task["input"], file=sys.stderr)
for n in range(10):
    body = {"model": "script/demo", "messages": [{"role": "user", "content": f"{task['input']} {n}"}]}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
        {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"})
    said.append(json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"])
print(" ".join(said))
"#;

const SCRIPT: &str = "rules:\n  - answer: {text: \"<{{input}}>\", delayMs: 150}\n";

const MANIFEST: &str = "apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: script}
spec: {type: script, script: {file: script.yaml}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: ten}
spec:
  models: [script/demo]
  source: ./code
  runtime: {exec: {command: [python3, ten.py]}}
";

fn house() -> House {
    started(House::new())
}

fn started(mut house: House) -> House {
    house.write("fleet/code/ten.py", PROGRAM);
    house.write("fleet/script.yaml", SCRIPT);
    house.write("fleet/fleet.yaml", MANIFEST);
    let fleet = house.path("fleet");
    house.up(&[&fleet]);
    house
}

fn expected() -> String {
    (0..10)
        .map(|n| format!("<go {n}>"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Submits, and comes back once some steps are done.
fn begin(house: &House, steps: usize) -> (String, std::process::Child) {
    let mut command = house.command(&["run", "ten", "go", "-o", "json"]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let id = wait_for("the task", || {
        let list: Value =
            serde_json::from_str(&house.run(&["task", "list", "-o", "json"]).out).ok()?;
        list["items"][0]["id"].as_str().map(str::to_owned)
    });
    steps_are_done(house, &id, steps);
    (id, child)
}

fn steps_are_done(house: &House, id: &str, steps: usize) {
    wait_for("its steps", || {
        let list: Value =
            serde_json::from_str(&house.run(&["task", "steps", id, "-o", "json"]).out).ok()?;
        let finished = list["items"]
            .as_array()?
            .iter()
            .filter(|step| step["state"] == "finished")
            .count();
        (finished >= steps).then_some(())
    });
}

/// Waits for `run` and returns the task it printed.
#[track_caller]
fn finish(house: &House, child: std::process::Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{err}\n{}", house.said());
    let task: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (task["state"].as_str(), task["output"].as_str()),
        (Some("completed"), Some(expected().as_str())),
        "{task}"
    );
    assert_eq!(task["steps"], 10, "{task}");
    task
}

fn check_log(house: &mut House) {
    house.stop();
    let verified = house.run(&["log", "verify", "-o", "json"]).expect(0).json();
    assert!(
        verified["logs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|log| log["result"] == "consistent"),
        "{verified}"
    );
    house.run(&["log", "rebuild", "--check"]).expect(0);
}

#[test]
fn a_task_goes_from_a_manifest_to_json() {
    let mut house = house();
    let task = house
        .run(&["run", "ten", "go", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(task["output"].as_str(), Some(expected().as_str()));
    assert_eq!(
        (
            task["attempts"].as_u64(),
            task["replayed"].as_u64(),
            task["repeated"].as_u64()
        ),
        (Some(1), Some(0), Some(0))
    );
    let shown = house
        .run(&["task", "show", task["id"].as_str().unwrap(), "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(shown, task);
    let plain = house.run(&["run", "ten", "go"]).expect(0);
    assert_eq!(plain.out, format!("{}\n", expected()));
    assert!(house.run(&["get", "agents"]).expect(0).out.contains("ten"));
    assert!(
        house
            .run(&["describe", "agent", "ten"])
            .expect(0)
            .out
            .contains("ten.py")
    );
    for (kind, name, field) in [
        ("agent", "ten", "/spec/runtime/exec/command"),
        ("agent", "ten", "/status/ready"),
        ("provider", "script", "/spec/script/file"),
        ("provider", "script", "/status/models/demo"),
        ("workspace", "default", "/status/generation"),
    ] {
        for verb in ["get", "describe"] {
            let shown = house
                .run(&[verb, kind, name, "-o", "json"])
                .expect(0)
                .json();
            assert!(shown.pointer(field).is_some(), "{field}: {shown}");
            assert_eq!(shown["metadata"]["name"], name);
            let text = shown.to_string();
            let internal = ["model_facts", "base_url", "\"ms\"", "secret_env"];
            assert!(!internal.iter().any(|word| text.contains(word)), "{text}");
        }
    }
    let wide = house.run(&["get", "providers", "-o", "wide"]).expect(0);
    assert!(wide.out.contains("script"), "{wide:?}");
    let missing = house.run(&["get", "agent", "tne"]).expect(4);
    assert!(missing.err.contains("ten"), "{missing:?}");
    let missing = house.run(&["run", "tne", "go"]).expect(4);
    assert!(
        missing.err.contains("ten"),
        "no nearest name: {}",
        missing.err
    );
    house.run(&["task", "show", "no-such-task"]).expect(4);
    let detached = house.run(&["run", "ten", "go", "--detach"]).expect(0);
    house
        .run(&["task", "cancel", detached.out.trim(), "-o", "json"])
        .expect(0);
    let head = house.run(&["log", "head"]).expect(0).out;
    check_log(&mut house);
    house.write("old.head", &head);
    let verified = house
        .run(&["log", "verify", "--since", "old.head"])
        .expect(0);
    assert!(verified.out.contains("authentic"), "{verified:?}");
}

#[test]
fn an_agents_death_repeats_no_call() {
    let mut house = house();
    let (_, child) = begin(&house, 3);
    let pid = house.agent_pid("ten", None);
    signal(pid, "KILL");
    house.agent_pid("ten", Some(pid));
    let task = finish(&house, child);
    assert_eq!(
        (task["attempts"].as_u64(), task["repeated"].as_u64()),
        (Some(2), Some(0)),
        "{task}"
    );
    assert!(task["replayed"].as_u64() >= Some(3), "{task}");
    check_log(&mut house);
}

#[test]
fn a_run_survives_the_hubs_death_and_reports_what_was_repeated() {
    let mut house = house();
    let (_, child) = begin(&house, 3);
    signal(house.hub_pid(), "KILL");
    let task = finish(&house, child);
    assert!(task["repeated"].as_u64() <= Some(1), "{task}");
    check_log(&mut house);
}

#[test]
fn a_run_whose_log_is_on_postgres_survives_the_hubs_death_and_the_servers() {
    let Some(mut postgres) = Postgres::start(&[]) else {
        return;
    };
    let url = postgres.url();
    let mut house = House::new();
    let file = house.write("postgres-url", &url);
    let file = file.display().to_string();
    house.set("MAINSTAY_STORE_POSTGRES_URL_FILE", &file);
    let mut house = started(house);
    let (id, child) = begin(&house, 2);
    signal(house.hub_pid(), "KILL");
    steps_are_done(&house, &id, 4);
    postgres.crash();
    postgres.resume();
    let task = finish(&house, child);
    assert!(task["repeated"].as_u64() <= Some(1), "{task}");
    check_log(&mut house);
    let log = house.state().join("workspaces/default");
    assert!(!log.join("log.db").exists(), "the log is in the state");
    let server = Server::parse(&url).unwrap();
    let system = server.beside("system").unwrap();
    for (server, dir) in [(server, log), (system, house.state().join("system"))] {
        let place = Place::Server { server, dir };
        store::verify_at(&place, &VerifyOptions::default()).unwrap();
    }
}

#[test]
fn a_task_survives_the_keepers_death_and_goes_on_under_the_next() {
    let mut house = house();
    let (_, child) = begin(&house, 3);
    signal(house.keeper_pid(), "KILL");
    house.keeper_is_gone();
    let fleet = house.path("fleet");
    house.up(&[&fleet]);
    let task = finish(&house, child);
    assert!(task["repeated"].as_u64() <= Some(1), "{task}");
    check_log(&mut house);
}

#[test]
fn a_stopped_agent_keeps_its_tasks_until_it_is_started() {
    let mut house = house();
    house.run(&["stop", "ten"]).expect(0);
    let id = house
        .run(&["run", "ten", "go", "--detach"])
        .expect(0)
        .out
        .trim()
        .to_owned();
    assert_eq!(
        house
            .run(&["task", "show", &id, "-o", "json"])
            .expect(0)
            .json()["state"],
        "submitted"
    );
    house.run(&["start", "ten"]).expect(0);
    wait_for("the answer", || {
        let task = house
            .run(&["task", "show", &id, "-o", "json"])
            .expect(0)
            .json();
        (task["state"] == "completed").then_some(())
    });
    check_log(&mut house);
}

#[test]
fn an_object_of_a_directory_cannot_be_applied_and_others_can() {
    let mut house = house();
    house.write(
        "more.yaml",
        &MANIFEST
            .split("---")
            .nth(1)
            .unwrap()
            .replace("name: ten", "name: more")
            .replace("source: ./code", "source: ./fleet/code"),
    );
    assert!(
        house
            .run(&["diff", "more.yaml"])
            .expect(0)
            .out
            .contains("+ Agent more")
    );
    house.run(&["get", "agent", "more"]).expect(4);
    assert!(
        house
            .run(&["apply", "more.yaml"])
            .expect(0)
            .out
            .contains("+ Agent more")
    );
    house.run(&["run", "more", "go"]).expect(0);
    assert!(
        house
            .run(&["delete", "more.yaml"])
            .expect(0)
            .out
            .contains("- Agent more")
    );
    let gone = house.run(&["delete", "more.yaml"]).expect(4);
    assert!(gone.err.contains("there is no Agent more"), "{gone:?}");
    house.run(&["get", "agent", "more"]).expect(4);
    // Only the hub knows which versions there were: what it refuses is told here and not kept.
    house.write(
        "pinned.yaml",
        r#"{"apiVersion":"mainstay.dev/v1alpha1","kind":"PromptPack","metadata":{"name":"pack"},"spec":{"version":"2","prompts":{"system":"x"}}}
---
{"apiVersion":"mainstay.dev/v1alpha1","kind":"Agent","metadata":{"name":"pinned"},"spec":{"models":["script/demo"],"prompt":{"pack":"pack","name":"system","version":"1"}}}
"#,
    );
    let refused = house.run(&["apply", "pinned.yaml"]).expect(3);
    assert!(refused.err.contains("version 1"), "{refused:?}");
    house.run(&["get", "agent", "pinned"]).expect(4);
    house.run(&["apply", "more.yaml"]).expect(0);
    house.run(&["get", "agent", "more"]).expect(0);
    house.run(&["delete", "more.yaml"]).expect(0);
    let owned = house.run(&["apply", "fleet/fleet.yaml"]);
    assert_eq!(owned.code, Some(3), "{owned:?}");
    assert!(owned.err.contains("fleet.yaml"), "{owned:?}");
    check_log(&mut house);
}

#[test]
fn a_second_keeper_and_a_busy_port_are_told_apart() {
    let house = house();
    let second = house
        .run(&["up", "fleet", "--listen", "127.0.0.1:0"])
        .expect(1);
    assert!(
        second.err.contains("in use") && second.err.contains(&house.keeper_pid().to_string()),
        "{}",
        second.err
    );
    let address = house
        .link
        .strip_prefix("http://")
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let busy = house
        .run(&["up", "fleet", "--state", "other", "--listen", &address])
        .expect(1);
    assert!(
        busy.err.contains(&address) && busy.err.contains("--listen"),
        "{}",
        busy.err
    );
}

#[test]
fn the_demo_proves_its_claims() {
    let house = House::new();
    let mut command = house.command(&["demo"]);
    let output = command.env("TMPDIR", house.path("")).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{out}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(out.matches("   yes  ").count(), 5, "{out}");
    assert!(out.contains("kill -9") && !out.contains("   NO"), "{out}");
    // It was where MAINSTAY_STATE says, and no state of somebody gets the demo's fleet.
    house.run(&["log", "verify"]).expect(0);
    let in_use = house.path("fleet");
    house.write("fleet/x", "");
    for again in [
        house.run(&["demo"]),
        house.run(&["demo", "--state", in_use.to_str().unwrap()]),
        house.run(&["--state", in_use.to_str().unwrap(), "demo"]),
    ] {
        let again = again.expect(2);
        assert!(again.err.contains("is not empty"), "{again:?}");
    }
}

#[test]
fn a_chat_is_one_session_and_logs_and_events_tell_what_happened() {
    let mut house = house();
    let chat = house
        .feed(&["chat", "ten", "--session", "talk"], "go\ngo\n")
        .expect(0);
    assert_eq!(chat.out.matches(&expected()).count(), 2, "{chat:?}");
    let session = house
        .run(&["session", "show", "talk", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(
        session["turns"].as_array().map(Vec::len),
        Some(4),
        "{session}"
    );
    assert!(
        house
            .run(&["session", "list"])
            .expect(0)
            .out
            .contains("talk")
    );
    house.feed(&["chat", "nobody"], "").expect(4);
    let logs = house.run(&["logs", "ten"]).expect(0).out;
    assert_eq!(logs.matches("seen go").count(), 2, "{logs}");
    assert_eq!(house.run(&["logs", "ten/0"]).expect(0).out, logs);
    assert_eq!(house.run(&["logs", "ten/ten-0"]).expect(0).out, logs);
    let events = house
        .run(&["events", "--tail", "5", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(events.as_array().map(Vec::len), Some(5));
    let shown = house
        .run(&["log", "show", "--from", "1", "--limit", "1"])
        .expect(0)
        .out;
    assert!(
        shown.contains("task.submitted") && shown.lines().count() == 1,
        "{shown}"
    );
    check_log(&mut house);
}

#[test]
fn a_client_elsewhere_needs_the_address_and_the_token() {
    let mut house = house();
    let url = house.link.split("/?").next().unwrap().to_owned();
    let token = house.run(&["token"]).expect(0).out.trim().to_owned();
    let run = |token: Option<&str>, arguments: &[&str]| {
        let mut command = house.command(arguments);
        command
            .env_remove("MAINSTAY_STATE")
            .env("MAINSTAY_URL", &url);
        command.envs(token.map(|token| ("MAINSTAY_TOKEN", token)));
        command.output().unwrap()
    };
    let done = run(Some(&token), &["run", "ten", "go"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), expected());
    let described = run(Some(&token), &["describe", "agent", "ten"]);
    assert_eq!(described.status.code(), Some(0), "{described:?}");
    let local = run(Some(&token), &["logs", "ten"]);
    assert_eq!(local.status.code(), Some(2), "{local:?}");
    assert!(String::from_utf8_lossy(&local.stderr).contains("on its own machine"));
    for wrong in [None, Some("mst_wrong")] {
        let refused = run(wrong, &["run", "ten", "go"]);
        assert_eq!(refused.status.code(), Some(5));
    }
    check_log(&mut house);
}

#[test]
fn a_secret_that_was_set_before_the_first_start_reaches_the_agent() {
    let mut house = House::new();
    house
        .feed(&["secret", "set", "desk/word"], "sesame")
        .expect(0);
    let manifest = "apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: opener}
spec:
  runtime: {exec: {command: [sh, -c, 'cat >/dev/null; echo $WORD']}}
  secretEnv: {WORD: {secretRef: {name: desk, key: word}}}
";
    let fleet = house.write("fleet.yaml", manifest);
    house.up(&[&fleet]);
    assert_eq!(house.run(&["run", "opener", "x"]).expect(0).out, "sesame\n");
    house
        .feed(&["secret", "set", "desk/word"], "another")
        .expect(0);
    assert!(
        house
            .run(&["doctor", "opener"])
            .expect(0)
            .out
            .contains("desk/word is set")
    );
    check_log(&mut house);
}

#[test]
fn an_interrupted_run_lets_go_of_a_task_that_goes_on() {
    let mut house = house();
    let (id, child) = begin(&house, 2);
    signal(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&id));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (printed["id"].as_str(), printed["state"].as_str()),
        (Some(id.as_str()), Some("working"))
    );
    wait_for("the answer", || {
        let task = house
            .run(&["task", "show", &id, "-o", "json"])
            .expect(0)
            .json();
        (task["output"].as_str() == Some(expected().as_str())).then_some(())
    });
    check_log(&mut house);
}

#[test]
fn doctor_tells_of_a_volume_that_holds_more_than_it_is_meant_to() {
    let mut house = House::new();
    let manifest = "\
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: filler}
spec:
  runtime: {exec: {command: [sh, -c, 'cat >/dev/null; head -c 2M /dev/zero >$MAINSTAY_VOLUME/big; echo done']}}
  volume: {size: 1Mi}
";
    let fleet = house.write("fleet.yaml", manifest);
    house.up(&[&fleet]);
    let doctor = || house.run(&["doctor", "filler"]).expect(0).out;
    assert!(doctor().contains("holds 0 MiB of 1 MiB"), "{}", doctor());
    house.run(&["run", "filler", "x"]).expect(0);
    let told = doctor();
    assert!(told.contains("holds 2 MiB, meant for 1 MiB"), "{told}");
    check_log(&mut house);
}
