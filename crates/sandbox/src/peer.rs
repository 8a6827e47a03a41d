//! Who is at the other end of a Unix socket, as the kernel says, not as the peer says.

use std::io;
use std::os::fd::AsFd;

/// The peer's process and user at the time it connected (or listened).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
}

/// Reads the credentials of a connected Unix socket's other side.
pub fn of(socket: impl AsFd) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer {
        pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
        uid: credentials.uid.as_raw(),
    })
}
