//! The socket of one agent's connection, which knows what HTTP doesn't tell.
//!
//! *Delivered*: an answer counts once its last byte was handed to the kernel without an error.
//! hyper flushes the socket after the end of a body, so the flush that follows an answer is that
//! moment. More can't be known: the agent may still die before it reads what the kernel holds,
//! and then a re-ask in its next attempt is matched as usual.
//! *Broken*: an answer that can't be completed must not look like one that ended. The socket is
//! reset when it closes, so that not even a client that reads until the end takes it for whole.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hub::answer::AnswerStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What is known about a connection beside its bytes.
#[derive(Default)]
pub struct Connection {
    broken: AtomicBool,
    cut: Notify,
    /// The task and attempt whose call is under way.
    works_for: Mutex<Option<(String, u32)>>,
    ended: Mutex<Vec<AnswerStream>>,
}

impl Connection {
    /// The answer under way can't be completed.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// A call of this attempt begins.
    pub fn works_for(&self, task: &str, attempt: u32) {
        *lock(&self.works_for) = Some((task.to_owned(), attempt));
    }

    /// Closes the connection if it works for an older attempt of the task.
    pub fn cut_if_older(&self, task: &str, attempt: u32) {
        let is_older = |(known, number): &(String, u32)| known == task && *number < attempt;
        if lock(&self.works_for).as_ref().is_some_and(is_older) {
            self.break_off();
            self.cut.notify_one();
        }
    }

    /// Resolves when the connection is to be closed.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }

    #[cfg(test)]
    pub fn is_cut(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// The answer's last byte is on its way to the socket.
    pub fn ended(&self, answer: AnswerStream) {
        lock(&self.ended).push(answer);
        *lock(&self.works_for) = None;
    }

    fn flushed(&self) {
        let ended = std::mem::take(&mut *lock(&self.ended));
        for mut answer in ended {
            answer.delivered();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves its value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket with its [`Connection`].
pub struct Wire {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> (Self, Arc<Connection>) {
        let connection = Arc::new(Connection::default());
        (
            Self {
                stream,
                connection: connection.clone(),
            },
            connection,
        )
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.connection.broken.load(Ordering::SeqCst) {
            // Closing then sends a reset. It fails only on a socket that is gone already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.connection.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.broken.load(Ordering::SeqCst) {
            // A half-close would be a clean end.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
