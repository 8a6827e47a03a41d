//! What every handler is given: the hub's handle, the wish to stop, and the options.
//!
//! Handlers that only call the hub extract `State<Hub>`; streams take the whole [`Door`], because
//! they must end when the hub stops.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::FromRef;
use hub::Hub;
use hub::artifact::Artifacts;
use tokio::sync::watch;

use crate::access::Review;

/// What the facade is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host names, besides the listen address and the loopback names, under which clients may
    /// call: `agents.example` or `agents.example:8443`.
    pub names: Vec<String>,
    /// Connections at once on the TCP door. Beyond it they wait in the listen backlog. Never more
    /// than three quarters of the process's open files are given to clients.
    pub max_connections: usize,
    /// Certificate and key, PEM files, of every TCP door; without them one is made where the
    /// address is not loopback.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who vouches for callers with tokens that aren't ours, where somebody does.
    pub review: Option<Review>,
    /// Where agents' code is kept that comes from elsewhere; nowhere on one server.
    pub artifacts: Option<Artifacts>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            max_connections: 24_576,
            tls: None,
            review: None,
            artifacts: None,
        }
    }
}

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) hub: Hub,
    pub(crate) stop: Stop,
    pub(crate) options: Arc<Options>,
}

impl FromRef<Door> for Hub {
    fn from_ref(door: &Door) -> Self {
        door.hub.clone()
    }
}

/// Turns true once, when the hub stops.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The signal and what raises it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (raise_tx, raise_rx) = watch::channel(false);
        (raise_tx, Self(raise_rx))
    }

    /// Resolves when the facade stops, also when its owner is gone.
    pub(crate) async fn raised(&mut self) {
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}
