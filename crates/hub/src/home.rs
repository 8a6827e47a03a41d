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

/// Text that no debug output shows.
#[derive(Clone)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SecretText")
    }
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
    /// What a credential file holds, read by the keeper.
    CredentialFile {
        path: String,
        text: SecretText,
    },
    /// The keeper is gone: finish the commit and exit.
    Gone,
}

/// Both directions. Events are bounded: a hub that doesn't read makes the keeper wait. Commands
/// have no bound of their own, for their sender must not block: each answers an event, a commit or
/// an operator's call, of which there are only so many. The wiring's thread writes them out.
#[derive(Debug)]
pub struct HomeLink {
    pub events: tokio::sync::mpsc::Receiver<HomeEvent>,
    pub commands: tokio::sync::mpsc::UnboundedSender<ToKeeper>,
}
