//! What the kernel is told about a pod's connection: a peer that is gone is noticed in two seconds.
//!
//! A node that dies says nothing. The hub may fence an attempt only once it knows that the pod is
//! out of reach, so every connection is probed while it is quiet and given up while it is not heard.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Quiet this long, the peer is asked; and given this long for the answer.
const PROBE: Duration = Duration::from_secs(1);
/// Bytes that nobody acknowledged for this long end the connection.
const UNHEARD_MS: u32 = 2000;

/// Small pieces leave at once, and silence ends the connection.
pub fn watch(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE)?;
    sockopt::set_tcp_keepcnt(stream, 1)?;
    Ok(sockopt::set_tcp_user_timeout(stream, UNHEARD_MS)?)
}
