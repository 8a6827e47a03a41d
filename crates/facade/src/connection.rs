//! One client's connection: its slot, and an end for clients that stop reading.
//!
//! A write that makes no progress for [`WRITE_STALL`] fails, whatever the protocol on top (a slow
//! reader of a stream can come back with the last id it saw). The slot travels with the socket, so
//! an upgraded connection is counted until it is really gone.
//! A socket that is closed while bytes of its client lie unread resets the connection, and the
//! client never sees why. Where a reason was sent, [`Linger`] says to read them out first.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

/// How long a client may let our bytes lie.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long a client that was sent a reason may go on sending before it is cut off.
const LINGER: Duration = Duration::from_secs(5);

/// Who is at the other end; an extension of each request.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Network {
        local: SocketAddr,
        /// The connection is encrypted.
        secure: bool,
    },
    Local {
        uid: u32,
    },
    /// On the command line's socket, and not welcome there.
    Refused(&'static str),
}

/// Asks a connection to read out what its client sends before it goes; an extension of each
/// request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Linger(Arc<AtomicBool>);

impl Linger {
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a connection stands on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A socket in its slot.
pub(crate) struct Connection<S: Stream> {
    /// There until it is dropped.
    open: Option<(S, OwnedSemaphorePermit)>,
    linger: Linger,
    stall_after: Duration,
    /// Only while a write waits: idle connections carry no timer for it.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S: Stream> Connection<S> {
    pub(crate) fn new(socket: S, slot: OwnedSemaphorePermit) -> Self {
        Self {
            open: Some((socket, slot)),
            linger: Linger::default(),
            stall_after: WRITE_STALL,
            stall: None,
        }
    }

    /// What makes this connection linger.
    pub(crate) fn linger(&self) -> Linger {
        self.linger.clone()
    }

    fn socket(&mut self) -> io::Result<Pin<&mut S>> {
        let open = self.open.as_mut().map(|(socket, _)| Pin::new(socket));
        open.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn guard<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall_after = self.stall_after;
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_after)));
        stall.as_mut().poll(cx).map(|()| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "client does not read",
            ))
        })
    }
}

impl<S: Stream> Drop for Connection<S> {
    fn drop(&mut self) {
        if self.linger.0.load(Ordering::Relaxed)
            && let Some((socket, slot)) = self.open.take()
        {
            tokio::spawn(read_out(socket, slot));
        }
    }
}

/// Ends our side, and reads until the client has ended its own.
async fn read_out<S: Stream>(mut socket: S, _slot: OwnedSemaphorePermit) {
    let out = async {
        socket.shutdown().await?;
        let mut sink = vec![0; 16 * 1024];
        while socket.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    if !matches!(tokio::time::timeout(LINGER, out).await, Ok(Ok(()))) {
        tracing::debug!("a client went on sending after it was told to stop");
    }
}

impl<S: Stream> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket()?.poll_read(cx, buf)
    }
}

impl<S: Stream> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket()?.poll_write(cx, buf);
        self.guard(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket()?.poll_write_vectored(cx, bufs);
        self.guard(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|(socket, _)| socket.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    async fn connection(
        slots: &Arc<Semaphore>,
    ) -> (Connection<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(8);
        (
            Connection::new(ours, slots.clone().acquire_owned().await.unwrap()),
            theirs,
        )
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_let_go() {
        let (mut ours, _theirs) = connection(&Arc::new(Semaphore::new(1))).await;
        ours.stall_after = Duration::from_millis(20);
        let error = ours.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn progress_starts_the_clock_anew() {
        let (mut ours, mut theirs) = connection(&Arc::new(Semaphore::new(1))).await;
        let writer =
            tokio::spawn(async move { (ours.write_all(&[7; 64]).await, ours.stall.is_none()) });
        theirs.read_exact(&mut [0; 64]).await.unwrap();
        let (written, no_timer_left) = writer.await.unwrap();
        assert!(written.is_ok() && no_timer_left);
    }

    #[tokio::test]
    async fn a_slot_is_free_again_when_its_socket_is_gone() {
        let slots = Arc::new(Semaphore::new(1));
        let (ours, _theirs) = connection(&slots).await;
        assert_eq!(slots.available_permits(), 0);
        drop(ours);
        assert_eq!(slots.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_lingers_reads_its_client_out_and_then_frees_its_slot() {
        let slots = Arc::new(Semaphore::new(1));
        let (ours, mut theirs) = connection(&slots).await;
        ours.linger().ask();
        drop(ours);
        assert_eq!(slots.available_permits(), 0);
        theirs.write_all(&[7; 64 * 1024]).await.unwrap();
        assert_eq!(theirs.read(&mut [0; 1]).await.unwrap(), 0, "our side ended");
        drop(theirs);
        let _free = slots.acquire().await.unwrap();
    }
}
