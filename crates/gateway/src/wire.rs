//! The socket of one agent's connection, which knows two things that HTTP doesn't tell.
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
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hub::answer::AnswerStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is known about a connection beside its bytes.
#[derive(Default)]
pub struct Connection {
    broken: AtomicBool,
    ended: Mutex<Option<AnswerStream>>,
}

impl Connection {
    /// The answer under way can't be completed.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// The answer's last byte is on its way to the socket.
    pub fn ended(&self, answer: AnswerStream) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    fn flushed(&self) {
        let ended = self
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut answer) = ended {
            answer.delivered();
        }
    }
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
