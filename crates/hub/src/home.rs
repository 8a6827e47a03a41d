//! The hub's side of its home: what it hears (`HomeEvent`) and what it asks for (`ToKeeper`).
//!
//! Descriptors are received by the binary's wiring, which may use the kernel; the hub sees
//! listeners and messages. On Kubernetes another home feeds the same channel.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use contract::keeper::{ListenerPurpose, ToHub, ToKeeper};

/// A listening socket that the home opened.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What the home tells the hub.
#[derive(Debug)]
pub enum HomeEvent {
    Message(ToHub),
    Listener {
        purpose: ListenerPurpose,
        address: String,
        listener: Listener,
    },
    /// The keeper is gone: finish the commit and exit.
    Gone,
}

/// Both directions. The sender must not block: the wiring owns a bounded queue and a thread.
#[derive(Debug)]
pub struct HomeLink {
    pub events: tokio::sync::mpsc::Receiver<HomeEvent>,
    pub commands: tokio::sync::mpsc::UnboundedSender<ToKeeper>,
}
