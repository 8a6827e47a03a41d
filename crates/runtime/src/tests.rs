//! The loop against a gateway that plays a part: what it sends, what it repeats, how it ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::assignment::Assignment;
use crate::door::Doors;
use crate::failure::Failure;
use crate::talk::to_the_end;

/// What the model's side does at one request.
enum Play {
    Answer(String),
    /// Half an answer, then nothing.
    BreakOff(String),
    Refuse(u16, &'static str),
}

struct Gateway {
    plays: Mutex<VecDeque<Play>>,
    /// Model requests: retry count and body.
    seen: Mutex<Vec<(String, String)>>,
    /// Tool calls that must be under way at once before any is answered.
    together: Option<Barrier>,
}

impl Gateway {
    async fn start(plays: Vec<Play>, together: Option<usize>) -> (Arc<Self>, Uri) {
        let gateway = Arc::new(Self {
            plays: Mutex::new(plays.into()),
            seen: Mutex::default(),
            together: together.map(Barrier::new),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = gateway.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| serve(server.clone(), request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _closed = connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        (gateway, format!("http://{address}").parse().unwrap())
    }

    fn bodies(&self) -> Vec<Value> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(_, body)| serde_json::from_str(body).unwrap())
            .collect()
    }
}

async fn serve(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert_eq!(
        head.headers
            .get("authorization")
            .or(head.headers.get("x-api-key"))
            .map(|v| v.as_bytes().is_empty()),
        Some(false)
    );
    if head.uri.path() == "/mcp" {
        return Ok(mcp(&gateway, &serde_json::from_str(&body).unwrap()).await);
    }
    let retries = head.headers["x-stainless-retry-count"]
        .to_str()
        .unwrap()
        .to_owned();
    gateway.seen.lock().unwrap().push((retries, body));
    let play = gateway
        .plays
        .lock()
        .unwrap()
        .pop_front()
        .expect("one request too many");
    let stream = |text: String, length: usize| {
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .header("content-length", length);
        response.body(Full::from(text)).unwrap()
    };
    Ok(match play {
        Play::Answer(text) => {
            let length = text.len();
            stream(text, length)
        }
        // A body shorter than its length: the connection is closed in the middle.
        Play::BreakOff(text) => {
            let length = text.len() + 1;
            stream(text, length)
        }
        Play::Refuse(status, message) => {
            let body = json!({"error": {"message": message}}).to_string();
            let response = Response::builder()
                .status(status)
                .header("x-should-retry", "false");
            response.body(Full::from(body)).unwrap()
        }
    })
}

async fn mcp(gateway: &Gateway, message: &Value) -> Response<Full<Bytes>> {
    let result = match message["method"].as_str().unwrap() {
        "initialize" => {
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "g", "version": "1"}})
        }
        "tools/list" => json!({"tools": [
            {"name": "zeta", "inputSchema": {"type": "object"}},
            {"name": "alpha", "description": "first", "inputSchema": {"type": "object"}},
        ]}),
        "tools/call" => {
            if let Some(together) = &gateway.together {
                together.wait().await;
            }
            let name = message["params"]["name"].as_str().unwrap();
            json!({"content": [{"type": "text", "text": format!("{name} says {}", message["params"]["arguments"])}]})
        }
        _ => {
            return Response::builder()
                .status(202)
                .body(Full::default())
                .unwrap();
        }
    };
    let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let response = Response::builder()
        .header("content-type", "application/json")
        .header("mcp-session-id", "s1");
    response.body(Full::from(reply)).unwrap()
}

fn sse(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect()
}

fn chat_text(text: &str) -> String {
    let chunk = json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]});
    sse(&[chunk]) + "data: [DONE]\n\n"
}

fn chat_calls(names: &[&str], arguments: &str) -> String {
    let calls: Vec<Value> = names.iter().enumerate().map(|(index, name)| {
        json!({"index": index, "id": format!("call_{index}"), "function": {"name": name, "arguments": arguments}})
    }).collect();
    let chunk = json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}]});
    sse(&[chunk]) + "data: [DONE]\n\n"
}

async fn run(uri: &Uri, dialect: &str, tools: bool) -> Result<String, Failure> {
    let assignment: Assignment = serde_json::from_value(json!({
        "task": "t", "session": "s", "agent": "a", "attempt": 1, "token": "secret",
        "input": "go", "instructions": "be brief", "model": "p/m", "models": ["p/m"], "dialect": dialect,
        "history": [{"role": "user", "content": "hello"}, {"role": "agent", "content": "hi"}],
    })).unwrap();
    let base = uri.to_string();
    let base = base.trim_end_matches('/').to_owned();
    let doors = Doors::from_environment(&assignment, |name| match name {
        "OPENAI_BASE_URL" => Some(format!("{base}/v1")),
        "ANTHROPIC_BASE_URL" => Some(base.clone()),
        "MAINSTAY_MCP_URL" if tools => Some(format!("{base}/mcp")),
        _ => None,
    })?;
    to_the_end(&assignment, &doors).await
}

#[tokio::test]
async fn parallel_calls_run_at_once_and_their_results_keep_the_order_of_the_calls() {
    let plays = vec![
        Play::Answer(chat_calls(&["zeta", "alpha"], "{\"q\":1}")),
        Play::Answer(chat_text("done")),
    ];
    // Both must be under way before either is answered: one after the other would hang.
    let (gateway, uri) = Gateway::start(plays, Some(2)).await;
    assert_eq!(run(&uri, "openai", true).await.unwrap(), "done");
    let second = &gateway.bodies()[1];
    let messages = second["messages"].as_array().unwrap();
    let results: Vec<_> = messages
        .iter()
        .filter(|m| m["role"] == "tool")
        .map(|m| m["content"].as_str().unwrap())
        .collect();
    assert_eq!(results, ["zeta says {\"q\":1}", "alpha says {\"q\":1}"]);
    let names: Vec<_> = second["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["function"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["alpha", "zeta"]);
    assert_eq!(
        messages[0],
        json!({"role": "system", "content": "be brief"})
    );
    assert_eq!(messages[2], json!({"role": "assistant", "content": "hi"}));
}

#[tokio::test]
async fn two_processes_send_the_same_bytes_for_the_same_conversation() {
    let mut sent = Vec::new();
    for _ in 0..2 {
        let plays = vec![
            Play::Answer(chat_calls(&["alpha"], "{}")),
            Play::Answer(chat_text("done")),
        ];
        let (gateway, uri) = Gateway::start(plays, None).await;
        run(&uri, "openai", true).await.unwrap();
        let seen = gateway.seen.lock().unwrap().clone();
        sent.push(seen);
    }
    assert_eq!(sent[0], sent[1]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again_as_a_retry() {
    let whole = chat_text("a long answer");
    let plays = vec![
        Play::BreakOff(whole[..whole.len() / 2].to_owned()),
        Play::Answer(whole),
    ];
    let (gateway, uri) = Gateway::start(plays, None).await;
    assert_eq!(run(&uri, "openai", false).await.unwrap(), "a long answer");
    let seen = gateway.seen.lock().unwrap().clone();
    assert_eq!((seen[0].0.as_str(), seen[1].0.as_str()), ("0", "1"));
    assert_eq!(seen[0].1, seen[1].1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_again_and_again_is_given_up() {
    let whole = chat_text("a long answer");
    let half = whole[..whole.len() / 2].to_owned();
    let plays = (0..9).map(|_| Play::BreakOff(half.clone())).collect();
    let (gateway, uri) = Gateway::start(plays, None).await;
    let failure = run(&uri, "openai", false).await.unwrap_err();
    assert!(matches!(failure, Failure::Broken { .. }), "{failure}");
    assert_eq!(gateway.bodies().len(), 3);
}

#[tokio::test]
async fn a_clean_end_without_a_finish_reason_is_no_answer() {
    let cut = chat_text("half")
        .replace("data: [DONE]\n\n", "")
        .replace(r#""stop""#, "null");
    let (gateway, uri) = Gateway::start(
        vec![Play::Answer(cut), Play::Answer(chat_text("whole"))],
        None,
    )
    .await;
    assert_eq!(run(&uri, "openai", false).await.unwrap(), "whole");
    assert_eq!(gateway.bodies().len(), 2);
}

#[tokio::test]
async fn a_refusal_stands_and_only_one_that_every_attempt_would_get_is_final() {
    for (status, is_final) in [(429, false), (409, false), (400, true)] {
        let (gateway, uri) =
            Gateway::start(vec![Play::Refuse(status, "no: 20 steps are used up")], None).await;
        let failure = run(&uri, "openai", false).await.unwrap_err();
        assert!(
            failure.to_string().contains("20 steps are used up"),
            "{failure}"
        );
        assert!(
            matches!(failure, Failure::Refused { is_final: found, .. } if found == is_final),
            "{status}"
        );
        assert_eq!(gateway.bodies().len(), 1);
    }
}

#[tokio::test]
async fn reasoning_goes_back_to_the_model_as_it_came() {
    let first = sse(&[
        json!({"type": "message_start", "message": {"id": "m", "model": "x", "usage": {"input_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig=="}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "tu", "name": "alpha", "input": {}}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"b\":1,\"a\":2}"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]);
    let last = sse(&[
        json!({"type": "message_start", "message": {"id": "m", "model": "x", "usage": {"input_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]);
    let (gateway, uri) = Gateway::start(vec![Play::Answer(first), Play::Answer(last)], None).await;
    assert_eq!(run(&uri, "anthropic", true).await.unwrap(), "ok");
    let messages = gateway.bodies()[1]["messages"].as_array().unwrap().clone();
    let said = messages.iter().rfind(|m| m["role"] == "assistant").unwrap();
    assert_eq!(
        said["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": "sig=="},
            {"type": "tool_use", "id": "tu", "name": "alpha", "input": {"b": 1, "a": 2}},
        ])
    );
}

#[tokio::test]
async fn arguments_that_are_no_object_are_told_to_the_model_and_not_sent_back_to_its_provider() {
    let plays = vec![
        Play::Answer(chat_calls(&["alpha"], "{\"q\":")),
        Play::Answer(chat_text("sorry")),
    ];
    let (gateway, uri) = Gateway::start(plays, None).await;
    assert_eq!(run(&uri, "openai", true).await.unwrap(), "sorry");
    let text = gateway.bodies()[1].to_string();
    assert!(
        text.contains("not JSON") && text.contains(r#""arguments":"{}""#),
        "{text}"
    );
}
