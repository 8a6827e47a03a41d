//! The cluster's public keys, as the API server shows them (RFC 7517).
//!
//! A key verifies with one algorithm, its own: what a token asks for has to agree, and chooses
//! nothing.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// More keys than a cluster has while it changes them.
const MAX_KEYS: usize = 64;

/// Why a text is no set of keys.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("answer is no JWKS")]
    Decode(#[source] serde_json::Error),
    #[error("JWKS holds no key that pods' tokens can be checked with")]
    NoKey,
}

/// The keys that can be used here; others of a set are passed over.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    id: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256 { point: Vec<u8> },
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a JWKS.
    pub(crate) fn parse(text: &str) -> Result<Self, JwksError> {
        let set: Set = serde_json::from_str(text).map_err(JwksError::Decode)?;
        let written = set.keys.into_iter().take(MAX_KEYS);
        let keys: Vec<Key> = written
            .filter_map(|key| Key::of(&serde_json::from_value(key).ok()?))
            .collect();
        if keys.is_empty() {
            return Err(JwksError::NoKey);
        }
        Ok(Self(keys))
    }

    /// The keys of an id: there may be two of a name, if never of the same kind.
    pub(crate) fn named<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| key.id == id)
    }
}

impl Key {
    fn of(written: &Written) -> Option<Self> {
        let decode = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        if written
            .purpose
            .as_ref()
            .is_some_and(|purpose| purpose != "sig")
        {
            return None;
        }
        let material = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", _) => Material::Rsa {
                n: without_zeros(decode(&written.n)?),
                e: without_zeros(decode(&written.e)?),
            },
            ("EC", Some("P-256")) => {
                let (x, y) = (decode(&written.x)?, decode(&written.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                Material::P256 {
                    point: [&[4], x.as_slice(), y.as_slice()].concat(),
                }
            }
            _ => return None,
        };
        let key = Self {
            id: written.kid.clone(),
            material,
        };
        let is_for_it = written
            .alg
            .as_ref()
            .is_none_or(|alg| alg == key.algorithm());
        is_for_it.then_some(key)
    }

    /// The one algorithm of this key.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.material {
            Material::Rsa { .. } => "RS256",
            Material::P256 { .. } => "ES256",
        }
    }

    /// Whether this key signed the message.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Material::P256 { point } => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

/// Big-endian numbers are wanted without leading zeros.
fn without_zeros(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}
