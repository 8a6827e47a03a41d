//! An idle connection of a pod that the hub may use: kept until it is taken, or ends.
//!
//! While it is idle the pod says nothing on it; it is told whether it counts as ready. Then it is
//! told what to connect to, and from there on bytes are passed.

use std::io;

use contract::pod::{Target, ToPod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::server::TlsStream;

use crate::ready::{Readiness, Ready};

/// A pod's connection.
pub(crate) type Stream = TlsStream<TcpStream>;

type Taken = (Target, oneshot::Sender<Stream>);

/// The registry's end.
#[derive(Debug)]
pub(crate) struct Offer {
    take: mpsc::Sender<Taken>,
}

impl Offer {
    /// An offer, and what keeps it: the second value runs until the offer is taken or has ended.
    pub(crate) fn new() -> (Self, Kept) {
        let (take, taken) = mpsc::channel(1);
        (Self { take }, Kept { taken })
    }

    /// Whether it may still be taken.
    pub(crate) fn is_idle(&self) -> bool {
        !self.take.is_closed()
    }

    /// The connection, open to this target; `None` where it has ended meanwhile.
    pub(crate) async fn take(self, target: Target) -> Option<Stream> {
        let (reply, stream) = oneshot::channel();
        self.take.send((target, reply)).await.ok()?;
        stream.await.ok()
    }
}

/// The connection's end.
pub(crate) struct Kept {
    taken: mpsc::Receiver<Taken>,
}

impl Kept {
    /// Keeps the connection of this owner's pod.
    pub(crate) async fn keep(
        mut self,
        mut stream: Stream,
        owner: &str,
        mut readiness: watch::Receiver<Readiness>,
    ) -> io::Result<()> {
        let mut told: Option<Ready> = None;
        let mut unexpected = [0; 1];
        loop {
            let now = readiness.borrow_and_update().of(owner);
            if told.as_ref() != Some(&now) {
                let frame = ToPod::Ready {
                    ready: now.is_ready(),
                    reason: now.reason().to_owned(),
                };
                write(&mut stream, &frame).await?;
                told = Some(now);
            }
            tokio::select! {
                read = stream.read(&mut unexpected) => {
                    return match read? {
                        0 => Ok(()),
                        _ => Err(io::Error::other("pod speaks on an idle offer")),
                    };
                }
                changed = readiness.changed() => changed.map_err(io::Error::other)?,
                taken = self.taken.recv() => {
                    // Without a taker the registry has let it go.
                    let Some((target, reply)) = taken else { return Ok(()) };
                    write(&mut stream, &ToPod::Open { target }).await?;
                    // Who asked may have given up: then the connection ends here.
                    let _given_up = reply.send(stream);
                    return Ok(());
                }
            }
        }
    }
}

/// Writes one message to a pod.
pub(crate) async fn write(stream: &mut Stream, message: &ToPod) -> io::Result<()> {
    let bytes = contract::frame::encode(message).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}
