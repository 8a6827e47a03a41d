//! The client against servers that behave, and servers that don't.
#![allow(clippy::unwrap_used, reason = "a test's helpers may end the test")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use mcp::{Call, CallError, Client};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};

const SOON: Duration = Duration::from_secs(10);

fn call(name: &str, timeout: Duration) -> Call {
    Call {
        name: name.into(),
        arguments: json!({"a": 1}),
        meta: serde_json::Map::new(),
        timeout,
        limit_bytes: 64 * 1024,
    }
}

/// Plays a stdio server: answers each request line with what `answer` says, raw.
fn stdio_server(answer: impl Fn(&Value) -> Vec<u8> + Send + 'static) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let (reader, mut writer) = tokio::io::split(theirs);
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["method"] == "die" || message["params"]["name"] == "die" {
                return;
            }
            let mut bytes = if message["method"] == "initialize" {
                reply(
                    &message,
                    &json!({"protocolVersion": "2025-06-18", "capabilities": {}}),
                )
            } else {
                answer(&message)
            };
            if message.get("id").is_none() {
                bytes.clear();
            }
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    ours
}

fn reply(message: &Value, result: &Value) -> Vec<u8> {
    format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
    )
    .into_bytes()
}

async fn over(stream: DuplexStream) -> Client {
    let (reader, writer) = tokio::io::split(stream);
    Client::over_lines(reader, writer, Vec::new(), SOON)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_stdio_server_is_listed_and_called_past_its_own_noise() {
    let client = over(stdio_server(|message| {
        let mut bytes = b"a banner that is no JSON\n{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n".to_vec();
        bytes.extend(match message["method"].as_str() {
            Some("tools/list") => reply(message, &json!({"tools": [{"name": "b"}, {"name": "a"}]})),
            _ => reply(message, &json!({"content": [{"type": "text", "text": message["params"]["arguments"]["a"].to_string()}]})),
        });
        bytes
    }))
    .await;
    let names: Vec<_> = client
        .list_tools(SOON)
        .await
        .unwrap()
        .into_iter()
        .map(|tool| tool.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(client.tool_changes() > 0);
    let result = client.call_tool(&call("a", SOON)).await.unwrap();
    assert_eq!(result["content"][0]["text"], "1");
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_of_unknown_outcome_and_hurts_no_other() {
    let client = Arc::new(
        over(stdio_server(|message| {
            match message["params"]["name"].as_str() {
                Some("silent") => Vec::new(),
                _ => reply(message, &json!({"content": []})),
            }
        }))
        .await,
    );
    let silent = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .call_tool(&call("silent", Duration::from_millis(200)))
                .await
        }
    });
    assert!(client.call_tool(&call("fine", SOON)).await.is_ok());
    assert!(matches!(
        silent.await.unwrap(),
        Err(CallError::TimedOut { .. })
    ));
    assert!(
        client.call_tool(&call("fine", SOON)).await.is_ok(),
        "the connection goes on"
    );
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_leaves_it_unknown_and_the_next_one_unsent() {
    let client = over(stdio_server(|message| reply(message, &json!({})))).await;
    assert!(matches!(
        client.call_tool(&call("die", SOON)).await,
        Err(CallError::Unanswered(_))
    ));
    assert!(client.is_closed());
    assert!(matches!(
        client.call_tool(&call("fine", SOON)).await,
        Err(CallError::NotSent(_))
    ));
}

#[tokio::test]
async fn a_result_above_its_limit_is_an_error_of_that_call_alone() {
    let client = over(stdio_server(|message| {
        match message["params"]["name"].as_str() {
            Some("huge") => reply(
                message,
                &json!({"content": [{"type": "text", "text": "x".repeat(1 << 20)}]}),
            ),
            _ => reply(message, &json!({"content": []})),
        }
    }))
    .await;
    assert_eq!(
        client.call_tool(&call("huge", SOON)).await,
        Err(CallError::TooLarge {
            limit_bytes: 64 * 1024
        })
    );
    assert!(client.call_tool(&call("fine", SOON)).await.is_ok());
}

#[tokio::test]
async fn a_line_that_begins_as_an_answer_and_is_no_json_answers_its_call_at_once() {
    let client = over(stdio_server(|message| {
        match message["params"]["name"].as_str() {
            Some("broken") => {
                let id = &message["id"];
                format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[\n")
                    .into_bytes()
            }
            _ => reply(message, &json!({"content": []})),
        }
    }))
    .await;
    // Far longer than the test may take: waiting for it is what must not happen.
    let broken = call("broken", Duration::from_secs(3600));
    let answer = tokio::time::timeout(SOON, client.call_tool(&broken));
    let answer = answer.await.unwrap();
    assert!(
        matches!(answer, Err(CallError::Unreadable(_))),
        "{answer:?}"
    );
    assert!(client.call_tool(&call("fine", SOON)).await.is_ok());
}

#[tokio::test]
async fn a_server_that_takes_no_messages_any_more_is_told_from_a_slow_call() {
    let client = over(stdio_server(|message| match message["method"].as_str() {
        Some("ping") => reply(message, &json!({})),
        _ => Vec::new(),
    }))
    .await;
    assert!(client.is_responsive(SOON).await);
    let client = over(stdio_server(|_| Vec::new())).await;
    assert!(!client.is_responsive(Duration::from_millis(200)).await);
}

/// Serves one handler at `/mcp` on a free port.
async fn http_server(answer: fn(&Value, &HeaderMap) -> Response) -> String {
    let app = Router::new()
        .route(
            "/mcp",
            post(
                |State(answer): State<fn(&Value, &HeaderMap) -> Response>,
                 headers: HeaderMap,
                 body: String| async move {
                    let message: Value = serde_json::from_str(&body).unwrap();
                    if message.get("id").is_none() {
                        return StatusCode::ACCEPTED.into_response();
                    }
                    answer(&message, &headers)
                },
            ),
        )
        .with_state(answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/mcp")
}

async fn over_http(url: String) -> Result<Client, CallError> {
    Client::over_http(
        reqwest::Client::new(),
        url,
        Arc::new(|| Ok(Some("secret".into()))),
        SOON,
    )
    .await
}

fn json_reply(message: &Value, result: &Value) -> Response {
    let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    (
        [
            ("content-type", "application/json"),
            ("mcp-session-id", "s1"),
        ],
        body.to_string(),
    )
        .into_response()
}

#[tokio::test]
async fn an_http_server_answers_with_json_or_events() {
    let url = http_server(|message, headers| match message["method"].as_str() {
        Some("initialize") => json_reply(message, &json!({"protocolVersion": "2025-06-18"})),
        _ => {
            assert_eq!(headers["authorization"], "Bearer secret");
            assert_eq!(headers["mcp-session-id"], "s1");
            assert_eq!(headers["mcp-protocol-version"], "2025-06-18");
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}});
            let events = format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}}\n\nevent: message\ndata: {answer}\n\n");
            ([("content-type", "text/event-stream")], events).into_response()
        }
    })
    .await;
    let client = over_http(url).await.unwrap();
    assert_eq!(
        client.call_tool(&call("t", SOON)).await,
        Ok(json!({"content": []}))
    );
}

#[tokio::test]
async fn a_server_without_handshake_is_spoken_to_statelessly() {
    let url = http_server(|message, _| match message["method"].as_str() {
        Some("initialize") => {
            let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}});
            (StatusCode::NOT_FOUND, [("content-type", "application/json")], error.to_string()).into_response()
        }
        _ => {
            let version = &message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
            json_reply(message, &json!({"content": [], "seen": version}))
        }
    })
    .await;
    let client = over_http(url).await.unwrap();
    assert_eq!(
        client.call_tool(&call("t", SOON)).await.unwrap()["seen"],
        "2026-07-28"
    );
}

#[tokio::test]
async fn what_a_server_says_instead_of_a_result_is_told_apart() {
    let url = http_server(|message, _| {
        let name = message["params"]["name"].as_str().unwrap_or_default();
        match name {
            "" => json_reply(message, &json!({"protocolVersion": "2025-11-25"})),
            "page" => ([("content-type", "text/html")], "<html>").into_response(),
            "down" => (StatusCode::SERVICE_UNAVAILABLE, "try later").into_response(),
            "cut" => ([("content-type", "text/event-stream")], "data: {}\n\n").into_response(),
            "huge" => ([("content-type", "application/json")], "x".repeat(1 << 20)).into_response(),
            _ => {
                let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32602, "message": "bad"}});
                ([("content-type", "application/json")], error.to_string()).into_response()
            }
        }
    })
    .await;
    let client = over_http(url).await.unwrap();
    let said = async |name: &str| client.call_tool(&call(name, SOON)).await.unwrap_err();
    assert!(matches!(said("page").await, CallError::Unreadable(_)));
    assert!(matches!(
        said("down").await,
        CallError::Status { status: 503, .. }
    ));
    assert!(matches!(said("cut").await, CallError::Unanswered(_)));
    assert!(matches!(said("huge").await, CallError::TooLarge { .. }));
    assert!(matches!(said("other").await, CallError::Rpc(_)));
}

#[tokio::test]
async fn nobody_at_the_address_means_that_nothing_was_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    assert!(matches!(over_http(url).await, Err(CallError::NotSent(_))));
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_opened_anew_without_a_lost_call() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static OPENED: AtomicU32 = AtomicU32::new(0);
    static FORGOT: AtomicU32 = AtomicU32::new(0);
    let url = http_server(|message, _| match message["method"].as_str() {
        Some("initialize") => {
            OPENED.fetch_add(1, Ordering::SeqCst);
            json_reply(message, &json!({"protocolVersion": "2025-11-25"}))
        }
        _ => match FORGOT.fetch_add(1, Ordering::SeqCst) {
            0 => StatusCode::NOT_FOUND.into_response(),
            2 => (StatusCode::BAD_REQUEST, "Bad Request: no valid session id").into_response(),
            _ => json_reply(message, &json!({"content": []})),
        },
    })
    .await;
    let client = over_http(url).await.unwrap();
    for _ in 0..2 {
        let result = client.call_tool(&call("t", SOON)).await;
        assert_eq!(result, Ok(json!({"content": []})));
    }
    assert_eq!(OPENED.load(Ordering::SeqCst), 3);
}
