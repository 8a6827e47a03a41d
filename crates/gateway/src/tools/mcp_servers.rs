//! MCP servers that the fleet names: one client each, opened when it is needed and anew when it
//! is gone, with the server's list of tools remembered for a while.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::fleet::{KeyPlace, Tool, ToolKind};
use contract::Versions;
use contract::frame::{Decoder, encode};
use contract::shim::{FromShim, Role, ToShim};
use hub::Hub;
use hub::step::Effect;
use mcp::{Call, CallError, Client};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::ToolCall;
use super::result::{self, Made};
use crate::Gateway;
use crate::outgoing::Outgoing;

/// The handshake and the list of tools have so long.
const OPENING: Duration = Duration::from_secs(20);
/// A list is read again after so long: not every server tells when it changes.
const LIST_FRESH: Duration = Duration::from_secs(60);
/// A server that is just being started is waited for.
const STARTING: Duration = Duration::from_secs(15);
const STARTING_LOOK: Duration = Duration::from_millis(100);
/// A server that left a call unanswered is asked whether it is there, and has so long to say so.
const STILL_THERE: Duration = Duration::from_secs(20);
/// Where a keyed call of a server without an argument for it carries the step's id.
const STEP_META: &str = "mainstay.dev/step";

struct Listed {
    at: Instant,
    changes: u64,
    tools: Arc<Vec<mcp::Tool>>,
}

#[derive(Default)]
struct Server {
    client: AsyncMutex<Option<Arc<Client>>>,
    listed: Mutex<Option<Listed>>,
    /// Somebody is asking whether it is there.
    doubted: AtomicBool,
}

/// All servers, by their place in the fleet and their address.
pub struct McpServers {
    http: Outgoing,
    servers: Mutex<HashMap<String, Arc<Server>>>,
}

impl McpServers {
    #[must_use]
    pub(crate) fn new(http: Outgoing) -> Self {
        Self {
            http,
            servers: Mutex::default(),
        }
    }

    /// The server's tools. A list that was read before serves while the server can't be asked.
    pub(super) async fn tools(
        &self,
        hub: &Hub,
        tool: &Tool,
    ) -> Result<Arc<Vec<mcp::Tool>>, CallError> {
        let server = self.server(tool);
        if let Some(fresh) = server.known(true).await {
            return Ok(fresh);
        }
        match self.read_list(hub, tool, &server).await {
            Ok(tools) => Ok(tools),
            Err(error) => server.known(false).await.ok_or(error),
        }
    }

    async fn read_list(
        &self,
        hub: &Hub,
        tool: &Tool,
        server: &Arc<Server>,
    ) -> Result<Arc<Vec<mcp::Tool>>, CallError> {
        if let ToolKind::McpHttp { url, .. } = &tool.kind {
            // Waiting changes nothing there.
            self.client_to(url)?;
        }
        let patience = Instant::now() + STARTING;
        let known = server.known(false).await.is_some();
        loop {
            let read = async {
                let client = self.client(hub, tool, server).await?;
                let tools = client.list_tools(OPENING).await;
                doubt(hub, tool, server, &client, &tools);
                Ok((tools?, client.tool_changes()))
            };
            match read.await {
                Ok((tools, changes)) => {
                    let tools = Arc::new(tools);
                    let listed = Listed {
                        at: Instant::now(),
                        changes,
                        tools: tools.clone(),
                    };
                    *server.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(listed);
                    return Ok(tools);
                }
                Err(CallError::NotSent(_) | CallError::Unanswered(_))
                    if !known && Instant::now() < patience =>
                {
                    tokio::time::sleep(STARTING_LOOK).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn call(&self, hub: &Hub, tool: &Tool, call: &Call) -> Result<Value, CallError> {
        let server = self.server(tool);
        let client = self
            .client(hub, tool, &server)
            .await
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        let answer = client.call_tool(call).await;
        doubt(hub, tool, &server, &client, &answer);
        answer
    }

    /// The open client, or a new one. One caller opens, the others wait for it.
    async fn client(
        &self,
        hub: &Hub,
        tool: &Tool,
        server: &Server,
    ) -> Result<Arc<Client>, CallError> {
        let mut slot = server.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = Arc::new(self.open(hub, tool).await?);
        *slot = Some(client.clone());
        Ok(client)
    }

    fn client_to(&self, url: &str) -> Result<&reqwest::Client, CallError> {
        let client = self.http.to(url);
        client.map_err(|refused| CallError::NotSent(refused.to_string()))
    }

    async fn open(&self, hub: &Hub, tool: &Tool) -> Result<Client, CallError> {
        match &tool.kind {
            ToolKind::McpHttp { url, credential } => {
                let (hub, credential) = (hub.clone(), credential.clone());
                let bearer = Arc::new(move || match &credential {
                    Some(credential) => hub
                        .secret(credential)
                        .map(Some)
                        .map_err(|error| error.to_string()),
                    None => Ok(None),
                });
                let http = self.client_to(url)?.clone();
                Client::over_http(http, url.clone(), bearer, OPENING).await
            }
            _ => {
                let path = hub
                    .mcp_bridge(&tool.registry, &tool.name)
                    .ok_or_else(|| CallError::NotSent("the server is not running".into()))?;
                let (stream, early) = tokio::time::timeout(OPENING, bridge(&path))
                    .await
                    .unwrap_or_else(|_| Err("its shim does not answer".into()))
                    .map_err(CallError::NotSent)?;
                let (reader, writer) = stream.into_split();
                Client::over_lines(reader, writer, early, OPENING).await
            }
        }
    }

    fn server(&self, tool: &Tool) -> Arc<Server> {
        let key = match &tool.kind {
            // The credential's place, never the credential.
            ToolKind::McpHttp { url, credential } => {
                format!("{}/{} {url} {credential:?}", tool.registry, tool.name)
            }
            _ => format!("{}/{}", tool.registry, tool.name),
        };
        self.servers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone()
    }
}

/// A request that ran into its time makes a server of ours one to look at.
fn doubt<T>(
    hub: &Hub,
    tool: &Tool,
    server: &Arc<Server>,
    client: &Arc<Client>,
    answer: &Result<T, CallError>,
) {
    let is_ours = matches!(tool.kind, ToolKind::McpStdio { .. });
    if is_ours && matches!(answer, Err(CallError::TimedOut { .. })) {
        let instance = format!("{}-{}-0", tool.registry, tool.name);
        let (hub, server, client) = (hub.clone(), Arc::clone(server), Arc::clone(client));
        tokio::spawn(restart_if_stuck(hub, instance, server, client));
    }
}

/// A slow call is the tool's matter. A server that answers no ping either would keep every later
/// call waiting, whosever it is: it is started anew.
async fn restart_if_stuck(hub: Hub, instance: String, server: Arc<Server>, client: Arc<Client>) {
    if server.doubted.swap(true, Ordering::SeqCst) {
        return;
    }
    if !client.is_closed() && !client.is_responsive(STILL_THERE).await && !client.is_closed() {
        let seconds = STILL_THERE.as_secs();
        tracing::warn!(
            instance,
            "a tool server left a call unanswered and answers no ping within {seconds} s: it is started anew"
        );
        if let Err(error) = hub.agent_restart(&instance).await {
            tracing::warn!(%error, instance, "failed to restart a tool server");
        }
    }
    server.doubted.store(false, Ordering::SeqCst);
}

impl Server {
    /// The list that was read before; only while it is fresh, if that is asked.
    async fn known(&self, fresh: bool) -> Option<Arc<Vec<mcp::Tool>>> {
        let changes = match self.client.lock().await.as_ref() {
            Some(client) if !client.is_closed() => client.tool_changes(),
            // A server that was started anew may list other tools.
            _ if fresh => return None,
            _ => 0,
        };
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = listed.as_ref()?;
        let is_fresh = listed.at.elapsed() < LIST_FRESH && listed.changes == changes;
        (!fresh || is_fresh).then(|| listed.tools.clone())
    }
}

/// Opens the line to a stdio server through its shim; returns what the shim sent beyond its hello.
async fn bridge(path: &Path) -> Result<(UnixStream, Vec<u8>), String> {
    let mut stream = UnixStream::connect(path)
        .await
        .map_err(|error| error.to_string())?;
    let hello = ToShim::Hello {
        versions: Versions::OURS,
        role: Role::Bridge,
    };
    let hello = encode(&hello).map_err(|error| error.to_string())?;
    stream
        .write_all(&hello)
        .await
        .map_err(|error| error.to_string())?;
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        match decoder
            .next::<FromShim>()
            .map_err(|error| error.to_string())?
        {
            Some(FromShim::Hello { versions, .. }) => {
                Versions::OURS
                    .agree(versions)
                    .ok_or("the shim speaks no version of ours")?;
                return Ok((stream, decoder.into_rest()));
            }
            Some(_) => {}
            None => match stream
                .read(&mut chunk)
                .await
                .map_err(|error| error.to_string())?
            {
                0 => return Err("the shim closed the connection".into()),
                count => decoder.push(&chunk[..count]),
            },
        }
    }
}

pub(super) async fn call(gateway: &Arc<Gateway>, call: &ToolCall, step_id: &str) -> Made {
    let limit_bytes = usize::try_from(call.tool.result_bytes).unwrap_or(usize::MAX);
    let request = Call {
        name: call
            .server_tool
            .clone()
            .unwrap_or_else(|| call.exposed.clone()),
        arguments: keyed_arguments(call, step_id),
        meta: meta(call, step_id),
        timeout: Duration::from_millis(call.tool.timeout_ms),
        limit_bytes: limit_bytes.saturating_add(4096),
    };
    match gateway
        .mcp_servers
        .call(&gateway.hub, &call.tool, &request)
        .await
    {
        Ok(result) => bounded(result, limit_bytes),
        Err(error) => without_result(error, limit_bytes),
    }
}

fn is_keyed(call: &ToolCall) -> bool {
    call.effect == Effect::Keyed
}

fn keyed_arguments(call: &ToolCall, step_id: &str) -> Value {
    let mut arguments = call.arguments.clone();
    if let (true, Some(KeyPlace::Argument(name))) = (is_keyed(call), &call.tool.key) {
        arguments[name.as_str()] = Value::from(step_id);
    }
    arguments
}

fn meta(call: &ToolCall, step_id: &str) -> Map<String, Value> {
    let mut meta = Map::new();
    if is_keyed(call) {
        meta.insert(STEP_META.to_owned(), Value::from(step_id));
    }
    meta
}

fn bounded(result: Value, limit_bytes: usize) -> Made {
    let is_error = result.get("isError").and_then(Value::as_bool) == Some(true);
    match result::within(result, limit_bytes) {
        Some(result) => Made::Answer { result, is_error },
        None => result::too_large(limit_bytes, ""),
    }
}

fn without_result(error: CallError, limit_bytes: usize) -> Made {
    match error {
        CallError::NotSent(_) | CallError::SessionEnded => Made::NotSent(error.to_string()),
        CallError::TimedOut { .. } => Made::Unanswered {
            message: error.to_string(),
            timed_out: true,
        },
        CallError::Unanswered(_) => Made::Unanswered {
            message: error.to_string(),
            timed_out: false,
        },
        // What answers but makes no sense has been called all the same.
        CallError::TooLarge { .. } => result::too_large(limit_bytes, ""),
        CallError::Status { .. } | CallError::Rpc(_) | CallError::Unreadable(_) => {
            Made::error(&error.to_string())
        }
    }
}
