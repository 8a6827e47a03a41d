//! What clients see while a task runs: a bounded ring of frames per task.
//!
//! A frame's id is the log size when it was made and a counter behind it, so ids keep their order
//! over a hub's restart and a client can reconnect with the last it saw.
//!
//! `restart` voids what was said. What steps said goes on being true after an agent's death, since
//! the next attempt gets the same answers: it is said again behind the `restart`, so that a client
//! that puts chunks together has the whole text.

use std::collections::{HashMap, VecDeque};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::shared::lock;
use crate::view::{EntryView, ErrorView, TaskView};
use crate::{Hub, HubError};

/// Position of a frame: `seq-k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FrameId {
    pub seq: u64,
    pub k: u64,
}

impl std::fmt::Display for FrameId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.seq, self.k)
    }
}

/// The text is not a frame id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame id such as `12-0`")]
pub struct NotAFrameId;

impl FromStr for FrameId {
    type Err = NotAFrameId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (seq, k) = text.split_once('-').ok_or(NotAFrameId)?;
        Ok(Self {
            seq: seq.parse().map_err(|_| NotAFrameId)?,
            k: k.parse().map_err(|_| NotAFrameId)?,
        })
    }
}

/// One frame of a task's stream. Clients know its `type` words, which never change.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum FrameKind {
    /// A turn's input, as it stands in the session.
    Message {
        role: &'static str,
        text: String,
    },
    Chunk {
        text: String,
    },
    ToolCall {
        step: u32,
        name: String,
        arguments: serde_json::Value,
    },
    ToolResult {
        step: u32,
        name: String,
        result: String,
        #[serde(rename = "isError")]
        is_error: bool,
    },
    /// The task waits for a person.
    Question {
        step: Option<u32>,
        reason: String,
        text: String,
    },
    Done {
        task: Box<TaskView>,
    },
    Error {
        code: String,
        message: String,
    },
    /// Text already sent is void: a new attempt begins.
    Restart,
}

/// A frame with its id.
#[derive(Clone, Debug)]
pub struct Frame {
    pub id: FrameId,
    pub kind: FrameKind,
}

impl FrameKind {
    /// Nothing follows it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error { .. })
    }
}

/// What the writer publishes.
pub(crate) enum Published {
    Frame(FrameKind),
    /// The task has ended: `Done` with its view, made when it is read.
    Ended,
    /// An ended task goes on: what was said of its end is void.
    Again,
}

/// Frames kept per task, and their text in bytes.
const MAX_FRAMES: usize = 2048;
const MAX_BYTES: usize = 1024 * 1024;
/// Rings kept; the oldest ended ones go first. Readers hold theirs, and are bounded themselves.
const MAX_RINGS: usize = 2048;

#[derive(Default)]
struct Ring {
    frames: VecDeque<(FrameId, Kept)>,
    bytes: usize,
    /// Id of the newest frame that was dropped.
    dropped: Option<FrameId>,
    ended: bool,
    last: FrameId,
    has_text: bool,
    /// What each call to a model said so far, in order; nothing any more once it was too long.
    said: Vec<Said>,
    said_too_much: bool,
}

/// The text of one call: a step's number, and which of its tries.
struct Said {
    call: (u32, u64),
    text: String,
}

#[derive(Clone)]
enum Kept {
    Frame(FrameKind),
    Ended,
}

impl Ring {
    /// A ring that begins in the middle of a task does not know what an earlier hub said: void it,
    /// with an id newer than any of that hub's.
    fn begin(&mut self, newest: u64) {
        if self.last == FrameId::default() {
            self.push(newest, Kept::Frame(FrameKind::Restart));
        }
    }

    /// Voids what was said, and says again what still holds.
    fn restart(&mut self, size: u64) {
        self.push(size, Kept::Frame(FrameKind::Restart));
        let text: String = self.said.iter().map(|said| said.text.as_str()).collect();
        self.has_text = !text.is_empty();
        if self.has_text {
            self.push(size, Kept::Frame(FrameKind::Chunk { text }));
        }
    }

    /// Remembers what a call says; a new try of a step takes the place of the one before.
    fn remember(&mut self, call: (u32, u64), text: &str, size: u64) {
        let other_try = |said: &Said| said.call.0 == call.0 && said.call.1 != call.1;
        if self.said.iter().any(other_try) {
            self.said.retain(|said| !other_try(said));
            self.restart(size);
        }
        let bytes: usize = self.said.iter().map(|said| said.text.len()).sum();
        self.said_too_much |= bytes + text.len() > MAX_BYTES;
        if self.said_too_much {
            self.said.clear();
            return;
        }
        match self.said.iter_mut().find(|said| said.call == call) {
            Some(said) => said.text.push_str(text),
            None => self.said.push(Said {
                call,
                text: text.to_owned(),
            }),
        }
    }

    fn push(&mut self, size: u64, kept: Kept) {
        let id = if size > self.last.seq {
            FrameId { seq: size, k: 0 }
        } else {
            FrameId {
                seq: self.last.seq,
                k: self.last.k + 1,
            }
        };
        self.last = id;
        self.bytes += weight(&kept);
        self.ended |=
            matches!(&kept, Kept::Ended) || matches!(&kept, Kept::Frame(frame) if frame.is_last());
        self.frames.push_back((id, kept));
        while self.frames.len() > MAX_FRAMES || self.bytes > MAX_BYTES {
            let Some((id, kept)) = self.frames.pop_front() else {
                break;
            };
            self.bytes -= weight(&kept);
            self.dropped = Some(id);
        }
    }
}

impl Ring {
    fn has_message(&self) -> bool {
        matches!(
            self.frames.front(),
            Some((_, Kept::Frame(FrameKind::Message { .. })))
        )
    }

    /// Forgets all but the question: who reads from the start must not stop at an end that was none.
    fn reopen(&mut self) {
        self.ended = false;
        self.frames
            .retain(|(_, kept)| matches!(kept, Kept::Frame(FrameKind::Message { .. })));
        self.bytes = self.frames.iter().map(|(_, kept)| weight(kept)).sum();
    }
}

fn weight(kept: &Kept) -> usize {
    match kept {
        Kept::Frame(FrameKind::Chunk { text } | FrameKind::Message { text, .. }) => text.len(),
        Kept::Frame(FrameKind::ToolResult { result, .. }) => result.len(),
        Kept::Frame(FrameKind::ToolCall { arguments, .. }) => arguments.to_string().len(),
        _ => 64,
    }
}

/// All rings, and the feed of committed log sizes.
pub(crate) struct Streams {
    rings: Mutex<HashMap<String, Arc<Channel>>>,
    size: watch::Sender<u64>,
}

#[derive(Default)]
struct Channel {
    ring: Mutex<Ring>,
    changed: Notify,
}

impl Streams {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            rings: Mutex::default(),
            size: watch::Sender::new(size),
        }
    }

    /// The log has grown to this size.
    pub(crate) fn committed(&self, size: u64) {
        self.size.send_replace(size);
    }

    /// Follows the log's size.
    pub(crate) fn sizes(&self) -> watch::Receiver<u64> {
        self.size.subscribe()
    }

    pub(crate) fn publish(&self, task: &str, size: u64, published: Published) {
        let channel = self.channel(task);
        let mut ring = lock(&channel.ring);
        if !matches!(published, Published::Frame(FrameKind::Message { .. })) {
            ring.begin(size);
        }
        match published {
            // Void only if something was said.
            Published::Frame(FrameKind::Restart) if !ring.has_text => return,
            Published::Frame(FrameKind::Restart) => ring.restart(size),
            Published::Frame(frame) => ring.push(size, Kept::Frame(frame)),
            Published::Ended => ring.push(size, Kept::Ended),
            Published::Again => {
                ring.reopen();
                ring.restart(size);
            }
        }
        if ring.ended {
            ring.said = Vec::new();
        }
        drop(ring);
        channel.changed.notify_waiters();
    }

    /// Text of the answer as it comes; not durable. `call` names the step and which of its tries
    /// says it; without it the text is the attempt's own, and void with the attempt.
    pub(crate) fn chunk(&self, task: &str, call: Option<(u32, u64)>, text: &str) {
        let newest = *self.size.borrow();
        let channel = self.channel(task);
        let mut ring = lock(&channel.ring);
        ring.begin(newest + 1);
        let size = ring.last.seq;
        if let Some(call) = call {
            ring.remember(call, text, size);
        }
        ring.has_text = true;
        ring.push(
            size,
            Kept::Frame(FrameKind::Chunk {
                text: text.to_owned(),
            }),
        );
        drop(ring);
        channel.changed.notify_waiters();
    }

    fn channel(&self, task: &str) -> Arc<Channel> {
        let mut rings = lock(&self.rings);
        if rings.len() >= MAX_RINGS && !rings.contains_key(task) {
            // Ended ones first, then the quietest that nobody reads: one that is wanted again
            // begins anew with what the log knows.
            let unread = rings
                .iter()
                .filter(|(_, channel)| Arc::strong_count(channel) == 1);
            let oldest = unread
                .min_by_key(|(_, channel)| {
                    let ring = lock(&channel.ring);
                    (!ring.ended, ring.last)
                })
                .map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                rings.remove(&oldest);
            }
        }
        Arc::clone(rings.entry(task.to_owned()).or_default())
    }
}

/// Frames of one task; `None` after the last.
pub struct FrameStream {
    hub: Hub,
    task: String,
    channel: Arc<Channel>,
    last: Option<FrameId>,
    ended: bool,
}

impl FrameStream {
    /// The next frame. A reader that fell behind the ring is told to start again.
    pub async fn next(&mut self) -> Option<Frame> {
        if self.ended {
            return None;
        }
        loop {
            let channel = Arc::clone(&self.channel);
            let notified = channel.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some((id, kept)) = self.take() {
                self.last = Some(id);
                let kind = match kept {
                    Kept::Frame(kind) => kind,
                    Kept::Ended => FrameKind::Done {
                        task: Box::new(self.hub.task_get(&self.task).await.ok()?),
                    },
                };
                self.ended = kind.is_last();
                return Some(Frame { id, kind });
            }
            notified.await;
        }
    }

    fn take(&self) -> Option<(FrameId, Kept)> {
        let ring = lock(&self.channel.ring);
        if let Some(dropped) = ring.dropped
            && self.last.is_some_and(|last| last < dropped)
        {
            return Some((dropped, Kept::Frame(FrameKind::Restart)));
        }
        ring.frames
            .iter()
            .find(|(id, _)| self.last.is_none_or(|last| *id > last))
            .cloned()
    }
}

impl Hub {
    /// A task's frames after `last`; from the first the hub still has when left out.
    pub async fn task_frames(
        &self,
        id: &str,
        last: Option<FrameId>,
    ) -> Result<FrameStream, HubError> {
        let view = self.task_get(id).await?;
        let seq = self.task_seq(id).await?;
        let channel = self.shared.streams.channel(id);
        self.seed(&channel, &view, seq);
        // After a hub's restart the ring begins with what the log knows, which is newer than
        // anything the client has seen; a last frame it has seen already is sent again.
        let last = last.filter(|last| {
            let ring = lock(&channel.ring);
            !(ring.ended && *last >= ring.last)
        });
        Ok(FrameStream {
            hub: self.clone(),
            task: id.to_owned(),
            channel,
            last,
            ended: false,
        })
    }

    /// What a hub that did not see the task begin can tell of it.
    fn seed(&self, channel: &Channel, view: &TaskView, seq: u64) {
        let mut ring = lock(&channel.ring);
        if ring.dropped.is_some() || ring.has_message() {
            return;
        }
        let text = view
            .input
            .as_str()
            .map_or_else(|| view.input.to_string(), ToOwned::to_owned);
        let message = Kept::Frame(FrameKind::Message { role: "user", text });
        if !ring.frames.is_empty() {
            // Begun by what the task does since this hub runs.
            ring.bytes += weight(&message);
            ring.frames.push_front((FrameId::default(), message));
            return;
        }
        ring.push(seq, message);
        let kept = match view.state.as_str() {
            "failed" => {
                let error = view.error.clone().unwrap_or(ErrorView {
                    code: String::new(),
                    message: String::new(),
                });
                Kept::Frame(FrameKind::Error {
                    code: error.code,
                    message: error.message,
                })
            }
            "completed" | "canceled" | "rejected" => Kept::Ended,
            "input-required" | "auth-required" => {
                let reason = view.reason.clone().unwrap_or_default();
                let text = view
                    .error
                    .as_ref()
                    .map(|error| error.message.clone())
                    .unwrap_or_default();
                Kept::Frame(FrameKind::Question {
                    step: view.asked_step,
                    reason,
                    text,
                })
            }
            _ => {
                // Newer than anything an earlier hub said: its text is void.
                let newest = *self.shared.streams.sizes().borrow();
                ring.push(newest + 1, Kept::Frame(FrameKind::Restart));
                return;
            }
        };
        ring.push(seq, kept);
    }

    /// Log entries after a sequence, as they are committed.
    pub async fn log_feed(&self, after: Option<u64>) -> Result<EntryStream, HubError> {
        let sizes = self.shared.streams.sizes();
        let next = after.map_or_else(|| *sizes.borrow(), |seq| seq.saturating_add(1));
        Ok(EntryStream {
            hub: self.clone(),
            sizes,
            next,
            waiting: VecDeque::new(),
        })
    }
}

/// Log entries as they are committed.
pub struct EntryStream {
    hub: Hub,
    sizes: watch::Receiver<u64>,
    next: u64,
    waiting: VecDeque<EntryView>,
}

impl EntryStream {
    /// The next entry; `None` when the hub ends.
    pub async fn next(&mut self) -> Option<EntryView> {
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                self.next = entry.seq + 1;
                return Some(entry);
            }
            if *self.sizes.borrow_and_update() > self.next {
                self.waiting = self
                    .hub
                    .log_entries(self.next, 200)
                    .await
                    .ok()?
                    .items
                    .into();
                if !self.waiting.is_empty() {
                    continue;
                }
            }
            self.sizes.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str) -> Published {
        Published::Frame(FrameKind::Chunk { text: text.into() })
    }

    fn message() -> Published {
        Published::Frame(FrameKind::Message {
            role: "user",
            text: "hi".into(),
        })
    }

    /// What a client that puts chunks together has, having seen frames up to `last`.
    fn text_after(streams: &Streams, last: Option<FrameId>, before: &str) -> String {
        let channel = streams.channel("t");
        let ring = lock(&channel.ring);
        let mut ids: Vec<FrameId> = ring.frames.iter().map(|(id, _)| *id).collect();
        ids.dedup();
        assert!(ids.is_sorted() && ids.len() == ring.frames.len(), "{ids:?}");
        let unseen = ring
            .frames
            .iter()
            .filter(|(id, _)| last.is_none_or(|last| *id > last));
        unseen.fold(before.to_owned(), |text, (_, kept)| match kept {
            Kept::Frame(FrameKind::Chunk { text: more }) => text + more,
            Kept::Frame(FrameKind::Restart) => String::new(),
            _ => text,
        })
    }

    #[test]
    fn however_many_tasks_are_open_the_rings_are_bounded() {
        let streams = Streams::new(4);
        let read = streams.channel("read");
        streams.publish("read", 4, message());
        for n in 0..MAX_RINGS + 10 {
            streams.publish(&format!("t{n}"), 5, message());
        }
        let rings = lock(&streams.rings);
        assert_eq!(rings.len(), MAX_RINGS);
        assert!(rings.contains_key("read"), "a client reads it");
        drop(read);
    }

    #[test]
    fn what_a_step_in_flight_said_is_said_again_to_the_next_attempt() {
        let streams = Streams::new(4);
        streams.publish("t", 4, message());
        streams.chunk("t", Some((1, 7)), "a");
        streams.chunk("t", Some((1, 7)), "b");
        streams.publish("t", 6, Published::Frame(FrameKind::Restart));
        streams.chunk("t", Some((1, 7)), "c");
        assert_eq!(text_after(&streams, None, ""), "abc");
    }

    #[test]
    fn another_try_of_a_step_takes_the_place_of_the_one_before() {
        let streams = Streams::new(4);
        streams.publish("t", 4, message());
        streams.chunk("t", Some((1, 7)), "first ");
        streams.chunk("t", Some((2, 8)), "brok");
        streams.publish("t", 6, Published::Frame(FrameKind::Restart));
        streams.chunk("t", Some((2, 9)), "second");
        assert_eq!(text_after(&streams, None, ""), "first second");
    }

    #[test]
    fn text_of_an_attempt_itself_is_void_with_it() {
        let streams = Streams::new(4);
        streams.publish("t", 4, message());
        streams.chunk("t", None, "a");
        streams.publish("t", 6, Published::Frame(FrameKind::Restart));
        streams.chunk("t", None, "b");
        assert_eq!(text_after(&streams, None, ""), "b");
    }

    #[test]
    fn the_first_words_of_a_new_hub_void_those_of_the_hub_before() {
        let streams = Streams::new(111);
        streams.chunk("t", Some((1, 1)), "a");
        let seen = FrameId { seq: 111, k: 900 };
        assert_eq!(text_after(&streams, Some(seen), "old"), "a");
        let streams = Streams::new(111);
        streams.publish("t", 112, chunk("b"));
        assert_eq!(text_after(&streams, Some(seen), "old"), "b");
    }

    #[test]
    fn text_beyond_the_bound_is_not_said_again() {
        let streams = Streams::new(4);
        streams.publish("t", 4, message());
        let large = "x".repeat(MAX_BYTES / 2 + 1);
        streams.chunk("t", Some((1, 7)), &large);
        streams.chunk("t", Some((1, 7)), &large);
        streams.chunk("t", Some((1, 7)), "end");
        streams.publish("t", 6, Published::Frame(FrameKind::Restart));
        assert_eq!(text_after(&streams, None, ""), "");
    }
}
