//! A framed connection over a Unix socket, with descriptors beside frames; never blocks.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use contract::frame::{Decoder, FrameError, encode};
use serde::{Serialize, de::DeserializeOwned};

/// A peer that lets this much pile up unread is cut off: it has stopped or means harm.
const MAX_UNSENT_BYTES: usize = 96 * 1024 * 1024;

/// Why a connection can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("bytes on the link are no message of ours")]
    Frame(#[from] FrameError),
    #[error("peer does not read: {unsent} bytes wait")]
    Full { unsent: usize },
    #[error("cannot read from or write to the link")]
    Io(#[from] io::Error),
    #[error("peer closed the link")]
    Closed,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    decoder: Decoder,
    descriptors: VecDeque<OwnedFd>,
    outgoing: VecDeque<Outgoing>,
    unsent: usize,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            decoder: Decoder::default(),
            descriptors: VecDeque::new(),
            outgoing: VecDeque::new(),
            unsent: 0,
        }
    }

    /// Queues a message and sends what the peer takes now.
    pub(crate) fn send<T: Serialize>(
        &mut self,
        message: &T,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), LinkError> {
        let bytes = encode(message)?;
        self.unsent += bytes.len();
        if self.unsent > MAX_UNSENT_BYTES {
            return Err(LinkError::Full {
                unsent: self.unsent,
            });
        }
        self.outgoing.push_back(Outgoing {
            bytes,
            sent: 0,
            descriptors,
        });
        self.flush()
    }

    /// Sends what waits, as far as the peer takes it.
    pub(crate) fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(front) = self.outgoing.front_mut() {
            let descriptors: Vec<BorrowedFd<'_>> =
                front.descriptors.iter().map(AsFd::as_fd).collect();
            let rest = &front.bytes[front.sent..];
            match sandbox::descriptors::send_with(self.socket.as_fd(), rest, &descriptors) {
                Ok(count) => {
                    front.sent += count;
                    front.descriptors.clear();
                    self.unsent -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if front.sent == front.bytes.len() {
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }

    /// Bytes that still wait to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Reads what has arrived. `Closed` once the peer is gone and everything was read.
    pub(crate) fn fill(&mut self) -> Result<(), LinkError> {
        let mut buffer = [0; 64 * 1024];
        let mut received = Vec::new();
        // Bounded, so that one busy peer doesn't starve the others; epoll comes back to it.
        for _ in 0..16 {
            let result =
                sandbox::descriptors::receive_with(self.socket.as_fd(), &mut buffer, &mut received);
            self.descriptors.extend(received.drain(..));
            match result {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next whole message that has arrived.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        Ok(self.decoder.next()?)
    }

    /// The oldest descriptor that came and wasn't taken.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Ends the frames: the socket, what came after the last message, and what waits to be sent.
    pub(crate) fn into_raw(self) -> (OwnedFd, Vec<u8>, Vec<u8>) {
        let unsent = self
            .outgoing
            .iter()
            .flat_map(|outgoing| outgoing.bytes[outgoing.sent..].iter().copied())
            .collect();
        (self.socket, self.decoder.into_rest(), unsent)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
