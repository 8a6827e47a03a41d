//! The answer of one step as a stream: the one shape for live, joined and replayed answers.
//!
//! A [`Spool`] is filled by whoever performs the call and read by any number of agents'
//! connections. Bytes pushed with `hold` leave only when the result is committed: no agent can
//! act on an answer before that answer is durable. The spool is bounded by [`MAX_ANSWER_BYTES`];
//! upstream is read to its end however slow, frozen or dead the reader is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

/// The largest answer that is recorded and delivered.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// The stream can't be completed: the connection must be reset, never ended cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct Broken;

/// The answer grew past [`MAX_ANSWER_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answer is larger than {MAX_ANSWER_BYTES} bytes")]
pub struct TooLarge;

/// Status line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub content_type: String,
    /// From the journal.
    pub replayed: bool,
    pub step: u32,
    /// Carries `x-should-retry: false`.
    pub no_retry: bool,
    /// How long a provider that refused wants to be left alone.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Default)]
struct Inner {
    head: Option<(u16, String, bool)>,
    chunks: Vec<Bytes>,
    bytes: usize,
    /// Chunks before this index may leave.
    released: usize,
    holding: bool,
    retry_after: Option<Duration>,
    end: Option<Result<(), Broken>>,
}

/// An answer that is being made.
#[derive(Debug, Default)]
pub struct Spool {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Spool {
    /// An empty spool.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A finished answer.
    #[must_use]
    pub fn whole(status: u16, content_type: &str, body: Bytes, no_retry: bool) -> Arc<Self> {
        let spool = Self::new();
        spool.replace(status, content_type, body, no_retry);
        spool
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while appending leaves at worst a shorter answer, which is then reset.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets status and type; the first call counts.
    pub fn head(&self, status: u16, content_type: &str) {
        self.lock()
            .head
            .get_or_insert_with(|| (status, content_type.to_owned(), false));
        self.changed.notify_waiters();
    }

    /// Appends bytes. From the first held chunk on everything is held.
    pub fn push(&self, bytes: Bytes, hold: bool) -> Result<(), TooLarge> {
        let mut inner = self.lock();
        if inner.bytes + bytes.len() > MAX_ANSWER_BYTES {
            return Err(TooLarge);
        }
        inner.bytes += bytes.len();
        inner.holding |= hold;
        if !bytes.is_empty() {
            inner.chunks.push(bytes);
        }
        if !inner.holding {
            inner.released = inner.chunks.len();
        }
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }

    /// All bytes so far: what is journaled.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().chunks.concat()
    }

    /// Status and type so far.
    #[must_use]
    pub fn status(&self) -> Option<(u16, String)> {
        self.lock()
            .head
            .as_ref()
            .map(|(status, kind, _)| (*status, kind.clone()))
    }

    /// Has any byte been allowed to leave?
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.lock().released > 0
    }

    /// Committed: everything may leave, and this is all.
    pub fn release(&self) {
        let mut inner = self.lock();
        inner.released = inner.chunks.len();
        inner.end = Some(Ok(()));
        drop(inner);
        self.changed.notify_waiters();
    }

    /// What a refusal says about when to ask again.
    pub fn ask_again_after(&self, retry_after: Option<Duration>) {
        self.lock().retry_after = retry_after;
    }

    /// It can't be completed.
    pub fn break_off(&self) {
        self.lock().end = Some(Err(Broken));
        self.changed.notify_waiters();
    }

    /// Replaces what has not left by a whole answer, or breaks off if something has.
    pub fn replace(&self, status: u16, content_type: &str, body: Bytes, no_retry: bool) {
        let mut inner = self.lock();
        if inner.released > 0 {
            inner.end = Some(Err(Broken));
        } else {
            inner.head = Some((status, content_type.to_owned(), no_retry));
            inner.bytes = body.len();
            inner.chunks = if body.is_empty() {
                Vec::new()
            } else {
                vec![body]
            };
            inner.released = inner.chunks.len();
            inner.end = Some(Ok(()));
        }
        drop(inner);
        self.changed.notify_waiters();
    }
}

/// Called once when the last byte was written to a connection that was not reset.
pub type Delivered = Box<dyn FnOnce() + Send>;
/// Dropped with the stream: while it lives, a connection waits for the step.
pub type Guard = Box<dyn Send>;

/// One agent's connection to an answer.
pub struct AnswerStream {
    spool: Arc<Spool>,
    next: usize,
    replayed: bool,
    step: u32,
    on_delivered: Option<Delivered>,
    _guard: Option<Guard>,
}

impl std::fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerStream")
            .field("step", &self.step)
            .field("replayed", &self.replayed)
            .finish_non_exhaustive()
    }
}

impl AnswerStream {
    /// Reads a spool from its start.
    #[must_use]
    pub fn new(
        spool: Arc<Spool>,
        step: u32,
        replayed: bool,
        on_delivered: Option<Delivered>,
        guard: Option<Guard>,
    ) -> Self {
        Self {
            spool,
            next: 0,
            replayed,
            step,
            on_delivered,
            _guard: guard,
        }
    }

    /// Waits for the status line. It leaves with the first byte, or when the answer is whole.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        let (replayed, step) = (self.replayed, self.step);
        Self::wait(&self.spool, |inner| {
            let whole = matches!(inner.end, Some(Ok(())));
            if inner.released > 0 || whole {
                let (status, content_type, no_retry) =
                    inner
                        .head
                        .clone()
                        .unwrap_or((200, "application/json".into(), false));
                return Some(Ok(Head {
                    status,
                    content_type,
                    replayed,
                    step,
                    no_retry,
                    retry_after: inner.retry_after,
                }));
            }
            matches!(inner.end, Some(Err(_))).then_some(Err(Broken))
        })
        .await
    }

    /// The next bytes; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        let from = self.next;
        let chunk = Self::wait(&self.spool, |inner| {
            if from < inner.released {
                return Some(Some(Ok(inner.chunks[from].clone())));
            }
            match inner.end {
                Some(Ok(())) => Some(None),
                Some(Err(broken)) => Some(Some(Err(broken))),
                None => None,
            }
        })
        .await;
        self.next += 1;
        chunk
    }

    /// The last byte was written. Without this call the step stays owed.
    pub fn delivered(&mut self) {
        if let Some(on_delivered) = self.on_delivered.take() {
            on_delivered();
        }
    }

    // Not a method: a stream isn't `Sync`, so a reference to it must not be held across an await.
    async fn wait<T>(spool: &Spool, ready: impl Fn(&Inner) -> Option<T>) -> T {
        loop {
            let notified = spool.changed.notified();
            tokio::pin!(notified);
            // Registered before looking, or a change in between would be missed.
            notified.as_mut().enable();
            if let Some(value) = ready(&spool.lock()) {
                return value;
            }
            notified.await;
        }
    }
}
