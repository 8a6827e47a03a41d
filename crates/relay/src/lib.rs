//! The relay of a pod: TLS to the hub for the shim beside it and for the agent's gateway.
//!
//! It passes bytes and decides nothing. A process of its own, because the shim has one thread and
//! links no TLS. A connection's clean end and its reset are kept apart all the way: to an agent a
//! broken answer must not look like a whole one.

mod door;
mod gateway;
mod offer;
mod pipe;
mod probe;
mod reach;
mod source;
mod standing;
mod supervisor;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::keeper::InstanceKind;
use contract::pod::{FACADE_PORT, Pod, ToRelay};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use door::Door;
use reach::Pace;
pub use source::{SourceError, fetch};
use standing::Standing;

/// Connections of the agent's to its gateway at a time; further ones wait in the listener's queue.
const GATEWAY_CONNECTIONS: u32 = 1024;
/// Connections that the hub opened into the pod at a time; a further one waits for its turn.
const OPENED_CONNECTIONS: u32 = 1024;
/// Offers that lie idle at the hub: one to be taken, one for whoever comes at the same time.
const IDLE_OFFERS: u32 = 2;
/// How long after its start a relay has done everything that it does once.
const SETTLES_IN: Duration = Duration::from_secs(5);
/// How long what is under way may take once the relay is to leave.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// What a relay is given by its supervisor.
#[derive(Debug)]
pub struct Options {
    pub pod: Pod,
    /// Below it lie certificate, token and the shim's socket.
    pub root: PathBuf,
    /// The agent connects to it.
    pub gateway: std::net::TcpListener,
    /// The kubelet asks there.
    pub probes: std::net::TcpListener,
    /// What offers say comes from here; its end is the relay's.
    pub supervisor: UnixStream,
    /// Is called once, when the relay has settled: what only a start needs can go.
    pub settled: fn(),
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("cannot read the hub's address {text:?}, which should be ADDRESS:PORT")]
    Address { text: String },
    #[error("cannot use what the supervisor handed over")]
    Inherited(#[source] io::Error),
    #[error("cannot hear from the supervisor")]
    Supervisor(#[source] io::Error),
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
}

/// What all its parts share.
pub(crate) struct Relay {
    pub(crate) door: Door,
    pub(crate) root: PathBuf,
    pub(crate) standing: Standing,
    pub(crate) offered: watch::Receiver<ToRelay>,
    pub(crate) gateway_slots: Arc<Semaphore>,
    pub(crate) opened_slots: Arc<Semaphore>,
}

/// Runs the relay on this thread until its supervisor lets it go.
pub fn run(options: Options) -> Result<(), RelayError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(RelayError::Runtime)?;
    runtime.block_on(serve(options))
}

/// The same within a runtime.
pub async fn serve(options: Options) -> Result<(), RelayError> {
    let text = &options.pod.hub;
    let address: SocketAddr = text
        .parse()
        .map_err(|_| RelayError::Address { text: text.clone() })?;
    let gateway = listener(options.gateway)?;
    let probes = listener(options.probes)?;
    let mut supervisor = supervisor::Supervisor::new(options.supervisor)?;
    let first = supervisor.hear().await.map_err(RelayError::Supervisor)?;
    let Some(first) = first else { return Ok(()) };
    let (offered_tx, offered) = watch::channel(first);
    let relay = Arc::new(Relay {
        door: Door::new(address, &options.root, &options.pod),
        root: options.root,
        standing: Standing::default(),
        offered,
        gateway_slots: Arc::new(Semaphore::new(GATEWAY_CONNECTIONS as usize)),
        opened_slots: Arc::new(Semaphore::new(OPENED_CONNECTIONS as usize)),
    });
    for _ in 0..IDLE_OFFERS {
        tokio::spawn(offer::keep(Arc::clone(&relay)));
    }
    tokio::spawn(gateway::serve(Arc::clone(&relay), gateway));
    tokio::spawn(probe::serve(Arc::clone(&relay), probes));
    if options.pod.kind != InstanceKind::Mcp {
        // What a tool's pod may reach depends on the cluster's addresses; an agent's may not go there.
        let forbidden = SocketAddr::new(address.ip(), FACADE_PORT);
        tokio::spawn(reach::watch(Arc::clone(&relay), forbidden, Pace::USUAL));
    }
    let settled = options.settled;
    tokio::spawn(async move {
        tokio::time::sleep(SETTLES_IN).await;
        settled();
    });
    let heard = supervisor.follow(offered_tx).await;
    let opened = relay.opened_slots.acquire_many(OPENED_CONNECTIONS);
    let _cut_off = tokio::time::timeout(LAST_BYTES, opened).await;
    heard.map_err(RelayError::Supervisor)
}

fn listener(socket: std::net::TcpListener) -> Result<TcpListener, RelayError> {
    let listener = socket
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(socket));
    listener.map_err(RelayError::Inherited)
}
