//! What a hub needs to be itself: the key of its state, and a certificate that its pods trust.
//!
//! Made once per workspace. The authority's own key is thrown away after it has signed, so nobody
//! can ever make a second certificate that pods would take for their hub's.

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// Bytes of a hub's state key.
const STATE_KEY_BYTES: usize = 32;

/// A hub's secrets. Only what lies in its Secret.
pub struct Keys {
    pub state_key: [u8; STATE_KEY_BYTES],
    /// Certificates as PEM: the authority's.
    pub authority: String,
    /// The hub's own.
    pub certificate: String,
    pub private_key: String,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("draw random bytes for the state key")]
    Random,
    #[error("make a certificate for hub of {namespace}")]
    Certificate {
        namespace: String,
        source: rcgen::Error,
    },
}

impl Keys {
    /// New ones for the hub of a namespace.
    pub fn generate(namespace: &str) -> Result<Self, KeysError> {
        let mut state_key = [0; STATE_KEY_BYTES];
        rand::fill(&mut state_key).map_err(|_| KeysError::Random)?;
        let failed = |source| KeysError::Certificate {
            namespace: namespace.to_owned(),
            source,
        };
        let authority = authority(namespace).map_err(failed)?;
        let private_key = KeyPair::generate().map_err(failed)?;
        let certificate = certificate(namespace)
            .and_then(|params| params.signed_by(&private_key, &authority))
            .map_err(failed)?;
        Ok(Self {
            state_key,
            authority: authority.pem(),
            certificate: certificate.pem(),
            private_key: private_key.serialize_pem(),
        })
    }
}

fn authority(namespace: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = dated(Vec::new())?;
    let name = format!("Mainstay hub of {namespace}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn certificate(namespace: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = dated(names(namespace))?;
    let name = contract::pod::SERVER_NAME;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// Good for thirty years: it is pinned, and taken back by deleting the Secret.
fn dated(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2056, 1, 1);
    Ok(params)
}

/// By which names and addresses clients and pods reach a hub.
fn names(namespace: &str) -> Vec<String> {
    let hub = api::kubernetes::HUB;
    vec![
        hub.to_owned(),
        format!("{hub}.{namespace}"),
        format!("{hub}.{namespace}.svc"),
        format!("{hub}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hubs_share_nothing() {
        let (one, two) = (Keys::generate("a").unwrap(), Keys::generate("b").unwrap());
        assert_ne!(one.state_key, two.state_key);
        assert_ne!(one.authority, two.authority);
        assert!(one.private_key.contains("PRIVATE KEY"));
        assert!(names("acme").contains(&"mainstay-hub.acme.svc".to_owned()));
    }
}
