//! `/ws/{agent}`: a conversation over one WebSocket.
//!
//! Each message of the client is a task in the socket's session; their frames are sent in that
//! order, each task's to its last. Nothing is kept here that a reconnect would miss: frames lie in
//! the hub, and `last=ID` goes on after the one that was seen. A client that doesn't read is let
//! go, because frames wait in the socket and not in a queue of ours.
//! Thousands of sockets are idle at a time: what the idle state holds is kept small, and the rest
//! is boxed where it is used.

mod conversation;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::HeaderMap;
use hub::Hub;
use hub::stream::FrameId;
use serde::Deserialize;

use crate::auth::Author;
use crate::decode::{PathOf, QueryOf, session_name};
use crate::door::Door;
use crate::problem::Problem;
use crate::submit;
use conversation::{Conversation, MAX_OPEN};

/// The largest message of a client: text only; images go through the API.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Idle sockets are many, messages are short.
const READ_BUFFER_BYTES: usize = 256;

pub(crate) fn router() -> Router<Door> {
    Router::new().route("/ws/{agent}", get(connect))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    session: Option<String>,
    last: Option<String>,
    /// Read by `auth`; named so that it is not refused.
    #[serde(rename = "token")]
    _token: Option<String>,
}

async fn connect(
    State(door): State<Door>,
    PathOf(agent): PathOf<String>,
    QueryOf(opening): QueryOf<Opening>,
    Extension(author): Extension<Author>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| Problem::upgrade(rejection.body_text()))?;
    door.hub.agent_get(&agent).await?;
    let open = opening.open_tasks(&door.hub).await?;
    let base = hub::task::SubmitTask {
        agent,
        session: opening.session,
        ..submit::from_headers(&author, &headers)?
    };
    let conversation = Box::new(Conversation::new(door, base, open));
    let sized = upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    let small = sized
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0);
    Ok(small.on_upgrade(move |socket| Box::pin(conversation.run(Box::new(socket)))))
}

/// What a reconnecting client still has to see: its last frame, and the tasks that may hold more.
#[derive(Debug, Default)]
struct Resumed {
    last: Option<FrameId>,
    tasks: Vec<String>,
}

impl Opening {
    async fn open_tasks(&self, hub: &Hub) -> Result<Resumed, Problem> {
        self.session.as_deref().map_or(Ok(()), session_name)?;
        let Some(last) = &self.last else {
            return Ok(Resumed::default());
        };
        let last = last
            .parse()
            .map_err(|e| Problem::invalid(format!("last is {e}")))?;
        let Some(session) = &self.session else {
            return Err(Problem::invalid(
                "last needs the session whose frames go on",
            ));
        };
        let mut tasks = hub.session_get(session).await?.tasks;
        // As many as can have been open when the connection was lost.
        let recent = tasks.split_off(tasks.len().saturating_sub(MAX_OPEN));
        Ok(Resumed {
            last: Some(last),
            tasks: recent,
        })
    }
}
