//! Listening sockets: the keeper's, so that a connection made while no hub runs waits for the next.
//!
//! Without a hub for some time they refuse instead (`shutdown`), and listen again on the same port
//! when a hub is ready.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use contract::keeper::ListenerPurpose;

use crate::state::State;

const BACKLOG: i32 = 1024;

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) purpose: ListenerPurpose,
    pub(crate) address: String,
    pub(crate) socket: OwnedFd,
}

impl Listener {
    /// A TCP door at an address of the owner's choosing: the clients', or the monitors'.
    pub(crate) fn door(purpose: ListenerPurpose, address: SocketAddr) -> io::Result<Self> {
        let listener = match address.port() {
            // By number, or the port is lost with the first `shutdown`.
            0 => {
                let free = TcpListener::bind(address)?.local_addr()?;
                TcpListener::bind(free)?
            }
            _ => TcpListener::bind(address)?,
        };
        Self::tcp(purpose, listener)
    }

    pub(crate) fn tcp(purpose: ListenerPurpose, listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?.to_string();
        let socket = OwnedFd::from(listener);
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self {
            purpose,
            address,
            socket,
        })
    }

    /// A gateway's socket that a shim gave back.
    pub(crate) fn returned(instance: &str, socket: OwnedFd) -> io::Result<Self> {
        let purpose = ListenerPurpose::Gateway {
            instance: instance.to_owned(),
        };
        Self::tcp(purpose, TcpListener::from(socket))
    }

    /// The command line's Unix socket.
    pub(crate) fn control(state: &State) -> io::Result<Self> {
        let path = state.run("control.sock");
        Ok(Self {
            purpose: ListenerPurpose::Control,
            address: path.display().to_string(),
            socket: bind_unix(&path, 0o600, true)?,
        })
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.address
            .parse::<SocketAddr>()
            .ok()
            .map(|address| address.port())
    }

    /// From now on connections are refused.
    pub(crate) fn refuse(&self) {
        if self.purpose != ListenerPurpose::Control {
            let _already = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }

    /// Accepts again on the same address.
    pub(crate) fn accept_again(&mut self) -> io::Result<()> {
        Ok(rustix::net::listen(self.socket.as_fd(), BACKLOG)?)
    }

    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(&self.socket, 3)?)
    }
}

/// Binds a Unix socket in place of a dead one; its mode says who may connect.
pub(crate) fn bind_unix(path: &Path, mode: u32, listen: bool) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let address = unix_address(path)?;
    rustix::net::bind(&socket, &address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if listen {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// A Unix address; a path longer than the 107 bytes it may have is refused in words.
pub(crate) fn unix_address(path: &Path) -> io::Result<rustix::net::SocketAddrUnix> {
    rustix::net::SocketAddrUnix::new(path).map_err(|_| {
        let length = path.as_os_str().len();
        io::Error::other(format!(
            "{} is {length} bytes long and a socket's path may have 107: choose a state directory with a shorter path",
            path.display()
        ))
    })
}
