//! `MAINSTAY_MCP_URL`: the agent's own tools, and only those, as one MCP server over streamable
//! HTTP. Each POST is answered by itself; there is no stream of the server's own to open.
//!
//! A session id means nothing here and is derived from the instance, so it outlives any hub.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use hub::{Code, HubError, Refusal};
use hyper::body::Incoming;
use mcp::message::{self, INTERNAL_ERROR, INVALID_PARAMS};
use mcp::server::{self, Asked, ServerInfo};
use serde_json::{Value, json};

use crate::Gateway;
use crate::call;
use crate::door::Door;
use crate::pipeline;
use crate::reply::{self, Reply};
use crate::tools;

const INFO: ServerInfo = ServerInfo {
    name: "mainstay",
    version: env!("CARGO_PKG_VERSION"),
};
/// JSON-RPC's range for errors of one's own; the word stands in `data.code`.
const REFUSED: i64 = -32000;

/// Answers one request at `/mcp`.
pub async fn serve(
    gateway: &Arc<Gateway>,
    door: &Door,
    request: Request<Incoming>,
) -> Result<Reply, Refusal> {
    match *request.method() {
        Method::POST => post(gateway, door, request.into_body()).await,
        Method::DELETE => {
            door.identify(gateway).await?;
            Ok(reply::empty(204))
        }
        // Clients that try to open a stream take this for "there is none".
        _ => {
            let mut reply = reply::empty(405);
            reply
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("POST, DELETE"));
            Ok(reply)
        }
    }
}

async fn post(gateway: &Arc<Gateway>, door: &Door, body: Incoming) -> Result<Reply, Refusal> {
    let (body, _held) = door.read_body(body).await?;
    let asked = server::read(&body, door.header("mcp-protocol-version"));
    if let Asked::CallTool {
        id,
        stateless,
        name,
        arguments,
    } = asked
    {
        return call_tool(gateway, door, &id, stateless, name, arguments).await;
    }
    let caller = door.identify(gateway).await?;
    Ok(match asked {
        Asked::Initialize { id, version } => {
            let mut reply = result(door, &id, &server::initialize_result(version, INFO));
            if let Ok(session) = HeaderValue::from_str(&format!("mainstay-{}", door.instance)) {
                reply.headers_mut().insert("mcp-session-id", session);
            }
            reply
        }
        Asked::Discover { id } => result(door, &id, &server::discover_result(INFO)),
        Asked::Ping { id, stateless } => result(door, &id, &server::complete(json!({}), stateless)),
        Asked::ListTools { id, stateless } => match tools::list(gateway, &caller).await {
            Ok(exposed) => {
                let tools: Vec<mcp::Tool> = exposed
                    .into_iter()
                    .map(|exposed| exposed.definition)
                    .collect();
                result(door, &id, &server::list_result(&tools, stateless))
            }
            Err(refused) => message_reply(door, 200, &refusal(&id, &refused)),
        },
        Asked::Refused(error) => {
            let is_method = error["error"]["code"] == message::METHOD_NOT_FOUND;
            message_reply(door, if is_method { 200 } else { 400 }, &error)
        }
        Asked::Nothing | Asked::CallTool { .. } => reply::empty(202),
    })
}

async fn call_tool(
    gateway: &Arc<Gateway>,
    door: &Door,
    id: &Value,
    stateless: bool,
    name: String,
    arguments: Value,
) -> Result<Reply, Refusal> {
    let asked = call::Asked::Tool { name, arguments };
    let passed = match pipeline::call(gateway, door, asked).await {
        Ok(passed) => passed,
        Err(refused) => return refused_call(door, id, stateless, refused),
    };
    let mut answer = passed.into_answer()?;
    let Ok(head) = answer.head().await else {
        return Ok(reply::reset(&door.connection));
    };
    let Ok(body) = reply::whole(&mut answer).await else {
        return Ok(reply::reset(&door.connection));
    };
    let recorded = tools::result::recorded(head.status, &body);
    let message = message::write_result(id, &server::complete(recorded, stateless));
    let (content_type, bytes) = framed(door, &message);
    let mut reply = reply::bytes_owing(content_type, bytes, answer, door.connection.clone());
    let headers = reply.headers_mut();
    headers.insert("mainstay-step", HeaderValue::from(head.step));
    if head.replayed {
        headers.insert("mainstay-replayed", HeaderValue::from_static("true"));
    }
    Ok(reply)
}

/// Arguments that don't fit are the model's to correct, so they are a tool's error; what the model
/// can't change is an error of the protocol; who may not call at all gets a status.
fn refused_call(
    door: &Door,
    id: &Value,
    stateless: bool,
    refused: Refusal,
) -> Result<Reply, Refusal> {
    match refused.code {
        Code::Unauthorized | Code::NotAllowed => Err(refused),
        Code::Invalid => {
            let told = server::text_result(&refused.message, true);
            Ok(result(door, id, &server::complete(told, stateless)))
        }
        _ => Ok(message_reply(door, 200, &refusal(id, &refused))),
    }
}

fn refusal(id: &Value, refused: &HubError) -> Value {
    let code = match refused.code {
        Code::NotFound | Code::Invalid => INVALID_PARAMS,
        Code::Internal => INTERNAL_ERROR,
        _ => REFUSED,
    };
    let mut error = message::write_error(id, code, &refused.message);
    error["error"]["data"] = json!({"code": refused.code.word()});
    error
}

fn result(door: &Door, id: &Value, result: &Value) -> Reply {
    message_reply(door, 200, &message::write_result(id, result))
}

fn message_reply(door: &Door, status: u16, message: &Value) -> Reply {
    let (content_type, bytes) = framed(door, message);
    reply::bytes(status, content_type, bytes)
}

/// JSON, unless the client takes nothing but events.
fn framed(door: &Door, message: &Value) -> (&'static str, Bytes) {
    let accept = door.header(header::ACCEPT.as_str()).unwrap_or_default();
    let only_events =
        accept.contains("text/event-stream") && !accept.contains("json") && !accept.contains("*/*");
    if only_events {
        return (
            "text/event-stream",
            Bytes::from(format!("event: message\ndata: {message}\n\n")),
        );
    }
    ("application/json", Bytes::from(message.to_string()))
}
