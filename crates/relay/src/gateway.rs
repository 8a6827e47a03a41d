//! The agent's door: each of its connections becomes one to the hub.
//!
//! While the hub is away a connection is held for some seconds, and reset when they are over: an
//! agent's client then tries again by itself. What the agent sent already goes out with the hello,
//! so that a request costs no further round trip; it is sent once more only to a hub that said that
//! it didn't take it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::frame::Decoder;
use contract::pod::{Purpose, ToPod};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::Relay;
use crate::door::{Tls, chain, hear};
use crate::pipe::{Near as _, pipe};

/// How long an agent's connection is held for a hub that isn't there.
const HOLD: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_millis(500);
/// What goes out before the hub has taken the connection.
const AHEAD_BYTES: usize = 16 * 1024;
/// No descriptors are left, or no memory: others may end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn serve(relay: Arc<Relay>, listener: TcpListener) {
    loop {
        let slots = Arc::clone(&relay.gateway_slots);
        let Ok(slot) = slots.acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((near, _)) => {
                let relay = Arc::clone(&relay);
                tokio::spawn(async move {
                    let _slot = slot;
                    connection(&relay, near).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(relay: &Relay, near: TcpStream) {
    let _slower = near.set_nodelay(true);
    match tokio::time::timeout(HOLD, reach(relay, &near)).await {
        Ok(Ok((tls, first))) => pipe(near, tls, first).await,
        Ok(Err(Broken(reason))) => {
            tracing::debug!(reason, "a connection of the agent's ends");
            near.reset();
        }
        Err(_) => near.reset(),
    }
}

/// Why a connection can't go on, whatever is tried.
struct Broken(String);

/// Tries until the hub takes the connection.
async fn reach(relay: &Relay, near: &TcpStream) -> Result<(Tls, Vec<u8>), Broken> {
    let started = Instant::now();
    let mut pause = RETRY_FIRST;
    let mut ahead = Vec::new();
    loop {
        match attempt(relay, near, &mut ahead).await? {
            Some(reached) => return Ok(reached),
            None => tracing::debug!(held = ?started.elapsed(), "the hub is away"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
    }
}

/// One try. `None`: the hub isn't there, or says that it took nothing and may do so later.
async fn attempt(
    relay: &Relay,
    near: &TcpStream,
    ahead: &mut Vec<u8>,
) -> Result<Option<(Tls, Vec<u8>)>, Broken> {
    let told = relay.offered.borrow().clone();
    let (mut tls, mut hello) = match relay.door.dial(Purpose::Gateway, &told).await {
        Ok(dialed) => dialed,
        Err(error) => {
            relay.standing.trouble(chain(&error));
            return Ok(None);
        }
    };
    let broken = |what: &str, error: io::Error| Broken(format!("{what}: {error}"));
    read_ahead(near, ahead).map_err(|error| broken("the agent broke it", error))?;
    hello.extend_from_slice(ahead);
    let mut decoder = Decoder::default();
    let answer = async {
        tls.write_all(&hello).await?;
        tls.flush().await?;
        hear(&mut tls, &mut decoder).await
    };
    match answer.await {
        Ok(ToPod::Welcome { .. }) => Ok(Some((tls, decoder.into_rest()))),
        Ok(ToPod::Refused { retry: true, .. }) => Ok(None),
        Ok(ToPod::Refused { reason, .. }) => {
            let refused = format!("the hub refuses the agent's connections: {reason}");
            relay.standing.trouble(refused.clone());
            Err(Broken(refused))
        }
        Ok(_) => Err(Broken("the hub answers as none of ours would".to_owned())),
        // It may have taken what was sent: only the agent may send that again.
        Err(error) if !ahead.is_empty() => Err(broken("the hub broke it", error)),
        Err(_) => Ok(None),
    }
}

/// Takes what the agent has sent by now.
fn read_ahead(near: &TcpStream, ahead: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while ahead.len() + buffer.len() <= AHEAD_BYTES {
        match near.try_read(&mut buffer) {
            // Its end is seen again by the pipe.
            Ok(0) => return Ok(()),
            Ok(count) => ahead.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
