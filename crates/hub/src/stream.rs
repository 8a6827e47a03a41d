//! What clients see while a task runs: a bounded ring of frames per task.
//!
//! A frame's id is the log size when it was made and a counter behind it, so ids keep their order
//! over a hub's restart and a client can reconnect with the last it saw.

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
/// Rings kept; the oldest ended ones go first.
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
}

#[derive(Clone)]
enum Kept {
    Frame(FrameKind),
    Ended,
}

impl Ring {
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
        let kept = match published {
            // Void only if something was said.
            Published::Frame(FrameKind::Restart) if !lock(&channel.ring).has_text => return,
            Published::Frame(frame) => Kept::Frame(frame),
            Published::Ended => Kept::Ended,
            Published::Again => {
                lock(&channel.ring).reopen();
                Kept::Frame(FrameKind::Restart)
            }
        };
        let mut ring = lock(&channel.ring);
        if matches!(kept, Kept::Frame(FrameKind::Restart)) {
            ring.has_text = false;
        }
        ring.push(size, kept);
        drop(ring);
        channel.changed.notify_waiters();
    }

    /// Text of the answer as it comes; not durable.
    pub(crate) fn chunk(&self, task: &str, text: &str) {
        let channel = self.channel(task);
        let mut ring = lock(&channel.ring);
        ring.has_text = true;
        let size = ring.last.seq;
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
            let ended = rings
                .iter()
                .filter(|(_, channel)| lock(&channel.ring).ended);
            let oldest = ended
                .min_by_key(|(_, channel)| lock(&channel.ring).last)
                .map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                rings.remove(&oldest);
            }
        }
        Arc::clone(rings.entry(task.to_owned()).or_default())
    }

    fn existing(&self, task: &str) -> Option<Arc<Channel>> {
        lock(&self.rings).get(task).cloned()
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
        let known = self.shared.streams.existing(id);
        let channel = known.unwrap_or_else(|| {
            let channel = self.shared.streams.channel(id);
            self.seed(&channel, &view, seq);
            channel
        });
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
        if !ring.frames.is_empty() {
            return;
        }
        let text = view
            .input
            .as_str()
            .map_or_else(|| view.input.to_string(), ToOwned::to_owned);
        ring.push(seq, Kept::Frame(FrameKind::Message { role: "user", text }));
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
