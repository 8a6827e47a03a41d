//! The agent's tools, reached as one MCP server at the gateway (streamable HTTP).
//!
//! Only what a loop needs: initialize, tools/list, tools/call. A tool's own error is an answer for
//! the model; a refusal by the gateway ends the attempt.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use llm::{Part, Source, Tool, ToolResult};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::door::{Answer, Doors, Tries, Trouble, broken, send};
use crate::failure::Failure;
use crate::model::bearer;

const PROTOCOL: &str = "2025-06-18";
/// Pages of a tool list; a server that always names a next page is broken.
const MAX_PAGES: usize = 64;

/// A session with the gateway's MCP server.
#[derive(Debug)]
pub(crate) struct Tools {
    uri: Uri,
    headers: RwLock<HeaderMap>,
    next_id: AtomicU64,
}

impl Tools {
    /// Opens the session and lists what there is, sorted by name.
    pub(crate) async fn open(uri: &Uri, doors: &Doors) -> Result<(Self, Vec<Tool>), Failure> {
        let headers = RwLock::new(base_headers(doors));
        let tools = Self {
            uri: uri.clone(),
            headers,
            next_id: AtomicU64::new(1),
        };
        tools.initialize().await?;
        let list = tools.list().await?;
        Ok((tools, list))
    }

    async fn initialize(&self) -> Result<(), Failure> {
        let client = json!({"name": "mainstay-runtime", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client});
        let mut tries = Tries::new("opening the tools");
        let (result, session) = loop {
            match self.once("initialize", &params, tries.retries()).await {
                Ok(Reply {
                    result: Ok(result),
                    session,
                }) => break (result, session),
                Ok(Reply {
                    result: Err(message),
                    ..
                }) => {
                    return Err(Failure::Broken {
                        what: "opening the tools".into(),
                        message,
                    });
                }
                Err(trouble) => tries.after(trouble).await?,
            }
        };
        let mut headers = self.headers.write().await;
        if let Some(session) = session {
            headers.insert("mcp-session-id", session);
        }
        let agreed = result
            .get("protocolVersion")
            .and_then(Value::as_str)
            .unwrap_or(PROTOCOL);
        if let Ok(agreed) = HeaderValue::from_str(agreed) {
            headers.insert("mcp-protocol-version", agreed);
        }
        let notice = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        // Nobody answers a notification; a session that isn't there shows in the next request.
        let _sent = send(&self.uri, &headers, Bytes::from(notice.to_string()), 0).await;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Tool>, Failure> {
        let mut tools = Vec::new();
        let mut params = json!({});
        for _ in 0..MAX_PAGES {
            let page = self.ask("listing the tools", "tools/list", &params).await?;
            let page = page.map_err(|message| Failure::Broken {
                what: "listing the tools".into(),
                message,
            })?;
            tools.extend(
                page.get("tools")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(tool),
            );
            match page.get("nextCursor").and_then(Value::as_str) {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => break,
            }
        }
        tools.sort_by(|one: &Tool, other| one.name.cmp(&other.name));
        Ok(tools)
    }

    /// Calls a tool. `id` is the model's id of the call, for the result.
    pub(crate) async fn call(
        &self,
        id: &str,
        name: &str,
        arguments: &Value,
    ) -> Result<ToolResult, Failure> {
        let params = json!({"name": name, "arguments": arguments});
        let result = match self
            .ask(&format!("tool {name}"), "tools/call", &params)
            .await?
        {
            Ok(result) => result,
            Err(message) => return Ok(failed(id, &message)),
        };
        let is_error = result
            .get("isError")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        Ok(ToolResult {
            id: id.to_owned(),
            content: content(&result),
            is_error,
        })
    }

    /// Asks until there is a reply; the inner error is the server's.
    async fn ask(
        &self,
        what: &str,
        method: &str,
        params: &Value,
    ) -> Result<Result<Value, String>, Failure> {
        let mut tries = Tries::new(what);
        let mut reopened = false;
        loop {
            match self.once(method, params, tries.retries()).await {
                Ok(reply) => return Ok(reply.result),
                // The session is unknown: by the protocol a new one is opened.
                Err(Trouble::Refused { status: 404, .. }) if !reopened => {
                    reopened = true;
                    self.headers.write().await.remove("mcp-session-id");
                    Box::pin(self.initialize()).await?;
                }
                Err(trouble) => tries.after(trouble).await?,
            }
        }
    }

    async fn once(&self, method: &str, params: &Value, retries: u32) -> Result<Reply, Trouble> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let headers = self.headers.read().await.clone();
        let mut answer = send(&self.uri, &headers, Bytes::from(body.to_string()), retries).await?;
        let session = answer.headers.get("mcp-session-id").cloned();
        let reply = if answer.is_event_stream() {
            from_stream(&mut answer, id).await?
        } else {
            from_body(&mut answer).await?
        };
        Ok(Reply {
            result: reply,
            session,
        })
    }
}

#[derive(Debug)]
struct Reply {
    result: Result<Value, String>,
    session: Option<HeaderValue>,
}

fn base_headers(doors: &Doors) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    bearer(&mut headers, &doors.token);
    headers
}

async fn from_body(answer: &mut Answer) -> Result<Result<Value, String>, Trouble> {
    let body = answer.collect().await?;
    let message: Value = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
    Ok(outcome(&message))
}

/// Notifications may come before the reply; nothing is expected after it.
async fn from_stream(answer: &mut Answer, id: u64) -> Result<Result<Value, String>, Trouble> {
    let mut text = Vec::new();
    while let Some(data) = answer.next().await? {
        text.extend_from_slice(&data);
        while let Some((event, rest)) = next_event(&text) {
            let message: Option<Value> = serde_json::from_str(&event).ok();
            text = rest;
            let reply =
                message.filter(|message| message.get("id").and_then(Value::as_u64) == Some(id));
            if let Some(message) = reply {
                return Ok(outcome(&message));
            }
        }
    }
    Err(Trouble::Broken("the stream ended before the reply".into()))
}

/// The data of the first whole event, and the bytes behind it.
fn next_event(bytes: &[u8]) -> Option<(String, Vec<u8>)> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let crlf = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let (end, skip) = match (end, crlf) {
        (Some(end), Some(crlf)) if crlf < end => (crlf, 4),
        (Some(end), _) => (end, 2),
        (None, Some(crlf)) => (crlf, 4),
        (None, None) => return None,
    };
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let data: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(str::trim_start)
        .collect();
    Some((data.join("\n"), bytes[end + skip..].to_vec()))
}

fn outcome(message: &Value) -> Result<Value, String> {
    match message.get("error") {
        Some(error) => {
            let text = error
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or("the server gave no reason");
            Err(text.to_owned())
        }
        None => Ok(message.get("result").cloned().unwrap_or_else(|| json!({}))),
    }
}

fn tool(tool: &Value) -> Option<Tool> {
    let text = |field: &str| tool.get(field).and_then(Value::as_str).map(str::to_owned);
    let parameters = tool
        .get("inputSchema")
        .cloned()
        .unwrap_or_else(|| json!({"type": "object"}));
    Some(Tool {
        name: text("name")?,
        description: text("description"),
        parameters,
        strict: None,
    })
}

pub(crate) fn failed(id: &str, message: &str) -> ToolResult {
    ToolResult {
        id: id.to_owned(),
        content: vec![Part::Text(message.to_owned())],
        is_error: true,
    }
}

fn content(result: &Value) -> Vec<Part> {
    let blocks = result.get("content").and_then(Value::as_array);
    let mut parts: Vec<Part> = blocks.into_iter().flatten().map(block).collect();
    if parts.is_empty()
        && let Some(structured) = result.get("structuredContent")
    {
        parts.push(Part::Text(structured.to_string()));
    }
    parts
}

fn block(block: &Value) -> Part {
    let text = |pointer: &str| block.pointer(pointer).and_then(Value::as_str);
    match text("/type") {
        Some("text") => Part::Text(text("/text").unwrap_or_default().to_owned()),
        Some("image") => Part::Image(Source::Base64 {
            media_type: text("/mimeType").unwrap_or("image/png").to_owned(),
            data: text("/data").unwrap_or_default().to_owned(),
        }),
        Some("resource") if text("/resource/text").is_some() => {
            Part::Text(text("/resource/text").unwrap_or_default().to_owned())
        }
        _ => Part::Text(block.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_at_blank_lines() {
        let bytes = b"event: message\ndata: {\"a\":\ndata: 1}\n\ndata: x\r\n\r\nrest";
        let (first, rest) = next_event(bytes).unwrap();
        assert_eq!(first, "{\"a\":\n1}");
        let (second, rest) = next_event(&rest).unwrap();
        assert_eq!(
            (second.as_str(), rest.as_slice()),
            ("x", b"rest".as_slice())
        );
        assert!(next_event(&rest).is_none());
    }

    #[test]
    fn every_kind_of_content_reaches_the_model() {
        let result = json!({"content": [
            {"type": "text", "text": "a"},
            {"type": "image", "data": "AA", "mimeType": "image/gif"},
            {"type": "resource", "resource": {"uri": "f", "text": "b"}},
            {"type": "audio", "data": "AA"},
        ]});
        let parts = content(&result);
        assert_eq!(parts[0], Part::Text("a".into()));
        assert_eq!(
            parts[1],
            Part::Image(Source::Base64 {
                media_type: "image/gif".into(),
                data: "AA".into()
            })
        );
        assert_eq!(parts[2], Part::Text("b".into()));
        assert!(matches!(&parts[3], Part::Text(text) if text.contains("audio")));
        assert_eq!(
            content(&json!({"structuredContent": {"n": 1}})),
            [Part::Text(r#"{"n":1}"#.into())]
        );
    }
}
