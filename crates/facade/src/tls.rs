//! TLS where the address is not loopback: the token must not cross a network in the clear.
//!
//! Certificate and key are given, or lie in the state, `system/tls/`. Whoever has a certificate of a real
//! authority puts it there; else one is made and signed by itself, and clients are given
//! `certificate.pem` to check it with. A listener that can't have TLS is not served at all.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio_rustls::TlsAcceptor;

use crate::door::Options;

/// Why a listener gets no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("failed to make a certificate")]
    Make(#[source] rcgen::Error),
    #[error("failed to write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
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

/// What speaks TLS on a listener: always where files are given; else `None` on loopback, where
/// nobody else hears.
pub(crate) fn acceptor(
    state_dir: &Path,
    local: SocketAddr,
    options: &Options,
) -> Result<Option<TlsAcceptor>, TlsError> {
    if let Some((certificate, key)) = &options.tls {
        return load(certificate, key).map(|config| Some(TlsAcceptor::from(Arc::new(config))));
    }
    let names = &options.names;
    if local.ip().is_loopback() {
        return Ok(None);
    }
    let dir = state_dir.join("system").join("tls");
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
    if !certificate.exists() || !key.exists() {
        make(&dir, &certificate, &key, subjects(local, names))?;
    }
    // Clients have copied it: it is replaced by who knows them, and never behind their backs.
    for name in uncovered(&certificate, names) {
        tracing::warn!(
            "{} is not for {name}: remove it and key.pem, start again, and give clients the new one",
            certificate.display()
        );
    }
    load(&certificate, &key).map(|config| Some(TlsAcceptor::from(Arc::new(config))))
}

/// Every name under which a client may call.
fn subjects(local: SocketAddr, names: &[String]) -> Vec<String> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut subjects = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        host,
    ];
    if !local.ip().is_unspecified() {
        subjects.push(local.ip().to_string());
    }
    let named = names
        .iter()
        .filter_map(|name| name.parse::<http::uri::Authority>().ok());
    subjects.extend(named.map(|authority| authority.host().to_owned()));
    subjects.retain(|subject| !subject.is_empty());
    subjects
}

/// The names that a certificate is not for; none where it can't be read, which is told elsewhere.
fn uncovered<'n>(certificate: &Path, names: &'n [String]) -> Vec<&'n str> {
    let first = CertificateDer::from_pem_file(certificate).ok();
    let parsed = first
        .as_ref()
        .and_then(|der| ParsedCertificate::try_from(der).ok());
    let Some(parsed) = parsed else {
        return Vec::new();
    };
    let is_for = |name: &str| {
        let authority: Option<http::uri::Authority> = name.parse().ok();
        let host = authority.as_ref().map_or(name, http::uri::Authority::host);
        ServerName::try_from(host).is_ok_and(|host| verify_server_name(&parsed, &host).is_ok())
    };
    let names = names.iter().map(String::as_str);
    names.filter(|name| !is_for(name)).collect()
}

fn make(dir: &Path, certificate: &Path, key: &Path, subjects: Vec<String>) -> Result<(), TlsError> {
    let pair = rcgen::KeyPair::generate().map_err(TlsError::Make)?;
    let params = rcgen::CertificateParams::new(subjects).map_err(TlsError::Make)?;
    let made = params.self_signed(&pair).map_err(TlsError::Make)?;
    let created = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    created.map_err(|source| TlsError::Write {
        path: dir.to_owned(),
        source,
    })?;
    // The key first: a certificate without its key would not be made again.
    write(key, &pair.serialize_pem())?;
    write(certificate, &made.pem())
}

fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    let mut options = OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
    });
    written.map_err(|source| TlsError::Write {
        path: path.to_owned(),
        source,
    })
}

fn load(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { path, source }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(read(certificate))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(read(key))?;
    let unusable = |source| TlsError::Use {
        path: certificate.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_none_and_anything_else_gets_a_certificate_that_stays() {
        let state = tempfile::tempdir().unwrap();
        for loopback in ["127.0.0.1:1", "[::1]:1"] {
            assert!(
                acceptor(state.path(), loopback.parse().unwrap(), &Options::default())
                    .unwrap()
                    .is_none()
            );
        }
        assert!(
            acceptor(
                state.path(),
                "0.0.0.0:1".parse().unwrap(),
                &Options::default()
            )
            .unwrap()
            .is_some()
        );
        let certificate = state.path().join("system/tls/certificate.pem");
        let made = std::fs::read(&certificate).unwrap();
        assert!(
            acceptor(
                state.path(),
                "10.0.0.1:1".parse().unwrap(),
                &Options::default()
            )
            .unwrap()
            .is_some()
        );
        assert_eq!(std::fs::read(&certificate).unwrap(), made);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(state.path().join("system/tls/key.pem"))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn files_that_are_given_are_used_even_on_loopback() {
        let state = tempfile::tempdir().unwrap();
        let any: SocketAddr = "0.0.0.0:1".parse().unwrap();
        acceptor(state.path(), any, &Options::default()).unwrap();
        let made = state.path().join("system/tls");
        let options = Options {
            tls: Some((made.join("certificate.pem"), made.join("key.pem"))),
            ..Options::default()
        };
        let other = tempfile::tempdir().unwrap();
        let local = "127.0.0.1:1".parse().unwrap();
        assert!(acceptor(other.path(), local, &options).unwrap().is_some());
        assert!(!other.path().join("system").exists());
    }

    #[test]
    fn a_certificate_that_is_none_is_an_error_that_names_its_file() {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("system/tls");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("certificate.pem"), "no").unwrap();
        std::fs::write(dir.join("key.pem"), "no").unwrap();
        let error = acceptor(
            state.path(),
            "10.0.0.1:1".parse().unwrap(),
            &Options::default(),
        )
        .err()
        .unwrap();
        assert!(
            error.to_string().contains("key.pem") || error.to_string().contains("certificate.pem"),
            "{error}"
        );
    }

    #[test]
    fn names_that_a_certificate_of_before_is_not_for_are_found() {
        let state = tempfile::tempdir().unwrap();
        let names = ["agents.example:8443", "10.1.2.3", "other.example"].map(str::to_owned);
        let options = Options {
            names: names[..2].to_vec(),
            ..Options::default()
        };
        acceptor(state.path(), "0.0.0.0:1".parse().unwrap(), &options).unwrap();
        let certificate = state.path().join("system/tls/certificate.pem");
        assert_eq!(uncovered(&certificate, &names), ["other.example"]);
    }

    #[test]
    fn the_certificate_is_for_every_name_that_is_answered() {
        let names = ["agents.example:8443".to_owned()];
        let subjects = subjects("10.0.0.1:1".parse().unwrap(), &names);
        for subject in ["localhost", "10.0.0.1", "agents.example"] {
            assert!(subjects.iter().any(|known| known == subject), "{subject}");
        }
    }
}
