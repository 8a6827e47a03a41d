//! The owner's hand: on one instance of several, and by address and token from elsewhere.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::house::{House, wait_for};

const FLEET: &str = "\
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: script}
spec: {type: script, script: {file: t.yaml}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec: {models: [script/m], replicas: 2}
";
const EXTRA: &str = "\
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: extra}
spec: {models: [script/m]}
";
const TRANSCRIPT: &str = "rules: [{answer: {text: \"yes\"}}]\n";

fn started() -> House {
    let mut house = House::new();
    house.write("fleet/t.yaml", TRANSCRIPT);
    let fleet = house.write("fleet/fleet.yaml", FLEET);
    house.up(&[&fleet]);
    house
}

fn instances(house: &House) -> Vec<String> {
    let list = house.run(&["get", "instances", "-o", "json"]).json();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_instance_is_stopped_alone_and_stays_so_until_it_or_its_agent_is_started() {
    let mut house = started();
    let are = |house: &House, wanted: &[&str]| {
        wait_for(&format!("{wanted:?}"), || {
            (instances(house) == wanted).then_some(())
        });
    };
    are(&house, &["helper-0", "helper-1"]);
    house.run(&["stop", "helper/0"]).expect(0);
    are(&house, &["helper-1"]);
    house.run(&["run", "helper", "still?"]).expect(0);
    let fleet = house.path("fleet/fleet.yaml");
    house.stop();
    house.up(&[&fleet]);
    are(&house, &["helper-1"]);
    let stopped = house.run(&["restart", "helper/0"]).expect(1);
    assert!(
        stopped.err.contains("mainstay start helper/helper-0"),
        "{stopped:?}"
    );
    house.run(&["start", "helper/helper-0"]).expect(0);
    are(&house, &["helper-0", "helper-1"]);
    house.run(&["stop", "helper/1"]).expect(0);
    house.run(&["start", "helper"]).expect(0);
    are(&house, &["helper-0", "helper-1"]);
    let missing = house.run(&["stop", "helper/9"]).expect(4);
    assert!(
        missing
            .err
            .contains("agent helper has no instance helper-9"),
        "{missing:?}"
    );
    house.run(&["log", "verify"]).expect(0);
}

#[test]
fn the_owners_token_does_from_elsewhere_what_the_socket_does() {
    let mut house = started();
    let token = house.run(&["token"]).expect(0).out.trim().to_owned();
    let extra = house.write("extra.yaml", EXTRA).display().to_string();
    let url = house.link.split("/?").next().unwrap().to_owned();
    house.set("MAINSTAY_URL", &url);
    let nobody = house.run(&["get", "agents"]).expect(5);
    assert!(nobody.err.contains("asks for a token"), "{nobody:?}");
    house.set("MAINSTAY_TOKEN", "wrong");
    let wrong = house.run(&["apply", &extra]).expect(5);
    assert!(wrong.err.contains("does not know this token"), "{wrong:?}");
    house.set("MAINSTAY_TOKEN", &token);
    assert_eq!(
        house.run(&["diff", &extra]).expect(0).out,
        "+ Agent extra\n"
    );
    house.run(&["apply", &extra]).expect(0);
    house.run(&["run", "extra", "there?"]).expect(0);
    house.run(&["stop", "extra"]).expect(0);
    house.run(&["start", "extra"]).expect(0);
    house.feed(&["secret", "set", "a/b"], "value").expect(0);
    assert!(
        house
            .run(&["secret", "list"])
            .expect(0)
            .out
            .contains("a     b")
    );
    house.run(&["delete", &extra]).expect(0);
    house.run(&["describe", "agent", "extra"]).expect(4);
}

/// Status line and body of one request without a token.
fn fetch(address: &str, path: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn metrics_have_a_port_of_their_own_that_asks_for_no_token_and_shows_nothing_else() {
    let mut house = House::new();
    house.write("fleet/t.yaml", TRANSCRIPT);
    let fleet = house.write("fleet/fleet.yaml", FLEET);
    house.up_with(&["--metrics", "127.0.0.1:0"], &[&fleet]);
    house.run(&["run", "helper", "hello"]).expect(0);
    let said = wait_for("the address", || {
        let said = house.said();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("metrics: http://"))?;
        Some(line.trim_end_matches("/metrics").to_owned())
    });
    let (status, metrics) = fetch(&said, "/metrics", &said);
    assert!(status.contains(" 200 "), "{status}");
    assert!(metrics.contains("mainstay_tasks_total{agent=\"helper\""));
    for path in ["/", "/api/v1/tasks", "/control/token", "/healthz"] {
        let (status, body) = fetch(&said, path, &said);
        assert!(status.contains(" 404 "), "{path}: {status}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["code"], "not_found");
    }
    let (status, _) = fetch(&said, "/metrics", "evil.example");
    assert!(status.contains(" 421 "), "{status}");
}

#[test]
fn a_hub_answers_to_the_names_it_is_given_and_to_no_other() {
    let mut house = House::new();
    house.write("fleet/t.yaml", TRANSCRIPT);
    let fleet = house.write("fleet/fleet.yaml", FLEET);
    let names = ["--name", "agents.example", "--name", "box:9000"];
    house.up_with(&names, &[&fleet]);
    let address = house.link.split("/?").next().unwrap();
    let address = address.trim_start_matches("http://");
    for (host, expect) in [
        ("agents.example", " 200 "),
        ("Agents.example:7080", " 200 "),
        ("box:9000", " 200 "),
        ("box:9001", " 421 "),
        ("evil.example", " 421 "),
    ] {
        let (status, _) = fetch(address, "/healthz", host);
        assert!(status.contains(expect), "{host}: {status}");
    }
    let wrong = house.run(&["up", "--name", "https://a"]).expect(2);
    assert!(wrong.err.contains("host name"), "{wrong:?}");
}

#[test]
fn the_log_of_a_newer_format_is_not_judged() {
    let mut house = started();
    house.stop();
    house.run(&["log", "verify"]).expect(0);
    house.write("state/VERSION", "99\n");
    for command in [
        &["log", "verify"][..],
        &["log", "rebuild"],
        &["secret", "list"],
    ] {
        let refused = house.run(command).expect(1);
        assert!(refused.err.contains("format 99"), "{refused:?}");
    }
}
