//! Connections that lie idle at the hub until it wants to reach the pod: its shim, or its service.
//!
//! The hub can't connect to a pod; it takes one of these. One that was taken is replaced at once.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::frame::Decoder;
use contract::pod::{Network, Purpose, SHIM_SOCKET, Target, ToPod, ToRelay, below};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::Relay;
use crate::door::{Tls, chain, hear};
use crate::pipe::pipe;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MOST: Duration = Duration::from_secs(1);
/// A hub that says that another try is no use is asked again all the same: it may be replaced.
const REFUSED_WAIT: Duration = Duration::from_secs(10);
/// For a socket in the same pod.
const NEAR_TIMEOUT: Duration = Duration::from_secs(2);
const SHIM_RETRY: Duration = Duration::from_millis(5);

/// What became of one offer.
enum Outcome {
    /// Taken, or to be made anew because it would say something else now.
    Next,
    Refused {
        retry: bool,
        reason: String,
    },
}

/// Keeps one idle offer at the hub for ever.
pub(crate) async fn keep(relay: Arc<Relay>) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let mut welcomed = false;
        let ended = offer(&relay, &mut welcomed).await;
        if welcomed {
            backoff = BACKOFF_FIRST;
        }
        let wait = match ended {
            Ok(Outcome::Next) => continue,
            Ok(Outcome::Refused { retry, reason }) => {
                relay
                    .standing
                    .trouble(format!("the hub refuses this pod: {reason}"));
                if retry { backoff } else { REFUSED_WAIT }
            }
            Err(error) => {
                relay.standing.trouble(chain(&*error));
                backoff
            }
        };
        tokio::time::sleep(wait).await;
        backoff = (backoff * 2).min(BACKOFF_MOST);
    }
}

async fn offer(
    relay: &Arc<Relay>,
    welcomed: &mut bool,
) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
    let mut offered = relay.offered.clone();
    let told = offered.borrow_and_update().clone();
    let mut network = relay.door.network.subscribe();
    let (mut tls, hello) = relay.door.dial(Purpose::Offer, &told).await?;
    tls.write_all(&hello).await?;
    tls.flush().await?;
    let mut decoder = Decoder::default();
    let mut counts = None;
    loop {
        let message = tokio::select! {
            message = hear(&mut tls, &mut decoder) => message?,
            () = changed(&mut offered, &mut network) => {
                let _gone = tls.shutdown().await;
                return Ok(Outcome::Next);
            }
        };
        match message {
            ToPod::Welcome { .. } => {
                *welcomed = true;
                counts.get_or_insert_with(|| relay.standing.welcomed());
            }
            ToPod::Ready { ready, reason } => relay.standing.told(ready, reason),
            ToPod::Refused { reason, retry } => return Ok(Outcome::Refused { retry, reason }),
            ToPod::Open { target } => {
                let relay = Arc::clone(relay);
                tokio::spawn(open(relay, target, told, tls, decoder.into_rest()));
                return Ok(Outcome::Next);
            }
        }
    }
}

/// Until the supervisor says something else, or something else was found of the network.
async fn changed(offered: &mut watch::Receiver<ToRelay>, network: &mut watch::Receiver<Network>) {
    let changed = tokio::select! {
        changed = offered.changed() => changed,
        changed = network.changed() => changed,
    };
    if changed.is_err() {
        // The supervisor is gone, and the relay leaves.
        std::future::pending::<()>().await;
    }
}

/// One that was killed is there again in a moment.
async fn shim(socket: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(socket).await {
            Ok(near) => return near,
            Err(_) => tokio::time::sleep(SHIM_RETRY).await,
        }
    }
}

/// Connects what the hub took to what it wants. What can't be reached is a connection that broke.
async fn open(relay: Arc<Relay>, target: Target, told: ToRelay, tls: Tls, first: Vec<u8>) {
    let slots = Arc::clone(&relay.opened_slots);
    let Ok(_slot) = slots.acquire_owned().await else {
        return;
    };
    match target {
        Target::Shim => {
            let socket = below(&relay.root, SHIM_SOCKET);
            match tokio::time::timeout(NEAR_TIMEOUT, shim(&socket)).await {
                Ok(near) => pipe(near, tls, first).await,
                Err(_) => tracing::debug!("the shim can't be reached"),
            }
        }
        Target::Port { port } if told.service_port == Some(port) => {
            let address = (Ipv4Addr::LOCALHOST, port);
            match tokio::time::timeout(NEAR_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(near)) => {
                    let _slower = near.set_nodelay(true);
                    pipe(near, tls, first).await;
                }
                failed => tracing::debug!(?failed, port, "the service can't be reached"),
            }
        }
        Target::Port { port } => {
            tracing::warn!(port, "the hub asks for a port that is not the service's");
        }
    }
}
