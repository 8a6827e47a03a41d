//! Tools: what is sent, what comes back, and what a call of unknown outcome leads to.

use api::fleet::{Effect, Fleet, KeyPlace, ReadBack, ToolKind};
use contract::shim::ToShim;
use hub::task::{Resume, TaskFilter};
use mainstay_core::task::ResumeAs;
use serde_json::{Value, json};
use testkit::effects::Behaviour;
use testkit::{EffectServer, McpServer, mcp_server};

use crate::home::{Home, WAIT, add_tool, fleet, until};

fn http(method: &str, url: String, body: Option<Value>) -> ToolKind {
    ToolKind::Http {
        method: method.into(),
        url,
        body,
        credential: None,
        read_back: None,
    }
}

fn text(message: &Value) -> (String, bool) {
    let result = &message["result"];
    (
        result["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        result["isError"] == true,
    )
}

fn with_tools(server: &EffectServer) -> Fleet {
    let mut fleet = fleet();
    let weather = http(
        "GET",
        format!("{}/weather?city={{city}}", server.url()),
        None,
    );
    add_tool(&mut fleet, "weather", "weather", weather, |tool| {
        tool.effect = Effect::Pure;
        tool.input_schema = Some(
            json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
        );
    });
    let refund = http(
        "POST",
        format!("{}/effects", server.url()),
        Some(json!({"order": "{order}"})),
    );
    add_tool(&mut fleet, "refund", "refund", refund, |tool| {
        tool.effect = Effect::Keyed;
        tool.key = Some(KeyPlace::Header("Idempotency-Key".into()));
        tool.timeout_ms = 500;
    });
    let send = http("POST", format!("{}/effects", server.url()), None);
    add_tool(&mut fleet, "send", "send", send, |tool| {
        tool.timeout_ms = 500
    });
    let order = ToolKind::Http {
        method: "POST".into(),
        url: format!("{}/effects", server.url()),
        body: Some(json!({"ref": "{stepId}", "item": "{item}"})),
        credential: None,
        read_back: Some(ReadBack {
            method: "GET".into(),
            url: format!("{}/effects?ref={{stepId}}", server.url()),
            found: "size(body.items) > 0".into(),
        }),
    };
    add_tool(&mut fleet, "order", "order", order, |tool| {
        tool.effect = Effect::Queryable;
        tool.timeout_ms = 500;
    });
    fleet
}

#[tokio::test]
async fn a_tool_at_the_nodes_own_address_is_refused_and_its_agent_told_so() {
    let state = tempfile::tempdir().unwrap();
    let mut fleet = fleet();
    let stolen = http("GET", "http://169.254.169.254/latest".into(), None);
    add_tool(&mut fleet, "stolen", "stolen", stolen, |_| {});
    let server = ToolKind::McpHttp {
        url: "http://[fd00:ec2::254]/mcp".into(),
        credential: None,
    };
    add_tool(&mut fleet, "server", "server", server, |_| {});
    let mut home = Home::start(state.path(), &fleet).await;
    let (_, attempts) = home.work("x").await;
    for tool in ["stolen", "server"] {
        let answer = home.call_tool(&attempts[0].token, tool, json!({})).await;
        assert!(
            answer.to_string().contains("a cloud's metadata"),
            "{answer}"
        );
    }
    home.end().await;
}

#[tokio::test]
async fn an_http_tool_is_called_once_and_its_result_is_replayed() {
    let server = EffectServer::start();
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_tools(&server)).await;
    let (task, attempts) = home.work("x").await;
    let answer = home
        .call_tool(
            &attempts[0].token,
            "weather",
            json!({"city": "Zürich & co"}),
        )
        .await;
    assert_eq!(text(&answer).0, r#"{"city":"Zürich & co","sky":"clear"}"#);
    home.call_tool(&attempts[0].token, "refund", json!({"order": 7}))
        .await;
    home.killed(&task, 1).await;
    let again = home
        .call_tool(
            &attempts[1].token,
            "weather",
            json!({"city": "Zürich & co"}),
        )
        .await;
    assert_eq!(text(&again), text(&answer));
    home.call_tool(&attempts[1].token, "refund", json!({"order": 7}))
        .await;
    assert_eq!(server.requests().len(), 2);
    let effect = &server.effects()[0];
    assert_eq!(effect.body, json!({"order": 7}));
    let steps = home.hub.task_steps(&task).await.unwrap();
    assert_eq!(effect.key.as_deref(), Some(steps.items[1].id.as_str()));
    let view = home.done(&task, 2).await;
    assert_eq!((view.steps, view.replayed, view.repeated), (2, 2, 0));
    home.end().await;
}

#[tokio::test]
async fn what_a_model_gets_wrong_is_the_tools_error_and_no_step() {
    let server = EffectServer::start();
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_tools(&server)).await;
    let (task, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let (message, is_error) = text(&home.call_tool(token, "weather", json!({"city": 5})).await);
    assert!(is_error && message.contains("/city"), "{message}");
    let unknown = home.call_tool(token, "nothing", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32602);
    assert_eq!(home.hub.task_steps(&task).await.unwrap().items.len(), 0);
    server.set_behaviour(Behaviour::Refuse(422));
    let (message, is_error) = text(&home.call_tool(token, "send", json!({"a": 1})).await);
    assert!(
        is_error && message.contains("422") && message.contains("refused"),
        "{message}"
    );
    assert_eq!(home.done(&task, 1).await.steps, 1);
    home.end().await;
}

#[tokio::test]
async fn a_keyed_call_that_is_not_answered_is_repeated_with_its_key() {
    let server = EffectServer::start();
    server.set_behaviour(Behaviour::NeverAnswer);
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_tools(&server)).await;
    let (_, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let call = home.call_tool(token, "refund", json!({"order": 7}));
    let helped = async {
        until("the call is repeated", async || server.requests().len() > 1).await;
        server.set_behaviour(Behaviour::Answer);
    };
    let (answer, ()) = tokio::join!(call, helped);
    assert!(!text(&answer).1, "{answer}");
    assert_eq!(server.effects().len(), 1, "one key, one effect");
    home.end().await;
}

#[tokio::test]
async fn a_queryable_call_that_took_effect_is_found_and_one_that_did_not_is_sent() {
    let server = EffectServer::start();
    server.set_behaviour(Behaviour::NeverAnswer);
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_tools(&server)).await;
    let (_, attempts) = home.work("x").await;
    let answer = home
        .call_tool(&attempts[0].token, "order", json!({"item": "tea"}))
        .await;
    let (found, is_error) = text(&answer);
    assert!(!is_error && found.contains("tea"), "{answer}");
    assert_eq!((server.effects().len(), server.requests().len()), (1, 1));
    home.end().await;
}

#[tokio::test]
async fn an_opaque_call_of_unknown_outcome_waits_for_a_person() {
    let server = EffectServer::start();
    server.set_behaviour(Behaviour::NeverAnswer);
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_tools(&server)).await;
    let (task, attempts) = home.work("x").await;
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "send", "arguments": {"a": 1}}});
    let request = home
        .request(&attempts[0].token, "/mcp")
        .body(message.to_string());
    let broken = match request.send().await {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(broken, "the agent is told nothing that it could act on");
    let view = home.hub.task_wait(&task, WAIT).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.asked_step),
        ("input-required", Some(1))
    );
    let resume = Resume {
        step: 1,
        how: ResumeAs::Done,
        result: Some(json!({"sent": true})),
        author: "owner".into(),
    };
    home.hub.task_resume(&task, resume).await.unwrap();
    // The first attempt is also given again, when the hub hears what the shim runs.
    let second = |message: &ToShim| matches!(message, ToShim::Assign { attempts, .. } if attempts[0].number == 2);
    let ToShim::Assign { attempts, .. } = home.shim.until(second).await else {
        unreachable!("until looked for it")
    };
    let answer = home
        .call_tool(&attempts[0].token, "send", json!({"a": 1}))
        .await;
    assert_eq!(text(&answer).0, r#"{"sent":true}"#, "{answer}");
    assert_eq!(server.requests().len(), 1);
    home.end().await;
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_said_so_and_may_be_tried_again() {
    let server = EffectServer::start();
    let state = tempfile::tempdir().unwrap();
    let mut fleet = with_tools(&server);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", nobody.local_addr().unwrap());
    drop(nobody);
    add_tool(&mut fleet, "gone", "gone", http("POST", url, None), |_| {});
    let mut home = Home::start(state.path(), &fleet).await;
    let (task, attempts) = home.work("x").await;
    let (message, is_error) = text(&home.call_tool(&attempts[0].token, "gone", json!({})).await);
    assert!(is_error && message.contains("reached"), "{message}");
    let steps = home.hub.task_steps(&task).await.unwrap();
    assert_eq!(
        (steps.items[0].state, steps.items[0].repeated),
        ("failed", 0)
    );
    home.end().await;
}

fn with_server(server: &McpServer) -> Fleet {
    let mut fleet = fleet();
    let kind = ToolKind::McpHttp {
        url: server.url(),
        credential: None,
    };
    add_tool(&mut fleet, "notes", "notes__", kind, |tool| {
        tool.input_schema = None;
        tool.effects = [("record".to_owned(), Effect::Pure)].into();
        tool.timeout_ms = 500;
    });
    fleet
}

#[tokio::test]
async fn an_mcp_servers_tools_are_listed_under_its_prefix_and_called_by_its_names() {
    let server = McpServer::start();
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_server(&server)).await;
    let (task, attempts) = home.work("x").await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let listed: Value = home
        .post(&attempts[0].token, "/mcp", &list)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(listed["result"]["tools"][0]["name"], "notes__record");
    let arguments = json!({"conversation": "c", "n": 4});
    for attempt in [0, 1] {
        let answer = home
            .call_tool(&attempts[attempt].token, "notes__record", arguments.clone())
            .await;
        assert_eq!(text(&answer), (mcp_server::result_of(4), false));
        if attempt == 0 {
            home.killed(&task, 1).await;
        }
    }
    assert_eq!(server.calls(), [arguments]);
    home.end().await;
}

#[tokio::test]
async fn a_server_that_misbehaves_costs_its_own_call_only() {
    let server = McpServer::start();
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &with_server(&server)).await;
    let (_, attempts) = home.work("x").await;
    let token = &attempts[0].token;
    let call = async |n: u64| {
        let answer = home
            .call_tool(token, "notes__record", json!({"conversation": "c", "n": n}))
            .await;
        text(&answer)
    };
    let behaviours = [
        (mcp_server::Behaviour::Flood(1 << 30), "larger"),
        (mcp_server::Behaviour::NeverAnswer, "within"),
        (mcp_server::Behaviour::HangUp, "did not answer"),
        (mcp_server::Behaviour::ToolError, "recorded 4"),
    ];
    for (n, (behaviour, said)) in (1..).zip(behaviours) {
        server.set_behaviour(behaviour);
        let (message, is_error) = call(n).await;
        assert!(
            is_error && message.contains(said),
            "{behaviour:?}: {message}"
        );
    }
    server.set_behaviour(mcp_server::Behaviour::Answer);
    assert_eq!(call(9).await, (mcp_server::result_of(9), false));
    home.end().await;
}

#[tokio::test]
async fn an_agent_as_a_tool_is_a_task_of_its_own_and_the_same_one_when_asked_again() {
    let state = tempfile::tempdir().unwrap();
    let mut fleet = fleet();
    let mut writer = fleet.agents["helper"].clone();
    writer.name = "writer".into();
    fleet.agents.insert("writer".into(), writer);
    let kind = ToolKind::Agent {
        agent: "writer".into(),
    };
    add_tool(&mut fleet, "ask", "ask", kind, |tool| {
        tool.effect = Effect::Keyed;
        tool.timeout_ms = 20_000;
    });
    let mut home = Home::start(state.path(), &fleet).await;
    let (task, attempts) = home.work("x").await;
    let arguments = json!({"input": "write"});
    let call = home.call_tool(&attempts[0].token, "ask", arguments.clone());
    let filter = || TaskFilter {
        agent: Some("writer".into()),
        ..TaskFilter::default()
    };
    let helped = async {
        until("the child is there", async || {
            !home.hub.task_list(filter()).await.unwrap().items.is_empty()
        })
        .await;
        let child = home.hub.task_list(filter()).await.unwrap().items.remove(0);
        assert_eq!(
            (child.input, child.parent),
            (json!("write"), Some(task.clone()))
        );
        home.hub.task_cancel(&child.id, "owner").await.unwrap();
    };
    let (answer, ()) = tokio::join!(call, helped);
    let (message, is_error) = text(&answer);
    assert!(is_error && message.contains("canceled"), "{message}");
    home.killed(&task, 1).await;
    let again = home.call_tool(&attempts[1].token, "ask", arguments).await;
    assert_eq!(text(&again), (message, true));
    assert_eq!(home.hub.task_list(filter()).await.unwrap().items.len(), 1);
    home.end().await;
}
