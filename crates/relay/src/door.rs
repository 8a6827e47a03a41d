//! The hub's door for pods: one TLS connection to it, with the frame that opens it.
//!
//! Certificate and token are read at each connection, because both are renewed beneath us. The name
//! in the hub's certificate is fixed, whatever address leads there; only the mounted certificate
//! vouches for it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::Versions;
use contract::frame::{Decoder, FrameError};
use contract::keeper::InstanceKind;
use contract::pod::{
    CA_FILE, FromPod, Network, Pod, Purpose, SERVER_NAME, TOKEN_FILE, ToPod, ToRelay, below,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// For one try: connection and handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// A hub, or its machine, that answers nothing for so long is gone.
const PEER_GONE: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(1);

pub(crate) type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// Why there is no connection to the hub.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot use the certificate in {path}")]
    Certificate {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot connect to the hub at {address}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot agree on TLS with the hub at {address}")]
    Handshake {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot say hello to the hub")]
    Hello(#[from] FrameError),
}

/// What came of a connection that is made only to see whether it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knock {
    /// By the hub itself.
    Answered,
    /// Refused, or nothing came back.
    NotMade,
    /// Something was there, and it did not show that it is the hub.
    Unclear,
}

pub(crate) struct Door {
    address: SocketAddr,
    certificate: PathBuf,
    token: PathBuf,
    owner: String,
    kind: InstanceKind,
    template: String,
    /// What was found of the network, which every frame says.
    pub(crate) network: watch::Sender<Network>,
    source: Option<String>,
    /// The certificate's file as it was, and what was made of it.
    config: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

impl Door {
    pub(crate) fn new(address: SocketAddr, root: &Path, pod: &Pod) -> Self {
        Self {
            address,
            certificate: below(root, CA_FILE),
            token: below(root, TOKEN_FILE),
            owner: pod.owner.clone(),
            kind: pod.kind,
            template: pod.template.clone(),
            network: watch::Sender::new(Network::Unknown),
            source: pod.source.clone(),
            config: Mutex::new(None),
        }
    }

    /// Connects, and gives the frame to send first.
    pub(crate) async fn dial(
        &self,
        purpose: Purpose,
        offered: &ToRelay,
    ) -> Result<(Tls, Vec<u8>), DoorError> {
        let hello = contract::frame::encode(&self.hello(purpose, offered)?)?;
        Ok((self.connect(self.address).await?, hello))
    }

    async fn connect(&self, address: SocketAddr) -> Result<Tls, DoorError> {
        let config = self.config()?;
        let tcp = timely(TcpStream::connect(address)).await;
        let tcp = tcp.and_then(|tcp| watch_peer(&tcp).map(|()| tcp));
        let tcp = tcp.map_err(|source| DoorError::Connect { address, source })?;
        let connector = TlsConnector::from(config);
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other);
        let tls = match name {
            Ok(name) => timely(connector.connect(name, tcp)).await,
            Err(error) => Err(error),
        };
        tls.map_err(|source| DoorError::Handshake { address, source })
    }

    /// Whether the hub is to be reached at another of its doors; says nothing there.
    pub(crate) async fn knock(&self, address: SocketAddr) -> Knock {
        match self.connect(address).await {
            Ok(mut tls) => {
                let _gone = timely(tls.shutdown()).await;
                Knock::Answered
            }
            Err(DoorError::Connect { source, .. }) if is_refusal(&source) => Knock::NotMade,
            Err(_) => Knock::Unclear,
        }
    }

    fn hello(&self, purpose: Purpose, offered: &ToRelay) -> Result<FromPod, DoorError> {
        let path = &self.token;
        let token = std::fs::read_to_string(path).map_err(|source| DoorError::Read {
            path: path.clone(),
            source,
        })?;
        Ok(FromPod {
            versions: Versions::OURS,
            purpose,
            token: token.trim().to_owned(),
            owner: self.owner.clone(),
            kind: self.kind,
            template: self.template.clone(),
            isolation: offered.isolation.clone(),
            service_port: offered.service_port,
            memory_percent: offered.memory_percent,
            draining: offered.draining,
            network: *self.network.borrow(),
            source: (purpose == Purpose::Source)
                .then(|| self.source.clone())
                .flatten(),
        })
    }

    /// Made again only when the file's content is another: sessions are resumed by it.
    fn config(&self) -> Result<Arc<ClientConfig>, DoorError> {
        let path = &self.certificate;
        let pem = std::fs::read(path).map_err(|source| DoorError::Read {
            path: path.clone(),
            source,
        })?;
        let mut known = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = known.as_ref().filter(|(of, _)| *of == pem) {
            return Ok(Arc::clone(config));
        }
        let config = config(&pem).map_err(|source| DoorError::Certificate {
            path: path.clone(),
            source,
        })?;
        let config = Arc::new(config);
        *known = Some((pem, Arc::clone(&config)));
        Ok(config)
    }
}

fn config(pem: &[u8]) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn timely<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timed = tokio::time::timeout(DIAL_TIMEOUT, step).await;
    timed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What a policy's enforcement does to a connection, and no trouble of our own does.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied,
        TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
    )
}

fn watch_peer(tcp: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(tcp, 1)?;
    let gone_ms = u32::try_from(PEER_GONE.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(tcp, gone_ms)?)
}

/// The hub's next frame; what follows the last one stays in the decoder.
pub(crate) async fn hear(tls: &mut Tls, decoder: &mut Decoder) -> io::Result<ToPod> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(message) = decoder.next().map_err(io::Error::other)? {
            return Ok(message);
        }
        match tls.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => decoder.push(&buffer[..count]),
        }
    }
}

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
