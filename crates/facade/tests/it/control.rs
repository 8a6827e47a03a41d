//! The command line's socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::fixture::Served;

/// Status and body of one request over the socket.
fn call(served: &Served, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: mainstay\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head[9..12].parse().unwrap(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

#[test]
fn the_owner_needs_no_token_here() {
    let served = Served::start();
    assert_eq!(
        call(&served, "GET", "/control/token", &Value::Null),
        (200, json!({"token": served.token}))
    );
    let (status, task) = call(
        &served,
        "POST",
        "/api/v1/agents/echo/tasks",
        &json!({"input": "hello"}),
    );
    assert_eq!(status, 201);
    let (_, entries) = call(
        &served,
        "GET",
        "/api/v1/log/entries?limit=200",
        &Value::Null,
    );
    let author = format!("cli:uid={}", rustix::process::geteuid().as_raw());
    let submitted = entries["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| {
            entry["subject"]
                .as_str()
                .unwrap()
                .contains(task["id"].as_str().unwrap())
        })
        .unwrap();
    assert_eq!(submitted["author"], author);
}

#[test]
fn who_cancels_and_retries_stands_in_the_log() {
    let served = Served::start();
    let (_, task) = call(
        &served,
        "POST",
        "/api/v1/agents/echo/tasks",
        &json!({"input": "hang"}),
    );
    let id = task["id"].as_str().unwrap();
    for word in ["cancel", "retry"] {
        let path = format!("/api/v1/tasks/{id}/{word}");
        let (status, task) = call(&served, "POST", &path, &Value::Null);
        assert_eq!(status, 200, "{word}: {task}");
    }
    let path = "/api/v1/log/entries?limit=200";
    let (_, entries) = call(&served, "GET", path, &Value::Null);
    let author = format!("cli:uid={}", rustix::process::geteuid().as_raw());
    for kind in ["task.canceled", "task.retried"] {
        let entries = entries["items"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["kind"] == kind).unwrap();
        assert_eq!(entry["author"], author, "{kind}");
    }
}

#[test]
fn secrets_are_set_listed_by_name_and_removed() {
    let served = Served::start();
    assert_eq!(
        call(
            &served,
            "PUT",
            "/control/secrets/desk/token",
            &json!({"value": "hidden"})
        )
        .0,
        204
    );
    let (_, list) = call(&served, "GET", "/control/secrets", &Value::Null);
    assert_eq!(
        list,
        json!({"items": [{"name": "desk", "key": "token"}], "next": null})
    );
    assert_eq!(
        call(
            &served,
            "DELETE",
            "/control/secrets/desk/token",
            &Value::Null
        )
        .0,
        204
    );
    assert_eq!(
        call(&served, "GET", "/control/secrets", &Value::Null).1["items"],
        json!([])
    );
}

#[test]
fn objects_are_read_and_agents_stopped_and_started() {
    let served = Served::start();
    let (status, agent) = call(&served, "GET", "/control/objects/Agent/echo", &Value::Null);
    assert_eq!(
        (status, &agent["metadata"]["name"], &agent["kind"]),
        (200, &json!("echo"), &json!("Agent")),
        "{agent}"
    );
    assert_eq!(
        (
            &agent["spec"]["restart"]["maxAttempts"],
            &agent["status"]["runtime"]
        ),
        (&json!(1), &json!("exec")),
        "{agent}"
    );
    assert_eq!(
        call(&served, "GET", "/control/objects/Agent", &Value::Null).1["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        call(
            &served,
            "GET",
            "/control/objects/Agent/nobody",
            &Value::Null
        )
        .0,
        404
    );
    for verb in ["stop", "start", "restart"] {
        assert_eq!(
            call(
                &served,
                "POST",
                &format!("/control/{verb}"),
                &json!({"target": "echo"})
            )
            .0,
            204,
            "{verb}"
        );
        assert_eq!(
            call(
                &served,
                "POST",
                &format!("/control/{verb}"),
                &json!({"target": "nobody"})
            )
            .0,
            404,
            "{verb}"
        );
    }
}

#[test]
fn a_process_of_an_instance_is_refused_whoever_it_runs_as() {
    let served = Served::start();
    served.become_an_instance();
    for path in ["/control/token", "/api/v1/agents", "/healthz"] {
        let (status, problem) = call(&served, "GET", path, &Value::Null);
        assert_eq!(
            (status, problem["code"].as_str()),
            (403, Some("not_allowed")),
            "{path}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains("agent"),
            "{problem}"
        );
    }
}
