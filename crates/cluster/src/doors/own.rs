//! Whether a loopback connection was made by this process's own user.
//!
//! Who may forward a port to the hub's pod, as everyone may who calls it by the command line, reaches
//! its loopback too. Behind these ports are agents' servers, which ask for no token: what comes there
//! has passed the hub. A forwarded connection is made by the node's root, and never by the hub's own
//! user. The kernel is asked about that one socket; where it can't be asked so, its table is read.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};
use tokio::net::TcpStream;

/// `SOCK_DIAG_BY_FAMILY`, of a request and of its answer (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const REQUEST_FLAG: u16 = 1;
const INET: u8 = 2;
const TCP: u8 = 6;
/// Of a header and an `inet_diag_req_v2` (linux/inet_diag.h).
const REQUEST_BYTES: u32 = 72;
/// Where an answer says its socket's user: behind header, state, addresses and three numbers.
const USER_AT: usize = 80;

/// Whether it was.
pub(super) fn is_own(stream: &TcpStream) -> bool {
    let (Ok(SocketAddr::V4(peer)), Ok(SocketAddr::V4(local))) =
        (stream.peer_addr(), stream.local_addr())
    else {
        return false;
    };
    let user = asked(peer, local).or_else(|_| read(peer, local));
    user.is_ok_and(|user| user == rustix::process::geteuid().as_raw())
}

/// The user of the socket that is `from` here and `to` there.
fn asked(from: SocketAddrV4, to: SocketAddrV4) -> io::Result<u32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        flags,
        Some(SOCK_DIAG),
    )?;
    let address = SocketAddrNetlink::new(0, 0);
    sendto(&kernel, &request(from, to), SendFlags::empty(), &address)?;
    // It has answered when it has taken the question.
    let mut answer = [0; 512];
    let (read, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
    user_of(answer.get(..read).unwrap_or_default()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn request(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST_BYTES as usize);
    bytes.extend(REQUEST_BYTES.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_FLAG.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([INET, TCP, 0, 0]);
    // In any state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    for address in [from, to] {
        bytes.extend(address.ip().octets());
        bytes.extend([0; 12]);
    }
    // On any interface, and whichever it is.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

fn user_of(answer: &[u8]) -> Option<u32> {
    let kind: [u8; 2] = answer.get(4..6)?.try_into().ok()?;
    let user: [u8; 4] = answer.get(USER_AT..USER_AT + 4)?.try_into().ok()?;
    (u16::from_ne_bytes(kind) == BY_FAMILY).then(|| u32::from_ne_bytes(user))
}

/// The same from the kernel's table of sockets.
fn read(from: SocketAddrV4, to: SocketAddrV4) -> io::Result<u32> {
    let table = std::fs::read_to_string("/proc/self/net/tcp")?;
    let written = |address: SocketAddrV4| {
        let ip = u32::from_ne_bytes(address.ip().octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let (from, to) = (written(from), written(to));
    let mut lines = table.lines().map(str::split_ascii_whitespace);
    let user = lines.find_map(|mut fields| {
        let is_it = fields.nth(1)? == from && fields.next()? == to;
        is_it.then(|| fields.nth(4)?.parse().ok()).flatten()
    });
    user.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_its_makers_by_the_kernels_word_either_way() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        let near = near.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        assert!(is_own(&far));
        let SocketAddr::V4(from) = near.local_addr().unwrap() else {
            panic!("not of version 4")
        };
        let SocketAddr::V4(to) = near.peer_addr().unwrap() else {
            panic!("not of version 4")
        };
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(asked(from, to).unwrap(), own);
        assert_eq!(read(from, to).unwrap(), own);
        let nobody = SocketAddrV4::new(*from.ip(), 1);
        assert!(asked(nobody, to).is_err());
        assert!(read(nobody, to).is_err());
    }

    #[test]
    fn a_user_is_where_the_kernel_puts_it() {
        let mut answer = vec![0; 88];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[80..84].copy_from_slice(&65532_u32.to_ne_bytes());
        assert_eq!(user_of(&answer), Some(65532));
        answer[4] = 2;
        assert_eq!(user_of(&answer), None);
        assert_eq!(user_of(&[]), None);
    }
}
