//! Bytes between a pod's connection and a socket of this host, with the kind of end kept.
//!
//! An answer that can't be completed must not look like one that ended. A clean end (FIN, or
//! `close_notify`) goes on as a clean end; everything else (a reset, an end without `close_notify`,
//! a pipe that is given up here) resets both sides.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What is held of each direction.
const BUFFER: usize = 16 * 1024;

/// A stream that can end badly.
pub(crate) trait Cut: AsyncRead + AsyncWrite + Unpin + Send {
    /// From now on its close is a reset, as far as it can be.
    fn cut(&mut self);
}

impl Cut for TcpStream {
    fn cut(&mut self) {
        // It fails only on a socket that is gone already.
        let _gone = self.set_zero_linger();
    }
}

impl Cut for UnixStream {
    /// It knows no reset: whoever speaks frames on it notices a message that isn't whole.
    fn cut(&mut self) {}
}

impl Cut for TlsStream<TcpStream> {
    fn cut(&mut self) {
        self.get_mut().0.cut();
    }
}

/// One end of a pipe: dropped before both directions ended cleanly, it is cut.
struct End<S: Cut> {
    stream: S,
    is_clean: bool,
}

impl<S: Cut> End<S> {
    fn of(stream: S) -> Self {
        Self {
            stream,
            is_clean: false,
        }
    }
}

impl<S: Cut> Drop for End<S> {
    fn drop(&mut self) {
        if !self.is_clean {
            self.stream.cut();
        }
    }
}

impl<S: Cut> AsyncRead for End<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Cut> AsyncWrite for End<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Passes bytes both ways until both directions have ended, or one was broken.
pub(crate) async fn join(one: impl Cut, other: impl Cut) -> io::Result<()> {
    let (mut one, mut other) = (End::of(one), End::of(other));
    copy_bidirectional_with_sizes(&mut one, &mut other, BUFFER, BUFFER).await?;
    (one.is_clean, other.is_clean) = (true, true);
    Ok(())
}
