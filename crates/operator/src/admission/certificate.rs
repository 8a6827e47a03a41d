//! The port's certificate: signed here with the installation's authority, and again each day.
//!
//! It lies in memory only. When the authority's files change, or the day is over, there is a new one.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::install::{Authority, AuthorityError};

const RENEWED: Duration = Duration::from_secs(24 * 3600);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("sign a certificate")]
    Sign(#[from] AuthorityError),
    #[error("use it for TLS")]
    Tls(#[from] rustls::Error),
}

/// The present one, and what it is made of.
#[derive(Debug)]
pub(super) struct Certificate {
    folder: PathBuf,
    namespace: String,
    made: Mutex<Option<(Instant, Authority)>>,
    present: Arc<Present>,
}

#[derive(Debug, Default)]
struct Present(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Present {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let present = self.0.read().unwrap_or_else(PoisonError::into_inner);
        present.clone()
    }
}

impl Certificate {
    pub(super) fn new(folder: PathBuf, namespace: String) -> Self {
        Self {
            folder,
            namespace,
            made: Mutex::default(),
            present: Arc::default(),
        }
    }

    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, CertificateError> {
        let versions = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?;
        let resolver = Arc::clone(&self.present);
        let config = versions
            .with_no_client_auth()
            .with_cert_resolver(resolver as Arc<dyn ResolvesServerCert>);
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Makes a new one if it's time to.
    pub(super) fn renew(&self) -> Result<(), CertificateError> {
        let authority = self.read()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_right =
            |(when, of): &(Instant, Authority)| *of == authority && when.elapsed() < RENEWED;
        if made.as_ref().is_some_and(is_right) {
            return Ok(());
        }
        let (chain, key) = authority.sign(&self.namespace)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let signed = CertifiedKey::new(chain, any_supported_type(&key)?);
        let mut present = self
            .present
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *present = Some(Arc::new(signed));
        *made = Some((Instant::now(), authority));
        Ok(())
    }

    fn read(&self) -> Result<Authority, CertificateError> {
        let read = |name: &str| {
            let path = self.folder.join(name);
            std::fs::read_to_string(&path).map_err(|source| CertificateError::Read { path, source })
        };
        Ok(Authority {
            certificate: read("ca.crt")?,
            key: read("ca.key")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_one_is_made_for_a_new_authority_and_not_before() {
        let folder =
            std::env::temp_dir().join(format!("mainstay-admission-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let certificate = Certificate::new(folder.clone(), "home".to_owned());
        assert!(certificate.renew().is_err());
        let put = || {
            let authority = Authority::generate().unwrap();
            std::fs::write(folder.join("ca.crt"), &authority.certificate).unwrap();
            std::fs::write(folder.join("ca.key"), &authority.key).unwrap();
        };
        let present = || {
            certificate.renew().unwrap();
            let present = certificate.present.0.read().unwrap();
            present.clone().unwrap().cert.clone()
        };
        put();
        let first = present();
        assert_eq!(present(), first);
        put();
        assert_ne!(present(), first);
        assert!(certificate.acceptor().is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
