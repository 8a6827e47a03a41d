//! An MCP server over streamable HTTP with one tool, `record`, that counts its calls by arguments.
//!
//! It answers each request with one JSON body and keeps no session, which the protocol allows. It
//! can be told to be slow, silent, flooding or to hang up in the middle of a call.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::server::Server;

/// How a call of the tool goes, after it was counted.
#[derive(Clone, Copy, Debug, Default)]
pub enum Behaviour {
    #[default]
    Answer,
    AnswerAfter(Duration),
    NeverAnswer,
    /// Closes the connection without an answer.
    HangUp,
    /// Sends a result of that many bytes.
    Flood(u64),
    /// Answers with a tool error.
    ToolError,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Value>>,
    requests: Mutex<Vec<Value>>,
    behaviour: Mutex<Behaviour>,
}

/// A running server.
pub struct McpServer {
    server: Server,
    shared: Arc<Shared>,
}

impl McpServer {
    /// Starts one on loopback.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into())
    }

    /// Starts one on another address of this machine.
    #[must_use]
    pub fn start_on(address: IpAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/mcp", post(answer))
            .with_state(Arc::clone(&shared));
        Self {
            server: Server::start_on(address, router),
            shared,
        }
    }

    /// The endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.server.address)
    }

    /// Arguments of every call of the tool, in order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Value> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// How often the tool was called with each `conversation` and `n`.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(String, u64), usize> {
        let mut counts = BTreeMap::new();
        for call in self.shared.calls.lock().unwrap().iter() {
            let conversation = call["conversation"].as_str().unwrap_or_default();
            let n = call["n"].as_u64().unwrap_or_default();
            *counts.entry((conversation.to_owned(), n)).or_default() += 1;
        }
        counts
    }

    /// Every message received, whatever its method.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Behaves like that from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, Json(message): Json<Value>) -> Response {
    shared.requests.lock().unwrap().push(message.clone());
    let Some(id) = message.get("id").cloned() else {
        return StatusCode::ACCEPTED.into_response();
    };
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => initialize(&message["params"]),
        "ping" => json!({}),
        "tools/list" => json!({"tools": [tool()]}),
        "tools/call" => return call(&shared, &id, &message["params"]).await,
        other => {
            let error = json!({"code": -32601, "message": format!("no method {other}")});
            return Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response();
        }
    };
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

fn initialize(params: &Value) -> Value {
    let known = ["2025-11-25", "2025-06-18", "2025-03-26"];
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version = known.iter().find(|version| **version == asked);
    json!({
        "protocolVersion": version.unwrap_or(&known[0]),
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "testkit", "version": "1.0.0"},
    })
}

fn tool() -> Value {
    json!({
        "name": "record",
        "description": "Writes a number down. Each call is a new entry.",
        "inputSchema": {
            "type": "object",
            "properties": {"conversation": {"type": "string"}, "n": {"type": "integer"}},
            "required": ["conversation", "n"],
        },
    })
}

/// The text that a call with these arguments returns.
#[must_use]
pub fn result_of(n: u64) -> String {
    format!("recorded {n}")
}

async fn call(shared: &Shared, id: &Value, params: &Value) -> Response {
    let arguments = params["arguments"].clone();
    let text = result_of(arguments["n"].as_u64().unwrap_or_default());
    shared.calls.lock().unwrap().push(arguments);
    let behaviour = *shared.behaviour.lock().unwrap();
    let mut is_error = false;
    match behaviour {
        Behaviour::Answer => {}
        Behaviour::AnswerAfter(delay) => tokio::time::sleep(delay).await,
        Behaviour::NeverAnswer => std::future::pending::<()>().await,
        Behaviour::HangUp => return hang_up(),
        Behaviour::Flood(bytes) => return flood(id, bytes),
        Behaviour::ToolError => is_error = true,
    }
    let result = json!({"content": [{"type": "text", "text": text}], "isError": is_error});
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

fn hang_up() -> Response {
    let broken = Err::<Bytes, _>(std::io::Error::other("hung up on purpose"));
    json_stream(futures_util::stream::iter([broken]))
}

fn flood(id: &Value, bytes: u64) -> Response {
    let block = Bytes::from(vec![b'x'; 64 * 1024]);
    let count = bytes.div_ceil(64 * 1024);
    let start =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#);
    let start = std::iter::once(Bytes::from(start));
    let middle = (0..count).map(move |_| block.clone());
    let end = std::iter::once(Bytes::from_static(br#""}]}}"#));
    let parts = start.chain(middle).chain(end).map(Ok::<_, std::io::Error>);
    json_stream(futures_util::stream::iter(parts))
}

fn json_stream<S>(parts: S) -> Response
where
    S: futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
{
    let body = Body::from_stream(parts);
    ([("content-type", "application/json")], body).into_response()
}
