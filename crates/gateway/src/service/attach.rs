//! A service of protocol `attach`: it dials in, and tasks go out over its WebSocket. The messages
//! are `contract::attach`'s; `docs/reference/contract.md` shows them to agents' authors.
//!
//! One connection for each instance: a newer one replaces the older. A connection that says
//! nothing for [`SILENCE`] in spite of pings is closed, and its tasks' attempts are lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::fleet::{Runtime, ServiceProtocol};
use contract::Versions;
use contract::attach::{FromAgent, HELLO, MAX_MESSAGE_BYTES, PING, SILENCE, ToAgent};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, header};
use hub::caller::Caller;
use hub::service::ServiceCall;
use hub::{Code, HubError, Refusal};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::Ended;
use crate::Gateway;
use crate::door::Door;
use crate::reply::{self, Reply};

/// Messages that wait for a slow agent, and for a task's own reader.
const QUEUE: usize = 64;

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Tasks = Arc<Mutex<HashMap<String, mpsc::Sender<FromAgent>>>>;

#[derive(Clone)]
struct Link {
    number: u64,
    outgoing_tx: mpsc::Sender<ToAgent>,
    tasks: Tasks,
}

/// The connections, by instance.
#[derive(Default)]
pub struct Attached {
    links: Mutex<HashMap<String, Link>>,
    next: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves its value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `GET /attach`: turns the connection into a WebSocket.
pub async fn open(
    gateway: &Arc<Gateway>,
    door: &Door,
    request: &mut Request<Incoming>,
) -> Result<Reply, Refusal> {
    let caller = door.identify(gateway).await?;
    let attaches = matches!(
        caller.agent.runtime,
        Runtime::Service {
            protocol: ServiceProtocol::Attach,
            ..
        }
    );
    if !attaches {
        let message = "only a service with protocol: attach is given tasks here";
        return Err(HubError::new(Code::NotAllowed, message));
    }
    let is_upgrade = door
        .header("upgrade")
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let key = door
        .header("sec-websocket-key")
        .filter(|_| is_upgrade)
        .ok_or_else(|| {
            HubError::new(
                Code::Invalid,
                "this is a WebSocket: connect with ws:// and the token as Authorization: Bearer",
            )
        })?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| HubError::new(Code::Invalid, "the WebSocket key is not readable"))?;
    let upgrade = hyper::upgrade::on(request);
    let gateway = gateway.clone();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => serve(&gateway, &caller, upgraded).await,
            Err(error) => tracing::debug!(%error, "an attach connection was not upgraded"),
        }
    });
    let mut reply = reply::empty(101);
    reply
        .headers_mut()
        .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    reply
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    reply
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(reply)
}

async fn serve(gateway: &Gateway, caller: &Caller, upgraded: Upgraded) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    match tokio::time::timeout(HELLO, greet(&mut socket)).await {
        Ok(Ok(())) => {}
        Ok(Err(message)) => return close(socket, &message).await,
        Err(_) => return close(socket, "no hello came").await,
    }
    let (outgoing_tx, outgoing_rx) = mpsc::channel(QUEUE);
    let number = gateway.attached.next.fetch_add(1, Ordering::Relaxed);
    let link = Link {
        number,
        outgoing_tx,
        tasks: Tasks::default(),
    };
    let tasks = link.tasks.clone();
    // A newer connection replaces the older: the older one's tasks lose their way out.
    if let Some(older) = lock(&gateway.attached.links).insert(caller.instance.clone(), link) {
        lock(&older.tasks).clear();
    }
    gateway.hub.service_attached(caller, true);
    let why = converse(&mut socket, outgoing_rx, &tasks).await;
    tracing::debug!(
        instance = caller.instance,
        why,
        "an attached service went away"
    );
    gateway.attached.detach(gateway, caller, number);
    // Their readers see the end.
    lock(&tasks).clear();
    close(socket, &why).await;
}

impl Attached {
    fn detach(&self, gateway: &Gateway, caller: &Caller, number: u64) {
        let mut links = lock(&self.links);
        if links
            .get(&caller.instance)
            .is_some_and(|link| link.number == number)
        {
            links.remove(&caller.instance);
            drop(links);
            gateway.hub.service_attached(caller, false);
        }
    }
}

async fn greet(socket: &mut Socket) -> Result<(), String> {
    loop {
        match read(socket.next().await)? {
            Some(FromAgent::Hello { versions }) => {
                Versions::OURS
                    .agree(versions)
                    .ok_or("the agent and the hub speak no common version")?;
                return send(
                    socket,
                    &ToAgent::Hello {
                        versions: Versions::OURS,
                    },
                )
                .await;
            }
            Some(_) => return Err("the first message is hello".into()),
            None => {}
        }
    }
}

/// Carries messages both ways until one side is gone; says why.
async fn converse(
    socket: &mut Socket,
    mut outgoing_rx: mpsc::Receiver<ToAgent>,
    tasks: &Tasks,
) -> String {
    let mut ping = tokio::time::interval(PING);
    let mut heard = Instant::now();
    loop {
        let step = tokio::select! {
            message = outgoing_rx.recv() => match message {
                Some(message) => send(socket, &message).await,
                None => Err("a newer connection took over".into()),
            },
            incoming = socket.next() => {
                heard = Instant::now();
                match read(incoming) {
                    Ok(Some(FromAgent::Ping)) => send(socket, &ToAgent::Pong).await,
                    Ok(Some(message)) => { dispatch(tasks, message).await; Ok(()) }
                    Ok(None) => Ok(()),
                    Err(why) => Err(why),
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE { Err("it fell silent".into()) }
                else { socket.send(Message::Ping(Vec::new().into())).await.map_err(|error| error.to_string()) }
            }
        };
        if let Err(why) = step {
            return why;
        }
    }
}

/// Hands a message to its task. One for a task that is no longer this connection's is ignored.
async fn dispatch(tasks: &Tasks, message: FromAgent) {
    let task = match &message {
        FromAgent::Chunk { task, .. }
        | FromAgent::Done { task, .. }
        | FromAgent::Fail { task, .. } => task.clone(),
        FromAgent::Hello { .. } | FromAgent::Ping | FromAgent::Unknown => return,
    };
    let reader = lock(tasks).get(&task).cloned();
    if let Some(reader) = reader {
        // Its reader never waits for anything but this.
        let _ = reader.send(message).await;
    }
}

fn read(
    incoming: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<Option<FromAgent>, String> {
    match incoming {
        None | Some(Ok(Message::Close(_))) => Err("it closed the connection".into()),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| format!("a message is not readable: {error}")),
        Some(Ok(Message::Binary(_))) => Err("messages are text frames".into()),
        Some(Ok(_)) => Ok(None),
    }
}

async fn send(socket: &mut Socket, message: &ToAgent) -> Result<(), String> {
    let text = serde_json::to_string(message).map_err(|error| error.to_string())?;
    let sent = tokio::time::timeout(SILENCE, socket.send(Message::Text(text.into()))).await;
    match sent {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_) => Err("it reads nothing".into()),
    }
}

async fn close(mut socket: Socket, why: &str) {
    let _ = send(
        &mut socket,
        &ToAgent::Error {
            message: why.to_owned(),
        },
    )
    .await;
    let _ = tokio::time::timeout(HELLO, socket.close(None)).await;
}

/// Gives a task to the instance's connection and waits for its end.
pub(super) async fn deliver(attached: &Attached, call: &ServiceCall) -> Ended {
    let link = lock(&attached.links).get(&call.instance).cloned();
    let Some(link) = link else {
        return Ended::Lost("the service is not attached".into());
    };
    let Value::Object(body) = call.body.clone() else {
        return Ended::Lost("the task is no object".into());
    };
    let task = call.attempt.task().to_owned();
    let (reader_tx, mut reader_rx) = mpsc::channel(QUEUE);
    lock(&link.tasks).insert(task.clone(), reader_tx);
    let mut given = Given {
        link: &link,
        task: &task,
        ended: false,
    };
    if link.outgoing_tx.send(ToAgent::Task { body }).await.is_err() {
        return Ended::Lost("the service went away".into());
    }
    let ended = loop {
        match reader_rx.recv().await {
            Some(FromAgent::Chunk { text, .. }) => call.attempt.chunk(&text),
            Some(FromAgent::Done { output, .. }) => break done(output),
            Some(FromAgent::Fail { message, .. }) => {
                break Ended::Failed(mcp::message::bounded(&message, 4096));
            }
            Some(_) => {}
            None => break Ended::Lost("the service went away".into()),
        }
    };
    given.ended = true;
    ended
}

fn done(output: Value) -> Ended {
    match output {
        Value::String(text) => Ended::Done {
            content_type: "text/plain",
            output: text.into_bytes(),
        },
        other => Ended::Done {
            content_type: "application/json",
            output: other.to_string().into_bytes(),
        },
    }
}

/// A task at a connection. Dropped before its end, the agent is told to stop.
struct Given<'a> {
    link: &'a Link,
    task: &'a str,
    ended: bool,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        lock(&self.link.tasks).remove(self.task);
        if !self.ended {
            // A queue that is full belongs to an agent that reads nothing; it is about to be closed.
            let _ = self.link.outgoing_tx.try_send(ToAgent::Cancel {
                task: self.task.to_owned(),
            });
        }
    }
}
