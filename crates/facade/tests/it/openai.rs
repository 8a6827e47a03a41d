//! OpenAI's routes, as their SDKs would call them.

use serde_json::{Value, json};

use crate::fixture::Served;

fn chat(model: &str, content: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": content}], "stream": stream, "temperature": 0})
}

#[test]
fn a_completion_is_a_task_in_a_fresh_session_that_can_be_continued() {
    let served = Served::start();
    let answer = served.post("/v1/chat/completions", &chat("echo", "hello", false));
    assert_eq!(
        answer.json()["choices"][0]["message"]["content"],
        "hello",
        "{}",
        answer.text()
    );
    let session = answer.header("mainstay-session").unwrap().to_owned();
    assert!(answer.header("mainstay-task").is_some());
    let more = json!({"model": "echo", "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "history"}]});
    let continued = served
        .request("POST", "/v1/chat/completions")
        .header("mainstay-session", &session)
        .json(&more)
        .send()
        .unwrap();
    let history = continued.json()["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        serde_json::from_str::<Value>(&history).unwrap(),
        json!([{"role": "user", "content": "hello"}, {"role": "agent", "content": "hello"}])
    );
    let whole = served.post("/v1/chat/completions", &more);
    assert_eq!(
        whole.json()["choices"][0]["message"]["content"],
        "[user]\nhello\n\n[assistant]\nhello\n\n[user]\nhistory"
    );
}

#[test]
fn a_stream_carries_text_as_it_comes() {
    let served = Served::start();
    let answer = served.post("/v1/chat/completions", &chat("talker", "say one two", true));
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/event-stream")
    );
    let text = answer.text();
    let deltas: Vec<_> = text
        .split("\n\n")
        .filter_map(|event| serde_json::from_str::<Value>(event.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| {
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(deltas, ["", "one ", "two"]);
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[test]
fn responses_answer_whole_and_streamed() {
    let served = Served::start();
    let whole = served
        .post("/v1/responses", &json!({"model": "echo", "input": "hello"}))
        .json();
    assert_eq!(
        (
            whole["status"].as_str(),
            whole["output"][0]["content"][0]["text"].as_str()
        ),
        (Some("completed"), Some("hello"))
    );
    let streamed = served
        .post(
            "/v1/responses",
            &json!({"model": "talker", "input": "say one two", "stream": true}),
        )
        .text();
    assert!(
        streamed.contains("\"delta\":\"one \"") && streamed.contains("event: response.completed"),
        "{streamed}"
    );
}

#[test]
fn errors_have_openais_shape() {
    let served = Served::start();
    let unknown = served.post("/v1/chat/completions", &chat("nobody", "x", false));
    assert_eq!(
        (unknown.status, unknown.json()["error"]["code"].as_str()),
        (404, Some("model_not_found"))
    );
    for stream in [false, true] {
        let failed = served.post("/v1/chat/completions", &chat("echo", "fail", stream));
        let error = failed.json()["error"].clone();
        assert_eq!(
            (failed.status, error["type"].as_str()),
            (500, Some("server_error")),
            "{error}"
        );
        assert!(
            error["message"].as_str().unwrap().contains("no way") && error["task"].is_string(),
            "{error}"
        );
        assert_eq!(failed.header("x-should-retry"), Some("false"));
    }
    let bad = served.post(
        "/v1/responses",
        &json!({"model": "echo", "input": "x", "tools": [{"type": "web_search"}]}),
    );
    assert_eq!(
        (bad.status, bad.json()["error"]["param"].as_str()),
        (400, Some("tools"))
    );
    let garbage = served.post("/v1/chat/completions", &json!({"model": "echo"}));
    assert_eq!(garbage.status, 400);
    assert!(
        garbage.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("messages")
    );
}

#[test]
fn models_are_the_agents() {
    let served = Served::start();
    let models = served.get("/v1/models").json();
    let names: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["echo", "talker"]);
    assert_eq!(served.get("/v1/models/echo").json()["object"], "model");
    assert_eq!(served.get("/v1/models/nobody").status, 404);
}
