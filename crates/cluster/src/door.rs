//! The pods' door: TLS, one frame that says who calls, and then bytes.
//!
//! A pod dials in and is believed by its token alone (`token`). An offer is kept for the hub to
//! use; a gateway connection is joined with the instance's own loopback listener, so that the
//! gateway knows by the listener whose call it is. What a stranger can hold is bounded until its
//! token is believed (`strangers`). A pod that has only its init container yet asks for its agent's
//! code (`source`), and is no pod of ours by that.

mod strangers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contract::Versions;
use contract::pod::{FromPod, Purpose, ToPod};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::offer::{Offer, Stream, write};
use crate::pods::{Pods, bounded};
use crate::ready::Readiness;
use crate::source::Sources;
use crate::token::{Identity, Tokens};
use crate::{pipe, socket};
use strangers::{Place, Strangers};

/// The first frame: a token has one or two KiB.
const MAX_FIRST: usize = 64 * 1024;
/// For the handshake and the first frame together.
const FIRST: Duration = Duration::from_secs(3);
/// How long one waits to be heard: no relay is still there after it.
const TURN: Duration = Duration::from_secs(10);
/// Pause after a failed accept: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the door can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("certificate and key of {path} can't be used")]
    Use {
        path: PathBuf,
        source: rustls::Error,
    },
}

/// Why a pod is not let in, and whether another try can help.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    pub(crate) retry: bool,
}

/// The door.
#[derive(Clone)]
pub struct Door {
    pods: Pods,
    tokens: Arc<Tokens>,
    readiness: watch::Receiver<Readiness>,
    sources: Sources,
    tls: TlsAcceptor,
}

impl Door {
    /// A door with this certificate and key, both PEM files.
    pub fn new(
        pods: Pods,
        tokens: Arc<Tokens>,
        readiness: watch::Receiver<Readiness>,
        sources: Sources,
        (certificate, key): (&Path, &Path),
    ) -> Result<Self, DoorError> {
        Ok(Self {
            pods,
            tokens,
            readiness,
            sources,
            tls: acceptor(certificate, key)?,
        })
    }

    /// Serves until it is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let strangers = Strangers::new();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(place) = strangers.place(peer.ip()) else {
                        tracing::debug!(%peer, "too many strangers are at the pods' door");
                        continue;
                    };
                    let door = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = door.welcome(stream, place).await {
                            tracing::debug!(%error, "a pod's connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a pod's connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn welcome(self, stream: TcpStream, place: Place) -> io::Result<()> {
        socket::watch(&stream)?;
        let turn = tokio::time::timeout(TURN, place.turn()).await?;
        let first = async {
            let mut stream = self.tls.accept(stream).await?;
            let frame = first_frame(&mut stream).await?;
            Ok::<_, io::Error>((stream, frame))
        };
        let (mut stream, frame) = tokio::time::timeout(FIRST, first).await??;
        let admitted = self.admit(&frame).await;
        let identity = match admitted {
            Ok(identity) => identity,
            Err(refused) => {
                tracing::warn!(owner = %bounded(&frame.owner), reason = refused.reason, "a pod was refused");
                return refuse(stream, refused).await;
            }
        };
        drop((turn, place));
        let source = match frame.purpose {
            Purpose::Source => self.sources.find(&identity.owner, &frame),
            Purpose::Offer | Purpose::Gateway => Ok(None),
        };
        let source = match source {
            Ok(source) => source,
            Err(refused) => return refuse(stream, refused).await,
        };
        let versions = Versions::OURS;
        write(&mut stream, &ToPod::Welcome { versions }).await?;
        match frame.purpose {
            Purpose::Source => self.sources.send(source, stream).await,
            Purpose::Offer => self.keep_offer(identity, stream).await,
            Purpose::Gateway => self.join_gateway(&identity, stream).await,
        }
    }

    /// Who it is, if it is let in; from here on its pod is known.
    async fn admit(&self, frame: &FromPod) -> Result<Identity, Refused> {
        if Versions::OURS.agree(frame.versions).is_none() {
            return Err(Refused {
                reason: format!(
                    "the hub speaks versions {} to {} of the contract, none of the pod's",
                    Versions::OURS.oldest,
                    Versions::OURS.newest
                ),
                retry: false,
            });
        }
        let known = |pod: &str, uid: &str| self.pods.owner_of(pod, uid);
        let identity = self
            .tokens
            .admit(frame, known)
            .await
            .map_err(|error| Refused {
                reason: error.to_string(),
                retry: error.may_pass(),
            })?;
        if frame.purpose == Purpose::Source {
            // Nothing runs there yet.
            return Ok(identity);
        }
        let met = self.pods.meet(&identity, frame).await;
        met.map_err(|error| Refused {
            reason: error.to_string(),
            retry: error.may_pass(),
        })?;
        Ok(identity)
    }

    async fn keep_offer(&self, identity: Identity, stream: Stream) -> io::Result<()> {
        let (offer, kept) = Offer::new();
        if let Err(error) = self.pods.offer(&identity, offer) {
            tracing::debug!(pod = identity.pod, %error, "an offer was not taken");
            return Ok(());
        }
        kept.keep(stream, &identity.owner, self.readiness.clone())
            .await
    }

    async fn join_gateway(&self, identity: &Identity, stream: Stream) -> io::Result<()> {
        let Some(to) = self.pods.gateway(identity) else {
            return Err(io::Error::other("the pod is gone"));
        };
        // One more than it may have is not served: it would wait where its agent can't see it.
        let Ok(_slot) = to.slots.try_acquire_owned() else {
            return Err(io::Error::other("the pod has too many connections"));
        };
        let gateway = TcpStream::connect(to.address).await?;
        gateway.set_nodelay(true)?;
        pipe::join(stream, gateway).await
    }
}

/// Reads exactly the first frame: what follows it is the agent's.
async fn first_frame(stream: &mut Stream) -> io::Result<FromPod> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_FIRST {
        return Err(io::Error::other("the first frame is too large"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

/// Says why, and ends cleanly.
async fn refuse(mut stream: Stream, refused: Refused) -> io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let Refused { reason, retry } = refused;
    let said = async {
        write(&mut stream, &ToPod::Refused { reason, retry }).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(FIRST, said).await?
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, DoorError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| DoorError::Read { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(read(certificate))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(read(key))?;
    let unusable = |source| DoorError::Use {
        path: certificate.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
pub(crate) mod tests;
