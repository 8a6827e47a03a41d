//! TLS to Postgres by rustls: the glue that the driver asks for.
//!
//! A certificate is always checked, against Mozilla's roots or those in the file that the connection string names.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::server::ServerError;

/// Whose signatures on a server's certificate count.
pub(super) enum Roots {
    Mozilla,
    Given(RootCertStore),
}

impl Roots {
    pub(super) fn file(path: PathBuf) -> Result<Roots, ServerError> {
        let read = || -> Result<RootCertStore, Box<dyn std::error::Error + Send + Sync>> {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(&path)? {
                roots.add(certificate?)?;
            }
            if roots.is_empty() {
                return Err("there is none".into());
            }
            Ok(roots)
        };
        match read() {
            Ok(roots) => Ok(Roots::Given(roots)),
            Err(source) => Err(ServerError::Roots { path, source }),
        }
    }

    fn store(self) -> RootCertStore {
        match self {
            Roots::Given(store) => store,
            Roots::Mozilla => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(
                    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned(),
                );
                store
            }
        }
    }
}

/// Makes TLS sessions.
#[derive(Clone)]
pub(super) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    pub(super) fn new(roots: Roots) -> Tls {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()
            .map(|builder| {
                let builder = builder.with_root_certificates(roots.store());
                Arc::new(builder.with_no_client_auth())
            });
        Tls(config)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Session<S>;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Connect> {
        let name = ServerName::try_from(domain.to_owned()).ok();
        Ok(Connect {
            config: self.0.clone(),
            name,
        })
    }
}

/// One session to be made. It is asked for where none is needed too: a socket of this machine has no name.
pub(super) struct Connect {
    config: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Session<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Session<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let (Some(config), Some(name)) = (self.config, self.name) else {
                return Err(io::Error::other("no certificate can be for this host"));
            };
            let session = TlsConnector::from(config).connect(name, stream);
            Ok(Session(session.await?))
        })
    }
}

/// A session, which the driver reads and writes.
pub(super) struct Session<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Session<S> {
    /// None: the certificate was checked, which is what binding would add where it isn't.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Session<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Session<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
