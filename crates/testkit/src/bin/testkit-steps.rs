//! A small compiled agent: asks the model, gives back what each tool call would say, and asks
//! again until it gets a text. For measuring how soon a killed task goes on, without the time that
//! an interpreter takes to start. Given a file it answers with what is in it, and asks nobody.

use std::io::Read as _;

use serde_json::{Value, json};
use testkit::http::Request;

fn main() {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .expect("standard input is the task");
    if let Some(path) = std::env::args_os().nth(1) {
        print!("{}", std::fs::read_to_string(path).expect("a file"));
        return;
    }
    let task: Value = serde_json::from_str(&text).expect("the task is JSON");
    let base = std::env::var("OPENAI_BASE_URL").expect("the gateway's address");
    let port = base
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port");
    let bearer = format!(
        "Bearer {}",
        std::env::var("MAINSTAY_TOKEN").unwrap_or_default()
    );
    let mut messages = vec![json!({"role": "user", "content": task["input"]})];
    loop {
        let body = json!({"model": "fake-1", "messages": messages, "tools": tools()});
        let request = Request::new("POST", port, "/v1/chat/completions");
        let answer = request.header("authorization", &bearer).json(&body).send();
        let answer = answer.expect("the gateway answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let message = answer.json()["choices"][0]["message"].clone();
        let calls = message["tool_calls"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        messages.push(message.clone());
        if calls.is_empty() {
            print!("{}", message["content"].as_str().unwrap_or_default());
            return;
        }
        for call in calls {
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "noted"}));
        }
    }
}

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {}});
    json!([{"type": "function", "function": {"name": "note", "description": "Note.", "parameters": parameters}}])
}
