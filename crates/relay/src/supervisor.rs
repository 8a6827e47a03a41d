//! What the pod's first process says: what offers are to tell the hub, and, by its end, to leave.

use std::io;

use contract::frame::Decoder;
use contract::pod::ToRelay;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::RelayError;

pub(crate) struct Supervisor {
    socket: UnixStream,
    decoder: Decoder,
}

impl Supervisor {
    pub(crate) fn new(socket: std::os::unix::net::UnixStream) -> Result<Self, RelayError> {
        let socket = socket
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(socket))
            .map_err(RelayError::Inherited)?;
        Ok(Self {
            socket,
            decoder: Decoder::default(),
        })
    }

    /// The next message; `None` at the end.
    pub(crate) async fn hear(&mut self) -> io::Result<Option<ToRelay>> {
        let mut buffer = [0; 1024];
        loop {
            if let Some(message) = self.decoder.next().map_err(io::Error::other)? {
                return Ok(Some(message));
            }
            match self.socket.read(&mut buffer).await? {
                0 => return Ok(None),
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    /// Passes on what it says until its end.
    pub(crate) async fn follow(mut self, offered: watch::Sender<ToRelay>) -> io::Result<()> {
        while let Some(message) = self.hear().await? {
            offered.send_replace(message);
        }
        Ok(())
    }
}
