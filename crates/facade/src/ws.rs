//! `/ws/{agent}`: a conversation over one WebSocket.
//!
//! Each message of the client is a task in the socket's session; their frames are sent in that
//! order, each task's to its last. Nothing is kept here that a reconnect would miss: frames lie in
//! the hub, and `last=ID` goes on after the one that was seen. An id names task and frame, since
//! several tasks of a session may be under way and number their frames alike. A client that doesn't read is let
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

use crate::access::Standing;
use crate::auth::Author;
use crate::connection::Linger;
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

/// Who asks, on which connection, and by which right if that can be taken away.
type About = (
    Extension<Author>,
    Extension<Linger>,
    Option<Extension<Standing>>,
);

async fn connect(
    State(door): State<Door>,
    PathOf(agent): PathOf<String>,
    QueryOf(opening): QueryOf<Opening>,
    (Extension(author), Extension(linger), standing): About,
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
    // Its agent is scaled by those that are open.
    let counted = door.hub.converse(&base.agent);
    let mut conversation = Box::new(Conversation::new(door, base, open, linger));
    conversation.hold_by(standing.map(|Extension(standing)| standing));
    let sized = upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    let small = sized
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0);
    Ok(small.on_upgrade(move |socket| {
        Box::pin(async move {
            conversation.run(Box::new(socket)).await;
            drop(counted);
        })
    }))
}

/// The id before the first frame.
const NOTHING_YET: &str = "0-0";

/// A frame's id on a WebSocket.
fn id_text(task: &str, frame: FrameId) -> String {
    format!("{task}.{frame}")
}

/// What a reconnecting client still has to see: the tasks that may hold more, and what it saw of
/// the first of them.
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
        let Some(session) = &self.session else {
            return Err(Problem::invalid(
                "last needs the session whose frames go on",
            ));
        };
        let tasks = hub.session_get(session).await?.tasks;
        resumed(tasks, last).ok_or_else(|| {
            Problem::invalid(format!("last is no id of a frame of session {session}"))
        })
    }
}

/// The task of the last frame and those behind it; `None` if there is no such task.
fn resumed(mut tasks: Vec<String>, last: &str) -> Option<Resumed> {
    let (mut from, mut seen) = (0, None);
    if last != NOTHING_YET {
        let (task, frame) = last.split_once('.')?;
        from = tasks.iter().position(|known| known == task)?;
        seen = Some(frame.parse().ok()?);
    }
    // As many as can have been open when the connection was lost.
    let newest = tasks.len().saturating_sub(MAX_OPEN);
    Some(Resumed {
        last: seen.filter(|_| from >= newest),
        tasks: tasks.split_off(from.max(newest)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(number: usize) -> Vec<String> {
        (0..number).map(|n| format!("t{n}")).collect()
    }

    #[test]
    fn a_reconnect_goes_on_in_the_task_of_the_last_frame_and_behind_it() {
        let resumed = resumed(tasks(3), "t1.12-3").unwrap();
        assert_eq!(resumed.tasks, ["t1", "t2"]);
        assert_eq!(resumed.last, Some(FrameId { seq: 12, k: 3 }));
    }

    #[test]
    fn no_more_tasks_go_on_than_a_socket_may_have_open() {
        let first = resumed(tasks(40), "t0.1-0").unwrap();
        assert_eq!((first.tasks.len(), first.last), (MAX_OPEN, None));
        assert_eq!(first.tasks[0], "t24");
        let nothing = resumed(tasks(2), NOTHING_YET).unwrap();
        assert_eq!((nothing.tasks.len(), nothing.last), (2, None));
    }

    #[test]
    fn an_id_of_nothing_is_no_id() {
        for wrong in ["", "1-0", "t9.1-0", "t0", "t0.x", "t0.1"] {
            assert!(resumed(tasks(2), wrong).is_none(), "{wrong}");
        }
        assert_eq!(id_text("t0", FrameId { seq: 1, k: 2 }), "t0.1-2");
    }
}
