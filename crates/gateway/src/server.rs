//! One listener for each instance, HTTP/1.1 over hyper itself: header time-outs, bounded
//! connections and resets need what a framework hides.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::Gateway;
use crate::room::Room;
use crate::route;
use crate::wire::Wire;

/// A client that has sent no whole head by then is cut off. It also bounds how long an idle
/// connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections of one instance; more of them wait in the kernel.
const MAX_CONNECTIONS: usize = 1024;

/// Serves every listener that the hub hands out, until the hub stops.
pub async fn run(gateway: Arc<Gateway>) {
    let mut listeners = gateway.hub.gateway_listeners();
    let mut serving: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        let next = tokio::select! {
            next = listeners.recv() => next,
            () = gateway.hub.stopping() => None,
        };
        let Some((instance, listener)) = next else {
            break;
        };
        let task = match adopt(listener) {
            Ok(listener) => {
                tokio::spawn(accept(gateway.clone(), instance.clone().into(), listener))
            }
            Err(error) => {
                tracing::error!(%error, instance, "failed to serve the gateway listener of an instance");
                continue;
            }
        };
        // Instances come and go for good where they are pods.
        serving.retain(|_, task| !task.is_finished());
        if let Some(older) = serving.insert(instance, task.abort_handle()) {
            older.abort();
        }
    }
    // Connections that are open are served on; new ones wait for the next hub.
    for task in serving.values() {
        task.abort();
    }
}

fn adopt(listener: std::net::TcpListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(gateway: Arc<Gateway>, instance: Arc<str>, listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let room = Room::default();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (gateway, instance, room) = (gateway.clone(), instance.clone(), room.clone());
                tokio::spawn(async move {
                    serve_connection(gateway, instance, room, stream).await;
                    drop(permit);
                });
            }
            // It was shut down: announced again when it is back, if ever.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return,
            Err(error) => {
                // Out of descriptors: try again, but not in a loop that burns.
                tracing::debug!(%error, %instance, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(
    gateway: Arc<Gateway>,
    instance: Arc<str>,
    room: Room,
    stream: TcpStream,
) {
    // Small pieces of a stream must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let (wire, connection) = Wire::new(stream);
    let service = service_fn(|request| {
        let (gateway, instance, room, connection) = (
            gateway.clone(),
            instance.clone(),
            room.clone(),
            connection.clone(),
        );
        async move {
            Ok::<_, Infallible>(route::serve(gateway, instance, room, connection, request).await)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let served = tokio::select! {
        served = serving => served,
        // Dropping what serves it closes the socket.
        () = connection.cut() => Ok(()),
    };
    if let Err(error) = served {
        tracing::trace!(%error, %instance, "a connection of an agent ended");
    }
}
