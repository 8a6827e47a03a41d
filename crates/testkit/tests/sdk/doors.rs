//! The clients' door against strangers, and the state against a second keeper.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::http::Request;
use testkit::provider::loop_of;
use testkit::{Fleet, Provider, Up, cli, processes, until};

const SOCKETS: usize = 500;

fn start(provider: &Provider) -> Up {
    let fleet = Fleet::new().with("fleet.yaml", &manifest(provider));
    Up::start(fleet)
}

fn manifest(provider: &Provider) -> String {
    format!(
        r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec: {{type: openai, baseUrl: "{}"}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: helper}}
spec: {{models: [fake/fake-1], instructions: Be brief.}}
"#,
        provider.openai_url()
    )
}

#[test]
fn strangers_get_nothing_but_health() {
    let provider = Provider::start(loop_of(1, "none"));
    let up = start(&provider);
    let status = |request: Request| request.send().unwrap().status;
    let plain = |path: &str| Request::new("GET", up.port(), path);
    assert_eq!(status(plain("/healthz")), 200);
    assert_eq!(status(plain("/readyz")), 200);
    for path in [
        "/",
        "/metrics",
        "/api/v1/tasks",
        "/v1/models",
        "/api/v1/log/head",
    ] {
        assert_eq!(status(plain(path)), 401, "{path} without a token");
        let wrong = plain(path).header("authorization", "Bearer wrong");
        assert_eq!(status(wrong), 401, "{path} with a wrong token");
    }
    let foreign = up
        .request("GET", "/api/v1/tasks")
        .header("host", "attacker.example");
    assert!(
        matches!(status(foreign), 400..=499),
        "a foreign Host is refused"
    );
    let foreign = up
        .request("GET", "/api/v1/tasks")
        .header("origin", "http://attacker.example");
    assert!(
        matches!(status(foreign), 400..=499),
        "a foreign Origin is refused"
    );
    assert_eq!(status(up.request("GET", "/api/v1/tasks")), 200);
    let input = "x".repeat(33 * 1024 * 1024);
    let large = up.request("POST", "/api/v1/agents/helper/tasks");
    let answer = large.json(&serde_json::json!({"input": input})).send();
    // A server may close while it is still being sent to; it must not take the task.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 413));
    assert_eq!(
        up.get("/api/v1/tasks")["items"].as_array().map(Vec::len),
        Some(0)
    );
}

#[test]
fn five_hundred_websockets_are_open_while_a_task_runs() {
    let provider = Provider::start(loop_of(1, "none"));
    let up = start(&provider);
    let token = up.token();
    let sockets: Vec<_> = (0..SOCKETS)
        .map(|number| socket(&up, &token, number))
        .collect();
    let id = up.submit("helper", "hello");
    let shown = up.wait_state(&id, &["completed", "failed"], Duration::from_secs(30));
    assert_eq!(shown["output"], "done: hello", "{shown}");
    assert_eq!(sockets.len(), SOCKETS);
}

fn socket(up: &Up, token: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", up.port())).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let head = format!(
        "GET /ws/helper?session=s{number} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\
         authorization: Bearer {token}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        up.port()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut status = String::new();
    BufReader::with_capacity(1, &stream)
        .read_line(&mut status)
        .unwrap();
    assert!(status.contains(" 101 "), "socket {number}: {status}");
    stream
}

#[test]
fn a_second_keeper_on_one_state_is_refused_and_harms_nothing() {
    let provider = Provider::start(loop_of(1, "none"));
    let up = start(&provider);
    let mut second = cli::command(&up.fleet().state());
    second.arg("up").arg(up.fleet().manifests());
    second.args([
        "--listen",
        &format!("127.0.0.1:{}", testkit::up::free_port()),
    ]);
    let output = cli::finish(second, "", Duration::from_secs(30));
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.starts_with("error: "), "{output:?}");
    assert!(up.is_ready(), "the first goes on");
}

#[test]
fn a_busy_port_is_named_and_nothing_is_left_running() {
    let provider = Provider::start(loop_of(1, "none"));
    let fleet = Fleet::new().with("fleet.yaml", &manifest(&provider));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = cli::command(&fleet.state());
    command
        .arg("up")
        .arg(fleet.manifests())
        .args(["--listen", &address]);
    let output = cli::finish(command, "", Duration::from_secs(30));
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains(&address), "{output:?}");
    assert_eq!(processes::agents(fleet.mark()), Vec::new());
}

#[test]
fn a_broken_save_keeps_what_runs_until_it_is_mended() {
    let provider = Provider::start(loop_of(1, "none"));
    let up = start(&provider);
    let good = manifest(&provider);
    up.fleet()
        .write("fleet.yaml", &good.replace("instructions", "instructoins"));
    until(
        "the mistake to be reported",
        Duration::from_secs(20),
        || up.log().contains("instructoins").then_some(()),
    );
    let id = up.submit("helper", "still there");
    let shown = up.wait_state(&id, &["completed", "failed"], Duration::from_secs(30));
    assert_eq!(shown["state"], "completed", "{shown}");
    up.fleet()
        .write("fleet.yaml", &good.replace("name: helper", "name: renamed"));
    until(
        "the new agent to take tasks",
        Duration::from_secs(20),
        || up.try_get("/api/v1/agents/renamed"),
    );
}
