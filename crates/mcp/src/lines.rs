//! Newline-delimited JSON-RPC over a byte stream, as stdio servers speak it.
//!
//! Two tasks own the two halves. The reader never buffers more than one bounded line: a line that
//! is too long costs the call it answers and no other. A server that floods is read slowly, so
//! that it waits at its own full pipe instead of costing a core.
//! Ids start at a random number, because the server may still answer calls of an earlier hub.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::client::CallError;
use crate::message::{self, METHOD_NOT_FOUND, Message};
use crate::splitter::{ID_WITHIN_BYTES, Line, MAX_LINE_BYTES, Splitter, answered_id};

/// Messages that wait to be written.
const QUEUE: usize = 64;

/// What a server may say beside its answers at once, and in each second after that. The longest
/// line fits into the first.
const NOISE_BYTES: usize = 64 * 1024 * 1024;
const NOISE_BYTES_PER_SECOND: usize = 2 * 1024 * 1024;

type Answer = Result<Value, CallError>;

struct Waiting {
    answer_tx: oneshot::Sender<Answer>,
    limit_bytes: usize,
    /// Set before the first byte is written.
    began: Arc<AtomicBool>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<u64, Waiting>>,
    closed: AtomicBool,
    tool_changes: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        // The map is whole between any two statements.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether somebody waited for it.
    fn answer(&self, id: u64, answer: Answer) -> bool {
        let waiting = self.lock().remove(&id);
        // The caller may have given up.
        waiting.is_some_and(|waiting| waiting.answer_tx.send(answer).is_ok())
    }

    fn close(&self, why: &str) {
        self.closed.store(true, Ordering::SeqCst);
        for (_, waiting) in self.lock().drain() {
            let error = if waiting.began.load(Ordering::SeqCst) {
                CallError::Unanswered(why.to_owned())
            } else {
                CallError::NotSent(why.to_owned())
            };
            let _ = waiting.answer_tx.send(Err(error));
        }
    }
}

struct Outgoing {
    line: Vec<u8>,
    began: Option<Arc<AtomicBool>>,
}

impl Outgoing {
    fn of(message: &Value, began: Option<Arc<AtomicBool>>) -> Self {
        // serde_json escapes newlines inside strings, so a message is always one line.
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        Self { line, began }
    }
}

pub(crate) struct Lines {
    shared: Arc<Shared>,
    outgoing_tx: mpsc::Sender<Outgoing>,
    next_id: AtomicU64,
    tasks: [tokio::task::AbortHandle; 2],
}

impl Drop for Lines {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Lines {
    pub(crate) fn start(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        early: Vec<u8>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let (outgoing_tx, outgoing_rx) = mpsc::channel(QUEUE);
        let write = tokio::spawn(write_all(writer, outgoing_rx, shared.clone()));
        let read = tokio::spawn(read_all(reader, early, shared.clone(), outgoing_tx.clone()));
        Self {
            shared,
            outgoing_tx,
            // Stays far below 2^53, where some servers' numbers end.
            next_id: AtomicU64::new(u64::from(rand::random::<u32>()) << 16),
            tasks: [write.abort_handle(), read.abort_handle()],
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn tool_changes(&self) -> u64 {
        self.shared.tool_changes.load(Ordering::Relaxed)
    }

    pub(crate) fn notify(&self, message: &Value) {
        let _ = self.outgoing_tx.try_send(Outgoing::of(message, None));
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        params: &Value,
        timeout: Duration,
        limit_bytes: usize,
    ) -> Answer {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let began = Arc::new(AtomicBool::new(false));
        let (answer_tx, answer_rx) = oneshot::channel();
        self.shared.lock().insert(
            id,
            Waiting {
                answer_tx,
                limit_bytes,
                began: began.clone(),
            },
        );
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        if self.is_closed() {
            return Err(CallError::NotSent("the connection is closed".into()));
        }
        let outgoing = Outgoing::of(
            &message::write_request(id, method, params),
            Some(began.clone()),
        );
        let exchange = async {
            if self.outgoing_tx.send(outgoing).await.is_err() {
                return Err(CallError::NotSent("the connection is closed".into()));
            }
            answer_rx
                .await
                .unwrap_or_else(|_| Err(CallError::Unanswered("the connection closed".into())))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) if !began.load(Ordering::SeqCst) => Err(CallError::NotSent(format!(
                "it took no message for {} s",
                timeout.as_secs_f32()
            ))),
            Err(_) => {
                let reason = json!({"requestId": id, "reason": "timed out"});
                self.notify(&message::write_notification(
                    "notifications/cancelled",
                    &reason,
                ));
                Err(CallError::TimedOut {
                    seconds: timeout.as_secs_f32(),
                })
            }
        }
    }
}

/// Takes the call off the list however its future ends.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.lock().remove(&self.id);
    }
}

async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing_rx: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
) {
    while let Some(outgoing) = outgoing_rx.recv().await {
        if let Some(began) = &outgoing.began {
            began.store(true, Ordering::SeqCst);
        }
        let written = async {
            writer.write_all(&outgoing.line).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            shared.close(&error.to_string());
            return;
        }
    }
}

async fn read_all(
    mut reader: impl AsyncRead + Unpin,
    early: Vec<u8>,
    shared: Arc<Shared>,
    outgoing_tx: mpsc::Sender<Outgoing>,
) {
    let mut splitter = Splitter::default();
    let mut pace = Pace::new(Instant::now());
    let mut chunk = vec![0; 64 * 1024];
    let mut bytes = early;
    loop {
        let mut answered = false;
        for line in splitter.push(&bytes) {
            answered |= take_line(&line, &shared, &outgoing_tx);
        }
        if let Some(wait) = pace.wait(bytes.len(), answered, Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        match reader.read(&mut chunk).await {
            Ok(0) => return shared.close("the server ended the connection"),
            Ok(count) => bytes = chunk[..count].to_vec(),
            Err(error) => return shared.close(&error.to_string()),
        }
    }
}

/// How fast what answers nothing is read.
struct Pace {
    left_bytes: usize,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            left_bytes: NOISE_BYTES,
            at: now,
        }
    }

    /// How long to wait before more is read. An answer that was waited for makes up for what came before it.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "time runs forwards, and a float that is too large becomes the largest number"
    )]
    fn wait(&mut self, bytes: usize, answered: bool, now: Instant) -> Option<Duration> {
        if answered {
            *self = Self::new(now);
            return None;
        }
        let per_second = NOISE_BYTES_PER_SECOND as f64;
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        self.at = now;
        self.left_bytes = self
            .left_bytes
            .saturating_add(earned as usize)
            .min(NOISE_BYTES);
        if bytes <= self.left_bytes {
            self.left_bytes -= bytes;
            return None;
        }
        let missing = bytes - self.left_bytes;
        self.left_bytes = 0;
        // What is earned while waiting is what was missing.
        let wait = Duration::from_secs_f64(missing as f64 / per_second);
        self.at = now + wait;
        Some(wait)
    }
}

/// Says whether a call that was waited for was answered.
fn take_line(line: &Line, shared: &Shared, outgoing_tx: &mpsc::Sender<Outgoing>) -> bool {
    match line {
        Line::Whole(bytes) => take_message(bytes, shared, outgoing_tx),
        Line::TooLong { start } => answered_id(start).is_some_and(|id| {
            let limit_bytes = shared
                .lock()
                .get(&id)
                .map_or(MAX_LINE_BYTES, |waiting| waiting.limit_bytes);
            shared.answer(id, Err(CallError::TooLarge { limit_bytes }))
        }),
    }
}

fn take_message(bytes: &[u8], shared: &Shared, outgoing_tx: &mpsc::Sender<Outgoing>) -> bool {
    match message::read(bytes) {
        Ok(Message::Response { id, outcome }) => {
            let Some(id) = id.as_u64() else { return false };
            let limit_bytes = shared.lock().get(&id).map(|waiting| waiting.limit_bytes);
            let answer = match limit_bytes {
                Some(limit_bytes) if bytes.len() > limit_bytes => {
                    Err(CallError::TooLarge { limit_bytes })
                }
                _ => outcome.map_err(CallError::Rpc),
            };
            return shared.answer(id, answer);
        }
        Ok(Message::Notification { method }) if method == "notifications/tools/list_changed" => {
            shared.tool_changes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Message::Request { id, method, .. }) => {
            let reply = match method.as_str() {
                "ping" => message::write_result(&id, &json!({})),
                _ => message::write_error(&id, METHOD_NOT_FOUND, "this client offers nothing"),
            };
            // A server that asks faster than it reads gets no answer.
            let _ = outgoing_tx.try_send(Outgoing::of(&reply, None));
        }
        Ok(Message::Notification { .. }) => {}
        Err(_) => return take_broken(bytes, shared),
    }
    false
}

/// What a server prints beside the protocol is no message; many do. A line that begins as the
/// answer to a call that waits is that answer all the same: there will be no other.
fn take_broken(bytes: &[u8], shared: &Shared) -> bool {
    let start = &bytes[..bytes.len().min(ID_WITHIN_BYTES)];
    let begins = start.trim_ascii_start().starts_with(b"{");
    let told = |word: &[u8]| start.windows(word.len()).any(|window| window == word);
    let is_answer = begins && (told(b"\"result\"") || told(b"\"error\""));
    let id = is_answer.then(|| answered_id(start)).flatten();
    let unreadable = || Err(CallError::Unreadable("its line is no JSON".into()));
    id.is_some_and(|id| shared.answer(id, unreadable()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_answers_nothing_is_read_at_a_bounded_rate_and_an_answer_makes_up_for_it() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.wait(NOISE_BYTES, false, start), None);
        let second = Duration::from_secs(1);
        let wait = pace.wait(NOISE_BYTES_PER_SECOND, false, start);
        assert_eq!(wait, Some(second));
        // Having waited, the next bytes wait as long again.
        let wait = pace.wait(NOISE_BYTES_PER_SECOND, false, start + second);
        assert_eq!(wait, Some(second));
        assert_eq!(pace.wait(NOISE_BYTES, true, start + 2 * second), None);
        assert_eq!(pace.wait(NOISE_BYTES, false, start + 2 * second), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let shared = Shared::default();
            let (outgoing_tx, _outgoing_rx) = mpsc::channel(1);
            take_message(&bytes, &shared, &outgoing_tx);
        }
    }
}
