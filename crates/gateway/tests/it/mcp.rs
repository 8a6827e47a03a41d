//! `/mcp` and the step URL as clients of every revision use them.

use serde_json::{Value, json};

use crate::home::{Home, add_tool, fleet};

async fn home(state: &std::path::Path) -> (Home, String, String, String) {
    let mut fleet = fleet();
    for name in ["b", "a"] {
        let kind = api::fleet::ToolKind::Http {
            method: "GET".into(),
            url: "http://127.0.0.1:9/".into(),
            body: None,
            credential: None,
            read_back: None,
        };
        add_tool(&mut fleet, name, name, kind, |_| {});
    }
    let mut home = Home::start(state, &fleet).await;
    let (task, attempts) = home.work("x").await;
    let (first, second) = (attempts[0].token.clone(), attempts[1].token.clone());
    (home, task, first, second)
}

#[tokio::test]
async fn a_client_with_a_handshake_gets_its_revision_and_a_session_that_any_hub_knows() {
    let state = tempfile::tempdir().unwrap();
    let (home, _, token, _) = home(state.path()).await;
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let response = home.post(&token, "/mcp", &message).await;
    let session = response.headers()["mcp-session-id"].clone();
    let opened: Value = response.json().await.unwrap();
    assert_eq!(opened["result"]["protocolVersion"], "2025-06-18");
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(home.post(&token, "/mcp", &initialized).await.status(), 202);
    let list = json!({"jsonrpc": "2.0", "id": "l", "method": "tools/list"});
    let request = home
        .request(&token, "/mcp")
        .header("mcp-session-id", session);
    let request = request.header("accept", "application/json, text/event-stream");
    let listed: Value = request
        .body(list.to_string())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let names: Vec<_> = listed["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| &tool["name"])
        .collect();
    assert_eq!(names, ["a", "b"], "sorted, whatever the manifest's order");
    assert_eq!(home.get(&token, "/mcp").await.status(), 405);
    home.end().await;
}

#[tokio::test]
async fn a_stateless_client_discovers_and_lists() {
    let state = tempfile::tempdir().unwrap();
    let (home, _, token, _) = home(state.path()).await;
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let ask = async |method: &str| -> Value {
        let message =
            json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}});
        home.post(&token, "/mcp", &message)
            .await
            .json()
            .await
            .unwrap()
    };
    let discovered = ask("server/discover").await;
    assert_eq!(discovered["result"]["supportedVersions"][0], "2026-07-28");
    let listed = ask("tools/list").await;
    assert_eq!(listed["result"]["resultType"], "complete");
    assert_eq!(ask("prompts/list").await["error"]["code"], -32601);
    home.end().await;
}

#[tokio::test]
async fn a_client_that_reads_events_only_gets_one() {
    let state = tempfile::tempdir().unwrap();
    let (home, _, token, _) = home(state.path()).await;
    let ping = json!({"jsonrpc": "2.0", "id": 5, "method": "ping"});
    let request = home
        .request(&token, "/mcp")
        .header("accept", "text/event-stream");
    let response = request.body(ping.to_string()).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    assert_eq!(
        text,
        "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{}}\n\n"
    );
    assert_eq!(home.post("wrong", "/mcp", &ping).await.status(), 401);
    home.end().await;
}

#[tokio::test]
async fn a_tool_inside_the_agent_runs_once_whoever_dies() {
    let state = tempfile::tempdir().unwrap();
    let (mut home, task, first, second) = home(state.path()).await;
    let ask = json!({"arguments": {"path": "/x"}});
    let answer: Value = home
        .post(&first, "/step/write", &ask)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(answer["run"], true);
    let report = json!({"step": answer["step"], "result": {"bytes": 3}});
    assert_eq!(home.post(&first, "/step", &report).await.status(), 200);
    home.killed(&task, 1).await;
    let again: Value = home
        .post(&second, "/step/write", &ask)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        again,
        json!({"step": answer["step"], "run": false, "result": {"bytes": 3}})
    );
    let wrong = home
        .post(&second, "/step", &json!({"step": "none", "result": 1}))
        .await;
    assert_eq!(wrong.status(), 404);
    // A report that comes where the question went is a report, and what is neither is refused.
    let ask = json!({"arguments": {"path": "/y"}});
    let answer = home.post(&second, "/step/write", &ask).await;
    let mut report: Value = answer.json().await.unwrap();
    report.as_object_mut().unwrap().remove("run");
    report["result"] = json!({"bytes": 4});
    let reported = home.post(&second, "/step/write", &report).await;
    let reported: Value = reported.json().await.unwrap();
    assert_eq!(reported, json!({"step": report["step"]}));
    let odd = json!({"argumnts": {"path": "/y"}});
    let odd = home.post(&second, "/step/write", &odd).await;
    assert_eq!(odd.status(), 400);
    home.end().await;
}
