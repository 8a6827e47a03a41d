//! Bytes between a socket in the pod and a TLS connection to the hub, both ways.
//!
//! An end that was meant (a half-closed socket, a `close_notify`) is passed on as one, and the other
//! direction goes on. Anything else breaks both: the socket is reset, the TLS connection dropped
//! without its `close_notify`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::door::Tls;

/// For each direction: one record of TLS.
const BUFFER_BYTES: usize = 16 * 1024;

/// A socket on the pod's side.
pub(crate) trait Near: AsyncRead + AsyncWrite + Unpin {
    /// From now on its close tells the peer that something broke.
    fn reset(&self);
}

impl Near for TcpStream {
    fn reset(&self) {
        let _gone = rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }
}

impl Near for UnixStream {
    /// The shim's frames tell a whole message from half of one.
    fn reset(&self) {}
}

/// Passes bytes until both sides have ended or one has broken. `first` came from the hub already.
pub(crate) async fn pipe(near: impl Near, tls: Tls, first: Vec<u8>) {
    let (mut near_reader, mut near_writer) = tokio::io::split(near);
    let (mut tls_reader, mut tls_writer) = tokio::io::split(tls);
    let to_hub = copy(&mut near_reader, &mut tls_writer);
    let to_near = async {
        near_writer.write_all(&first).await?;
        drop(first);
        copy(&mut tls_reader, &mut near_writer).await
    };
    let ended = tokio::try_join!(to_hub, to_near);
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
        near_reader.unsplit(near_writer).reset();
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}
