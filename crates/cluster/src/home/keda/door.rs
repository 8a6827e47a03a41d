//! The door for KEDA: TLS with the hub's certificate, and nobody in but who has the certificate
//! that was made for KEDA.
//!
//! That certificate comes as a file, which the kubelet brings when the operator has made it, maybe
//! long after the hub has started. So it's read for each connection, of which there are few: KEDA
//! keeps one for a hub. Without the file nobody is let in.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{ExternalScalerServer, Keda};

/// Connections at once: KEDA has one, and another while it starts anew.
const CONNECTIONS: usize = 16;
/// Calls at once on one of them: two streams for each agent.
const CALLS: u32 = 4096;
/// For the handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// A connection is asked this often whether it's still there, and has as long to answer.
const ALIVE: Duration = Duration::from_secs(30);
/// Pause after a failed accept: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);
/// The one protocol of gRPC, as TLS calls it.
const PROTOCOL: &[u8] = b"h2";

/// Where KEDA is served.
#[derive(Clone, Debug)]
pub struct KedaOptions {
    pub listen: SocketAddr,
    /// KEDA's certificate, PEM; it may not be there yet.
    pub client: PathBuf,
}

/// Why a connection isn't served.
#[derive(Debug, thiserror::Error)]
enum KedaDoorError {
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("certificates can't be used")]
    Use(#[source] rustls::Error),
    #[error("KEDA's certificate can't be used")]
    Client(#[source] rustls::server::VerifierBuilderError),
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the connection ended")]
    Connection(#[source] hyper::Error),
}

/// The door.
#[derive(Clone)]
pub(in crate::home) struct KedaDoor {
    /// PEM files: the hub's certificate and its key, and KEDA's certificate.
    certificate: PathBuf,
    key: PathBuf,
    client: PathBuf,
}

impl KedaDoor {
    pub(in crate::home) fn new((certificate, key): (PathBuf, PathBuf), client: PathBuf) -> Self {
        Self {
            certificate,
            key,
            client,
        }
    }

    /// Serves until it is dropped.
    pub(in crate::home) async fn serve(self, listener: TcpListener, keda: Keda) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        // Never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (door, keda) = (self.clone(), keda.clone());
                    connections.spawn(async move {
                        if let Err(error) = door.welcome(stream, keda).await {
                            let error = &error as &dyn std::error::Error;
                            tracing::debug!(error, %peer, "KEDA is not served");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a connection of KEDA");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn welcome(self, stream: TcpStream, keda: Keda) -> Result<(), KedaDoorError> {
        let accepted = self.tls()?.accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE, accepted)
            .await
            .map_err(io::Error::from)
            .flatten()
            .map_err(KedaDoorError::Handshake)?;
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(CALLS)
            .keep_alive_interval(ALIVE)
            .keep_alive_timeout(ALIVE)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(ExternalScalerServer::new(keda)),
            )
            .await
            .map_err(KedaDoorError::Connection)
    }

    fn tls(&self) -> Result<TlsAcceptor, KedaDoorError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(unreadable(&self.key))?;
        let mut clients = RootCertStore::empty();
        for certificate in certificates(&self.client)? {
            clients.add(certificate).map_err(KedaDoorError::Use)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client =
            WebPkiClientVerifier::builder_with_provider(Arc::new(clients), Arc::clone(&provider))
                .build()
                .map_err(KedaDoorError::Client)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(KedaDoorError::Use)?
            .with_client_cert_verifier(client)
            .with_single_cert(chain, key)
            .map_err(KedaDoorError::Use)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KedaDoorError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl FnOnce(rustls::pki_types::pem::Error) -> KedaDoorError {
    let path = path.to_owned();
    move |source| KedaDoorError::Read { path, source }
}
