//! One socket's loop: client messages in, frames out, pings between, an end with a reason.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hub::stream::{Frame, FrameId, FrameKind};
use hub::task::SubmitTask;
use hub::{Code, HubError};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::{NOTHING_YET, Resumed, id_text};
use crate::access::{self, Standing};
use crate::connection::Linger;
use crate::door::Door;
use crate::frames;

/// Tasks of one socket that have not ended.
pub(super) const MAX_OPEN: usize = 16;
/// Between pings. A client that answers none of two in a row is gone.
const PING: Duration = Duration::from_secs(30);
/// What a client has to take one frame.
const SEND: Duration = Duration::from_secs(20);

/// Why a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Closed or lost by the client.
    Gone,
    Silent,
    Slow,
    Stopping,
    /// The right to it was taken away.
    Lost,
    /// Of a message.
    TooLarge,
    NotUtf8,
}

impl End {
    /// Why nothing more can be read.
    fn of(error: axum::Error) -> Self {
        match error
            .into_inner()
            .downcast_ref::<tokio_tungstenite::tungstenite::Error>()
        {
            Some(tokio_tungstenite::tungstenite::Error::Capacity(_)) => Self::TooLarge,
            Some(tokio_tungstenite::tungstenite::Error::Utf8(_)) => Self::NotUtf8,
            _ => Self::Gone,
        }
    }
}

/// What a client may send.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
enum Said {
    Message { text: String },
}

/// A socket's session and the tasks whose frames it still gets.
pub(super) struct Conversation {
    door: Door,
    /// What each message is submitted with; the session is filled in by the first.
    base: SubmitTask,
    /// Id of the last frame that was sent.
    last: String,
    /// After a reconnect: what was seen of the first open task.
    resumed: Option<FrameId>,
    open: VecDeque<String>,
    frames: Option<BoxStream<'static, Frame>>,
    heard: bool,
    linger: Linger,
    /// What it is allowed by, where that can be taken away.
    standing: Option<Box<Standing>>,
}

impl Conversation {
    pub(super) fn new(door: Door, base: SubmitTask, resumed: Resumed, linger: Linger) -> Self {
        let first = resumed.tasks.first();
        let last = first
            .zip(resumed.last)
            .map(|(task, frame)| id_text(task, frame));
        Self {
            door,
            base,
            last: last.unwrap_or_else(|| NOTHING_YET.to_owned()),
            resumed: resumed.last,
            open: resumed.tasks.into(),
            frames: None,
            heard: true,
            linger,
            standing: None,
        }
    }

    pub(super) fn hold_by(&mut self, standing: Option<Standing>) {
        self.standing = standing.map(Box::new);
    }

    pub(super) async fn run(mut self: Box<Self>, mut socket: Box<WebSocket>) {
        let end = self.converse(&mut socket).await;
        let Some(frame) = farewell(end) else { return };
        if matches!(end, End::TooLarge | End::NotUtf8) {
            // What is left of the message would reset the connection before the reason is read.
            self.linger.ask();
        }
        // The client may not read it; then the socket is dropped all the same.
        let _ = timeout(
            Duration::from_secs(1),
            socket.send(Message::Close(Some(frame))),
        )
        .await;
    }

    async fn converse(&mut self, socket: &mut WebSocket) -> End {
        let mut ping_at = Instant::now() + PING;
        let mut review_at = Instant::now() + access::AGAIN;
        let mut stop = self.door.stop.clone();
        loop {
            let done = tokio::select! {
                message = socket.recv() => self.hear(socket, message).await,
                frame = next(&mut self.frames) => self.pass(socket, frame).await,
                () = std::future::ready(()), if self.frames.is_none() && !self.open.is_empty() => self.follow(socket).await,
                () = sleep_until(ping_at) => { ping_at += PING; self.ping(socket).await }
                () = sleep_until(review_at), if self.standing.is_some() => {
                    review_at = Instant::now() + access::AGAIN;
                    self.review().await
                }
                () = stop.raised() => Err(End::Stopping),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn review(&mut self) -> Result<(), End> {
        match &self.standing {
            Some(standing) if Box::pin(standing.is_lost()).await => Err(End::Lost),
            _ => Ok(()),
        }
    }

    async fn hear(
        &mut self,
        socket: &mut WebSocket,
        message: Option<Result<Message, axum::Error>>,
    ) -> Result<(), End> {
        self.heard = true;
        match message {
            Some(Ok(Message::Text(text))) => self.say(socket, &text).await,
            Some(Ok(Message::Binary(_))) => {
                self.error(socket, Code::Invalid.word(), "send text, as JSON")
                    .await
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Err(error)) => Err(End::of(error)),
            Some(Ok(Message::Close(_))) | None => Err(End::Gone),
        }
    }

    async fn say(&mut self, socket: &mut WebSocket, text: &str) -> Result<(), End> {
        self.review().await?;
        let result = match serde_json::from_str(text) {
            Ok(Said::Message { text }) => Box::pin(self.submit(text)).await,
            Err(e) => Err(HubError::new(
                Code::Invalid,
                format!("send {{\"type\": \"message\", \"text\": \"…\"}}: {e}"),
            )),
        };
        match result {
            Ok(()) => Ok(()),
            Err(e) => self.error(socket, e.code.word(), &e.message).await,
        }
    }

    async fn submit(&mut self, text: String) -> Result<(), HubError> {
        if self.open.len() >= MAX_OPEN {
            return Err(HubError::new(
                Code::QueueFull,
                format!("{MAX_OPEN} messages of this socket are unanswered"),
            ));
        }
        let task = self
            .door
            .hub
            .task_submit(SubmitTask {
                input: text.into(),
                ..self.base.clone()
            })
            .await?;
        self.base.session = Some(task.session);
        // The handshake's key, if there was one, was for the first message.
        self.base.idempotency_key = None;
        self.open.push_back(task.id);
        Ok(())
    }

    /// Starts on the frames of the oldest open task.
    async fn follow(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let Some(task) = self.open.front() else {
            return Ok(());
        };
        match Box::pin(frames::of_task(&self.door.hub, task, self.resumed)).await {
            Ok(frames) => self.frames = Some(frames),
            Err(e) => {
                self.leave_task();
                return self.error(socket, e.code.word(), &e.message).await;
            }
        }
        Ok(())
    }

    async fn pass(&mut self, socket: &mut WebSocket, frame: Option<Frame>) -> Result<(), End> {
        let Some(frame) = frame else {
            // A task that had nothing more to say, or a hub that is about to stop.
            self.leave_task();
            return if self.door.hub.is_stopping() {
                Err(End::Stopping)
            } else {
                Ok(())
            };
        };
        // An end may come twice, rather than be missed.
        let is_seen = self
            .resumed
            .is_some_and(|last| !frames::is_unseen(&frame, last));
        if !is_seen {
            let task = self.open.front().map_or("", String::as_str);
            self.last = id_text(task, frame.id);
        }
        if frame.kind.is_last() {
            self.leave_task();
        }
        if is_seen {
            return Ok(());
        }
        let text = frames::json_as(&self.last, &frame.kind);
        send(socket, Message::Text(text.into())).await
    }

    /// On to the next open task, of which nothing was seen.
    fn leave_task(&mut self) {
        self.frames = None;
        self.open.pop_front();
        self.resumed = None;
    }

    /// An error that belongs to no task; it repeats the last id, so `last=` stays right.
    async fn error(
        &mut self,
        socket: &mut WebSocket,
        code: &str,
        message: &str,
    ) -> Result<(), End> {
        let kind = FrameKind::Error {
            code: code.to_owned(),
            message: message.to_owned(),
        };
        let text = frames::json_as(&self.last, &kind);
        send(socket, Message::Text(text.into())).await
    }

    async fn ping(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        if !std::mem::take(&mut self.heard) {
            return Err(End::Silent);
        }
        send(socket, Message::Ping(bytes::Bytes::new())).await
    }
}

/// The next frame; never, while no task is followed.
async fn next(frames: &mut Option<BoxStream<'static, Frame>>) -> Option<Frame> {
    match frames {
        Some(frames) => frames.next().await,
        None => std::future::pending().await,
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match Box::pin(timeout(SEND, socket.send(message))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Slow),
    }
}

fn farewell(end: End) -> Option<CloseFrame> {
    let (code, reason) = match end {
        End::Gone => return None,
        End::Silent => (
            close_code::AWAY,
            "no answer to a ping; reconnect with last=",
        ),
        End::Slow => (
            close_code::POLICY,
            "frames were not read in time; reconnect with last=",
        ),
        End::Stopping => (
            close_code::RESTART,
            "the hub is stopping; reconnect with last=",
        ),
        End::Lost => (
            close_code::POLICY,
            "the right to talk to this agent was taken away",
        ),
        End::TooLarge => (
            close_code::SIZE,
            "a message has at most 1 MiB; reconnect with last=, and give longer work to /api/v1",
        ),
        End::NotUtf8 => (close_code::INVALID, "text is UTF-8; reconnect with last="),
    };
    Some(CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_socket_stays_small() {
        fn size<A, F: Future>(_: &impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let run = size(&|(talk, socket): (Box<Conversation>, Box<WebSocket>)| talk.run(socket));
        // Ours of the 4 KiB that an idle socket may cost; buffers and tokio's share come on top.
        let ours = run + size_of::<Conversation>() + size_of::<WebSocket>();
        assert!(ours <= 2048, "{ours} bytes");
    }

    #[test]
    fn a_message_is_its_type_and_text_and_nothing_else() {
        let Said::Message { text } =
            serde_json::from_str(r#"{"type": "message", "text": "hi"}"#).unwrap();
        assert_eq!(text, "hi");
        for bad in [
            r#"{"type": "message"}"#,
            r#"{"type": "chunk", "text": "x"}"#,
            r#"{"type": "message", "text": "x", "to": 1}"#,
            "hi",
            "[]",
        ] {
            assert!(serde_json::from_str::<Said>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_end_but_the_clients_own_tells_how_to_go_on() {
        assert!(farewell(End::Gone).is_none());
        for end in [
            End::Silent,
            End::Slow,
            End::Stopping,
            End::TooLarge,
            End::NotUtf8,
        ] {
            let frame = farewell(end).unwrap();
            assert!(frame.reason.contains("reconnect with last="));
            assert!(frame.reason.len() <= 123, "the protocol's limit");
        }
    }
}
