//! The API for clients, route by route.

use std::io::BufRead as _;

use serde_json::{Value, json};

use crate::fixture::Served;

/// The events of a stream that ends, as (name, id, data).
fn events(served: &Served, path: &str, last: Option<&str>) -> Vec<(String, String, Value)> {
    let mut request = served.request("GET", path);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let text = request.send().unwrap().text();
    let field = |event: &str, name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name).map(str::to_owned))
            .unwrap_or_default()
    };
    let events = text.split("\n\n").filter(|event| event.contains("data: "));
    events
        .map(|event| {
            (
                field(event, "event: "),
                field(event, "id: "),
                serde_json::from_str(&field(event, "data: ")).unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_task_is_submitted_waited_for_and_read_back() {
    let served = Served::start();
    let request = served
        .request("POST", "/api/v1/agents/echo/tasks")
        .header("prefer", "wait=20");
    let answer = request
        .json(&json!({"input": "hello", "session": "s-1"}))
        .send()
        .unwrap();
    let task = answer.json();
    assert_eq!(
        (
            answer.status,
            task["state"].as_str(),
            task["output"].as_str()
        ),
        (201, Some("completed"), Some("hello")),
        "{task}"
    );
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    let location = answer.header("location").unwrap().to_owned();
    assert_eq!(
        location,
        format!("/api/v1/tasks/{}", task["id"].as_str().unwrap())
    );
    assert_eq!(served.get(&location).json(), task);
    let session = served.get("/api/v1/sessions/s-1").json();
    assert_eq!(
        session["turns"],
        json!([{"role": "user", "content": "hello"}, {"role": "agent", "content": "hello"}])
    );
    assert_eq!(
        served.get("/api/v1/sessions").json()["items"][0]["id"],
        "s-1"
    );
}

#[test]
fn the_same_key_is_the_same_task_and_another_request_with_it_a_conflict() {
    let served = Served::start();
    let submit = |input: &str| {
        served
            .request("POST", "/api/v1/agents/echo/tasks")
            .header("idempotency-key", "k-1")
            .json(&json!({"input": input}))
            .send()
            .unwrap()
    };
    let (first, second) = (submit("hello").json(), submit("hello").json());
    assert_eq!(first["id"], second["id"]);
    assert_eq!(submit("other").status, 409);
}

#[test]
fn a_session_leaves_one_hub_as_a_file_and_arrives_at_another() {
    let (from, to) = (Served::start(), Served::start());
    let submitted = from
        .request("POST", "/api/v1/agents/echo/tasks")
        .header("prefer", "wait=20")
        .json(&json!({"input": "hello", "session": "s-1"}))
        .send()
        .unwrap();
    let missing = from.post("/api/v1/sessions/nothing/export", &json!({}));
    assert_eq!(missing.status, 404);
    let file = from
        .request("POST", "/api/v1/sessions/s-1/export")
        .send()
        .unwrap();
    assert_eq!(
        (file.status, file.header("content-type")),
        (200, Some("application/x-ndjson"))
    );
    let import = |file: &[u8]| {
        let request = to.request("POST", "/api/v1/sessions");
        request.body(file.to_vec()).send().unwrap()
    };
    let imported = import(&file.body).json();
    assert_eq!(
        imported["tasks"][0]["id"],
        submitted.json()["id"],
        "{imported}"
    );
    assert_eq!(imported["tasks"][0]["change"], "new");
    assert_eq!(
        to.get("/api/v1/sessions/s-1").json(),
        from.get("/api/v1/sessions/s-1").json()
    );
    let mut changed = file.body.clone();
    let last = changed.len() - 20;
    changed[last] ^= 1;
    let refused = import(&changed);
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (400, json!("invalid"))
    );
}

#[test]
fn bad_requests_are_problem_documents_that_name_the_fault() {
    let served = Served::start();
    let tasks = "/api/v1/agents/echo/tasks";
    for (path, body, status, word) in [
        (tasks, json!({"inptu": "x"}), 400, "inptu"),
        (tasks, json!({"input": 1}), 400, "input"),
        (
            tasks,
            json!({"input": "x", "session": "a b"}),
            400,
            "session",
        ),
        (
            tasks,
            json!({"input": "x", "deadline": "soon"}),
            400,
            "deadline",
        ),
        (
            "/api/v1/agents/nobody/tasks",
            json!({"input": "x"}),
            404,
            "nobody",
        ),
        ("/api/v1/tasks/nothing/cancel", json!({}), 404, "nothing"),
    ] {
        let answer = served.post(path, &body);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, Some("application/problem+json")),
            "{path} {body}"
        );
        assert!(
            answer.json()["detail"].as_str().unwrap().contains(word),
            "{}",
            answer.text()
        );
        assert_eq!(answer.json()["status"], status);
    }
    for (path, status) in [
        ("/api/v1/tasks?state=parked", 400),
        ("/api/v1/tasks?limit=0", 400),
        ("/api/v1/tasks?wrong=1", 400),
        ("/api/v1/nothing", 404),
        ("/api/v1/sessions/nothing", 404),
    ] {
        assert_eq!(served.get(path).status, status, "{path}");
    }
    assert_eq!(served.post("/api/v1/agents", &json!({})).status, 405);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let served = Served::start();
    let submit = || served.post("/api/v1/agents/echo/tasks", &json!({"input": "hang"}));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let answer = submit();
        statuses.push(answer.status);
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some());
            assert_eq!(answer.json()["code"], "queue_full");
            return;
        }
    }
    panic!("never full: {statuses:?}");
}

#[test]
fn lists_have_items_and_next_and_go_on_at_the_cursor() {
    let served = Served::start();
    for n in 0..3 {
        served.run("echo", &format!("n{n}"));
    }
    let first = served
        .get("/api/v1/tasks?agent=echo&state=completed&limit=2")
        .json();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    let rest = served
        .get(&format!(
            "/api/v1/tasks?agent=echo&state=completed&limit=2&cursor={}",
            first["next"].as_str().unwrap()
        ))
        .json();
    assert_eq!(
        (rest["items"].as_array().unwrap().len(), &rest["next"]),
        (1, &Value::Null)
    );
    assert_eq!(rest["items"][0]["input"], "n0");
}

#[test]
fn agents_instances_and_the_log_are_shown() {
    let served = Served::start();
    served.run("talker", "say hello there");
    assert_eq!(
        served.get("/api/v1/agents").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(served.get("/api/v1/agents/echo").json()["runtime"], "exec");
    let instances = served.get("/api/v1/instances").json();
    assert_eq!(instances["items"].as_array().unwrap().len(), 2);
    assert!(instances["items"][0]["isolation"].is_string());
    let head = served.get("/api/v1/log/head").json();
    assert!(head["size"].as_u64().unwrap() > 3 && head["text"].as_str().unwrap().contains('\n'));
    let page = served.get("/api/v1/log/entries?from=1&limit=2").json();
    assert_eq!(
        (
            page["items"][0]["seq"].as_u64(),
            page["items"].as_array().unwrap().len()
        ),
        (Some(1), 2)
    );
    assert!(!page["next"].is_null());
}

#[test]
fn the_openapi_document_is_served() {
    let served = Served::start();
    let document = served.get("/api/v1/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/v1/tasks/{id}/resume"]["post"].is_object());
}

#[test]
fn a_tasks_events_can_be_followed_and_resumed() {
    let served = Served::start();
    let task = served.run("talker", "say one two");
    let path = format!("/api/v1/tasks/{}/events", task["id"].as_str().unwrap());
    let all = events(&served, &path, None);
    let names: Vec<_> = all.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ["message", "chunk", "chunk", "done"], "{all:?}");
    assert!(
        all.iter()
            .all(|(name, id, data)| data["type"] == *name && data["id"] == *id)
    );
    assert_eq!(all[3].2["task"]["output"], "one two");
    let rest = events(&served, &path, Some(&all[1].1));
    assert_eq!(rest, all[2..]);
    let over = served
        .request("GET", &path)
        .header("last-event-id", &all[3].1)
        .send()
        .unwrap();
    assert_eq!(over.status, 204);
    assert_eq!(
        served
            .request("GET", &path)
            .header("last-event-id", "x")
            .send()
            .unwrap()
            .status,
        400
    );
    assert_eq!(
        served
            .get(&format!("{}/steps", path.trim_end_matches("/events")))
            .json()["items"][0]["kind"],
        "model"
    );
}

#[test]
fn the_logs_feed_goes_on_after_the_last_seen_entry() {
    let served = Served::start();
    served.run("echo", "hello");
    let size = served.get("/api/v1/log/head").json()["size"]
        .as_u64()
        .unwrap();
    let request = served
        .request("GET", "/api/v1/events")
        .header("last-event-id", &(size - 2).to_string());
    let (status, mut reader) = request.stream().unwrap();
    assert_eq!(status, 200);
    let mut line = String::new();
    while !line.starts_with("id: ") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the feed ended");
    }
    assert_eq!(line.trim(), format!("id: {}", size - 1));
}

#[test]
fn a_task_is_canceled_and_not_twice() {
    let served = Served::start();
    let id = served
        .post("/api/v1/agents/echo/tasks", &json!({"input": "hang"}))
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let canceled = served.post(&format!("/api/v1/tasks/{id}/cancel"), &json!({}));
    assert_eq!(
        (canceled.status, canceled.json()["state"].as_str()),
        (200, Some("canceled")),
        "{}",
        canceled.text()
    );
    let resume = served.post(
        &format!("/api/v1/tasks/{id}/resume"),
        &json!({"step": 1, "as": "done"}),
    );
    assert!(matches!(resume.status, 404 | 409), "{}", resume.text());
    assert_eq!(
        served
            .post(
                &format!("/api/v1/tasks/{id}/resume"),
                &json!({"step": 1, "as": "skip"})
            )
            .status,
        400
    );
}
