//! A client of one tool server: handshake, the list of tools, calls. Cheap to share; calls are
//! multiplexed.
//!
//! What a journal needs from it is in [`CallError`]: whether a call that failed may have arrived.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::lines::Lines;
use crate::message::{self, METHOD_NOT_FOUND, RpcError, UNSUPPORTED_VERSION};
use crate::streamable_http::StreamableHttp;
use crate::tool::{self, MAX_TOOLS, Tool};
use crate::version::{
    CLIENT_CAPABILITIES_META, CLIENT_INFO_META, NEWEST_WITH_HANDSHAKE, STATELESS, VERSION_META,
};

/// The most of a list of tools that is read, per page.
const LIST_LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// The most pages of a list.
const MAX_PAGES: usize = 64;

/// Reads the bearer token, each time anew: a rotated secret counts from the next request on.
pub type Bearer = Arc<dyn Fn() -> Result<Option<String>, String> + Send + Sync>;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The request never left.
    #[error("the tool server cannot be reached: {0}")]
    NotSent(String),
    /// It left, and nobody knows what became of it.
    #[error("the tool server did not answer: {0}")]
    Unanswered(String),
    /// The same, because time was up.
    #[error("the tool server did not answer within {seconds} s")]
    TimedOut { seconds: f32 },
    /// The server answered with an HTTP status instead of a result.
    #[error("the tool server answered with status {status}: {message}")]
    Status { status: u16, message: String },
    /// The server answered with an error of the protocol.
    #[error("the tool server refused the call: {0}")]
    Rpc(RpcError),
    /// It answered with more than is accepted.
    #[error(
        "the tool's result is larger than {limit_bytes} bytes; ask for less, or raise limits.result"
    )]
    TooLarge { limit_bytes: usize },
    /// It answered with something that is no message.
    #[error("the tool server's answer is not readable: {0}")]
    Unreadable(String),
    /// The server has forgotten the session; the request was not looked at.
    #[error("the tool server ended the session")]
    SessionEnded,
}

/// One tool call.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    pub arguments: Value,
    /// Sent as `_meta`, unless empty.
    pub meta: Map<String, Value>,
    pub timeout: Duration,
    /// A longer answer is an error.
    pub limit_bytes: usize,
}

enum Transport {
    Lines(Lines),
    Http(StreamableHttp),
}

/// A connection to a tool server.
pub struct Client {
    transport: Transport,
    stateless: AtomicBool,
    /// The revision agreed on.
    version: OnceLock<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Opens a conversation of newline-delimited messages, as a stdio server speaks it.
    /// `early` are bytes that were read together with what came before.
    pub async fn over_lines(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        early: Vec<u8>,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        Self::open(
            Transport::Lines(Lines::start(reader, writer, early)),
            timeout,
        )
        .await
    }

    /// Opens a conversation over streamable HTTP. `http` must not follow redirects: a bearer token
    /// would follow with them.
    pub async fn over_http(
        http: reqwest::Client,
        url: String,
        bearer: Bearer,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        Self::open(
            Transport::Http(StreamableHttp::new(http, url, bearer)),
            timeout,
        )
        .await
    }

    async fn open(transport: Transport, timeout: Duration) -> Result<Self, CallError> {
        let client = Self {
            transport,
            stateless: AtomicBool::new(false),
            version: OnceLock::new(),
        };
        client.handshake(timeout).await?;
        Ok(client)
    }

    /// `initialize`, or the stateless revision where the server has no handshake any more.
    async fn handshake(&self, timeout: Duration) -> Result<(), CallError> {
        let params = json!({
            "protocolVersion": NEWEST_WITH_HANDSHAKE,
            "capabilities": {},
            "clientInfo": client_info(),
        });
        let opened = self
            .exchange("initialize", &params, timeout, LIST_LIMIT_BYTES)
            .await;
        let version = match &opened {
            Ok(result) => result.get("protocolVersion").and_then(Value::as_str),
            Err(CallError::Rpc(error)) if is_stateless(error) => {
                self.stateless.store(true, Ordering::Relaxed);
                Some(STATELESS)
            }
            Err(error) => return Err(error.clone()),
        };
        let version = version
            .ok_or_else(|| CallError::Unreadable("initialize named no protocol version".into()))?;
        let version = self.version.get_or_init(|| message::bounded(version, 32));
        if let Transport::Http(http) = &self.transport {
            http.speak(version);
        }
        if !self.stateless.load(Ordering::Relaxed) {
            self.notify("notifications/initialized", &json!({})).await;
        }
        Ok(())
    }

    /// All tools of the server, sorted by name.
    pub async fn list_tools(&self, timeout: Duration) -> Result<Vec<Tool>, CallError> {
        let mut tools: Vec<Tool> = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let page = self
                .request("tools/list", params, timeout, LIST_LIMIT_BYTES)
                .await?;
            let (more, next) = tool::read_page(&page);
            tools.extend(more);
            cursor = next;
            if cursor.is_none() || tools.len() > MAX_TOOLS {
                break;
            }
        }
        tools.truncate(MAX_TOOLS);
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools.dedup_by(|a, b| a.name == b.name);
        Ok(tools)
    }

    /// Calls a tool; the result is the server's own `CallToolResult`.
    pub async fn call_tool(&self, call: &Call) -> Result<Value, CallError> {
        let mut params = json!({"name": call.name, "arguments": call.arguments});
        if !call.meta.is_empty() {
            params["_meta"] = Value::Object(call.meta.clone());
        }
        let result = self
            .request("tools/call", params, call.timeout, call.limit_bytes)
            .await?;
        if result.is_object() {
            Ok(result)
        } else {
            Err(CallError::Unreadable("a result is an object".into()))
        }
    }

    /// Does the server still take messages? Any answer will do.
    pub async fn is_responsive(&self, timeout: Duration) -> bool {
        let answer = self
            .request("ping", json!({}), timeout, LIST_LIMIT_BYTES)
            .await;
        !matches!(
            answer,
            Err(CallError::TimedOut { .. } | CallError::NotSent(_))
        )
    }

    /// The connection is gone: open another.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(&self.transport, Transport::Lines(lines) if lines.is_closed())
    }

    /// Grows whenever the server says that its tools changed.
    #[must_use]
    pub fn tool_changes(&self) -> u64 {
        match &self.transport {
            Transport::Lines(lines) => lines.tool_changes(),
            // Would need a stream that is open all the time; lists are read again after a while instead.
            Transport::Http(_) => 0,
        }
    }

    /// One request, opening the session anew if the server has forgotten it.
    async fn request(
        &self,
        method: &str,
        params: Value,
        timeout: Duration,
        limit_bytes: usize,
    ) -> Result<Value, CallError> {
        let params = self.with_meta(params);
        match self.exchange(method, &params, timeout, limit_bytes).await {
            Err(CallError::SessionEnded) => {
                self.handshake(timeout).await.map_err(not_sent)?;
                self.exchange(method, &params, timeout, limit_bytes).await
            }
            other => other,
        }
    }

    fn with_meta(&self, mut params: Value) -> Value {
        if self.stateless.load(Ordering::Relaxed) {
            params["_meta"][VERSION_META] = json!(STATELESS);
            params["_meta"][CLIENT_INFO_META] = client_info();
            params["_meta"][CLIENT_CAPABILITIES_META] = json!({});
        }
        params
    }

    async fn exchange(
        &self,
        method: &str,
        params: &Value,
        timeout: Duration,
        limit_bytes: usize,
    ) -> Result<Value, CallError> {
        match &self.transport {
            Transport::Lines(lines) => lines.request(method, params, timeout, limit_bytes).await,
            Transport::Http(http) => http.request(method, params, timeout, limit_bytes).await,
        }
    }

    async fn notify(&self, method: &str, params: &Value) {
        let message = message::write_notification(method, params);
        match &self.transport {
            Transport::Lines(lines) => lines.notify(&message),
            Transport::Http(http) => http.notify(&message).await,
        }
    }
}

fn client_info() -> Value {
    json!({"name": "mainstay", "version": env!("CARGO_PKG_VERSION")})
}

/// How a server without handshake answers `initialize`.
fn is_stateless(error: &RpcError) -> bool {
    matches!(error.code, UNSUPPORTED_VERSION | METHOD_NOT_FOUND)
}

/// What failed came before the call itself: the call never left.
fn not_sent(error: CallError) -> CallError {
    CallError::NotSent(error.to_string())
}
