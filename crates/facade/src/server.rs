//! The two doors: listeners from the home, connections driven by hyper, an end when the hub stops.
//!
//! hyper is driven here and not through `axum::serve`, which has no header read timeout. What a
//! stranger can hold is bounded before any handler runs: a connection's slot, [`HEADER_TIMEOUT`],
//! [`HEADER_BYTES`]. The command line's socket has slots of its own, so that a full house in front
//! never locks the owner out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hub::Hub;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::connection::{Connection, Linger, Peer};
use crate::door::{Door, Options, Stop};
use crate::problem::Problem;
use crate::{auth, control, openai, origin, page, probe, rest, tls, ws};

/// For a TLS handshake, a request's head, and the pause between two requests of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest request head, and the largest read at once.
const HEADER_BYTES: usize = 64 * 1024;
/// What connections have to finish after the hub said stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections of the command line at once.
const CONTROL_CONNECTIONS: usize = 128;
/// Connections of monitors to their own port at once.
const METRICS_CONNECTIONS: usize = 64;

/// Serves all listeners that the home hands to the hub until the hub stops and connections have
/// ended, or have had [`DRAIN`]. May be called once for a hub.
pub async fn serve(hub: Hub, options: Options) {
    let (stop_tx, stop) = Stop::new();
    let (mut network_rx, mut control_rx) = (hub.facade_listeners(), hub.control_listeners());
    let mut metrics_rx = hub.metrics_listeners();
    let client_slots = slots(options.max_connections);
    let (control_slots, metrics_slots) = (slots(CONTROL_CONNECTIONS), slots(METRICS_CONNECTIONS));
    let door = Door {
        hub: hub.clone(),
        stop,
        options: Arc::new(options),
    };
    let (front, back) = (network_router(&door), control_router(&door));
    loop {
        tokio::select! {
            Some(listener) = network_rx.recv() => {
                if let Some((listener, tls)) = adopt_tcp(listener, &door) {
                    let guarded = Guarded { router: front.clone(), slots: client_slots.clone(), tls };
                    tokio::spawn(guarded.accept(listener, door.stop.clone()));
                }
            }
            Some(listener) = metrics_rx.recv() => {
                if let Some((listener, tls)) = adopt_tcp(listener, &door) {
                    let router = metrics_router(&door);
                    let guarded = Guarded { router, slots: metrics_slots.clone(), tls };
                    tokio::spawn(guarded.accept(listener, door.stop.clone()));
                }
            }
            Some(listener) = control_rx.recv() => {
                if let Some(listener) = adopt_unix(listener) {
                    tokio::spawn(accept_control(listener, back.clone(), control_slots.clone(), door.clone()));
                }
            }
            () = hub.stopping() => break,
        }
    }
    let _ = stop_tx.send(true);
    let all_gone = async { tokio::join!(all(&client_slots), all(&control_slots)) };
    if tokio::time::timeout(DRAIN, all_gone).await.is_err() {
        tracing::info!("clients were still connected when the facade stopped");
    }
}

/// Slots with their number at the start, to know when all are free again.
struct Slots {
    semaphore: Arc<Semaphore>,
    number: u32,
}

fn slots(wanted: usize) -> Arc<Slots> {
    // Journal, gateway and instances need descriptors too.
    let files = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| {
            usize::try_from(files).unwrap_or(usize::MAX)
        });
    let number = u32::try_from(wanted.min(files / 4 * 3).max(1)).unwrap_or(u32::MAX >> 4);
    Arc::new(Slots {
        semaphore: Arc::new(Semaphore::new(number as usize)),
        number,
    })
}

async fn all(slots: &Slots) {
    let _ = slots.semaphore.acquire_many(slots.number).await;
}

/// Everything a client may ask, each part behind its own way of asking for the token.
fn network_router(door: &Door) -> Router {
    let layer = |router: Router<Door>, kind: Kind| kind.protect(router, door);
    layer(rest::router(), Kind::Api)
        .merge(layer(probe::metrics(), Kind::Metrics))
        .merge(layer(control::router(), Kind::Api))
        .merge(layer(openai::router(), Kind::OpenAi))
        .merge(layer(ws::router(), Kind::Socket))
        .merge(layer(page::router(), Kind::Page))
        .merge(probe::open())
        .fallback(async || Problem::no_such_path())
        .method_not_allowed_fallback(async || Problem::method())
        .layer(axum::middleware::from_fn_with_state(
            door.clone(),
            origin::check,
        ))
        .with_state(door.clone())
}

/// Monitors' own port: metrics without a token, and nothing else.
fn metrics_router(door: &Door) -> Router {
    probe::metrics()
        .fallback(async || Problem::no_such_path())
        .method_not_allowed_fallback(async || Problem::method())
        .layer(axum::middleware::from_fn_with_state(
            door.clone(),
            origin::check_on_loopback,
        ))
        .with_state(door.clone())
}

/// What clients may ask, without a token: who calls is the kernel's word.
fn control_router(door: &Door) -> Router {
    rest::router()
        .merge(probe::metrics())
        .merge(openai::router())
        .merge(ws::router())
        .merge(page::router())
        .merge(probe::open())
        .merge(control::router())
        .fallback(async || Problem::no_such_path())
        .method_not_allowed_fallback(async || Problem::method())
        .layer(axum::middleware::from_fn(control::admit))
        .with_state(door.clone())
}

/// How a part of the TCP door asks for the token.
enum Kind {
    Api,
    Metrics,
    OpenAi,
    Socket,
    Page,
}

impl Kind {
    fn protect(&self, router: Router<Door>, door: &Door) -> Router<Door> {
        use axum::middleware::from_fn_with_state as layer;
        match self {
            Self::Api => router.route_layer(layer(door.clone(), auth::bearer)),
            Self::Metrics => router.route_layer(layer(door.clone(), auth::metrics)),
            Self::OpenAi => router.route_layer(layer(door.clone(), auth::openai)),
            Self::Socket => router.route_layer(layer(door.clone(), auth::socket)),
            Self::Page => router.route_layer(layer(door.clone(), auth::page)),
        }
    }
}

/// A listener and, off loopback, its TLS. Without what it needs it is not served.
fn adopt_tcp(
    listener: std::net::TcpListener,
    door: &Door,
) -> Option<(TcpListener, Option<TlsAcceptor>)> {
    let adopted = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
        .and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (local, listener) = adopted
        .inspect_err(|e| tracing::error!("a facade listener can't be served: {e}"))
        .ok()?;
    match tls::acceptor(&door.hub.state_dir(), local, &door.options) {
        Ok(tls) => Some((listener, tls)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, %local, "clients can't be served here without TLS");
            None
        }
    }
}

fn adopt_unix(listener: std::os::unix::net::UnixListener) -> Option<UnixListener> {
    let adopted = listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener));
    adopted
        .inspect_err(|e| tracing::error!("a control listener can't be served: {e}"))
        .ok()
}

/// What stands behind a TCP listener.
struct Guarded {
    router: Router,
    slots: Arc<Slots>,
    tls: Option<TlsAcceptor>,
}

impl Guarded {
    async fn accept(self, listener: TcpListener, mut stop: Stop) {
        let signal = stop.clone();
        loop {
            let accept = async { (slot(&self.slots).await, listener.accept().await) };
            let (slot, accepted) =
                tokio::select! { pair = accept => pair, () = stop.raised() => return };
            match (slot, accepted) {
                (Some(slot), Ok((socket, _))) => self.welcome(socket, slot, &signal),
                (Some(_), Err(e)) if !is_closed(&e) => tokio::time::sleep(ACCEPT_PAUSE).await,
                _ => return,
            }
        }
    }

    fn welcome(&self, socket: TcpStream, slot: OwnedSemaphorePermit, stop: &Stop) {
        let Ok(local) = socket.local_addr() else {
            return;
        };
        let _ = socket.set_nodelay(true);
        let (router, stop) = (self.router.clone(), stop.clone());
        let connection = Connection::new(socket, slot);
        let secure = self.tls.is_some();
        let about = (Peer::Network { local, secure }, connection.linger());
        let Some(tls) = self.tls.clone() else {
            tokio::spawn(drive(connection, about, router, stop));
            return;
        };
        tokio::spawn(async move {
            match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(connection)).await {
                Ok(Ok(connection)) => drive(connection, about, router, stop).await,
                Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
}

async fn accept_control(listener: UnixListener, router: Router, slots: Arc<Slots>, door: Door) {
    let mut stop = door.stop.clone();
    loop {
        let accept = async { (slot(&slots).await, listener.accept().await) };
        let (slot, accepted) =
            tokio::select! { pair = accept => pair, () = stop.raised() => return };
        match (slot, accepted) {
            (Some(slot), Ok((socket, _))) => {
                let peer = peer(&socket, &door.hub);
                let connection = Connection::new(socket, slot);
                let about = (peer, connection.linger());
                tokio::spawn(drive(connection, about, router.clone(), door.stop.clone()));
            }
            (Some(_), Err(e)) if !is_closed(&e) => tokio::time::sleep(ACCEPT_PAUSE).await,
            _ => return,
        }
    }
}

async fn slot(slots: &Slots) -> Option<OwnedSemaphorePermit> {
    slots.semaphore.clone().acquire_owned().await.ok()
}

/// The keeper shut the listener down; it is announced again when it is back.
fn is_closed(error: &std::io::Error) -> bool {
    matches!(
        error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::INVAL | rustix::io::Errno::BADF)
    )
}

/// Who calls, by the kernel's word, and whether that is welcome.
fn peer(socket: &UnixStream, hub: &Hub) -> Peer {
    let Ok(credentials) = socket.peer_cred() else {
        return Peer::Refused("the kernel does not say who calls");
    };
    let owner = rustix::process::geteuid().as_raw();
    control::peer(credentials.uid(), credentials.pid(), owner, |pid| {
        hub.is_instance_process(pid)
    })
}

async fn drive<C>(connection: C, about: (Peer, Linger), router: Router, mut stop: Stop)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let (peer, linger) = about.clone();
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(linger);
        router.clone().call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES);
    let mut served = std::pin::pin!(
        builder
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades()
    );
    tokio::select! {
        ended = served.as_mut() => return log(ended),
        () = stop.raised() => served.as_mut().graceful_shutdown(),
    }
    log(served.await);
}

/// A client that goes away is nothing to report.
fn log(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_all_open_files() {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(u64::from(slots(usize::MAX / 2).number) <= files / 4 * 3);
        assert_eq!(slots(3).number, 3);
    }

    #[test]
    fn a_listener_that_was_shut_down_is_let_go_and_other_failures_pass() {
        assert!(is_closed(&std::io::Error::from_raw_os_error(
            rustix::io::Errno::INVAL.raw_os_error()
        )));
        assert!(!is_closed(&std::io::Error::from_raw_os_error(
            rustix::io::Errno::MFILE.raw_os_error()
        )));
    }
}
