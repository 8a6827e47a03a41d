//! Everything derived from the state key: match keys, tokens, the owner's token, secrets at rest.
//!
//! The state key never leaves this module. A gateway token is its claim and a MAC over it: the hub
//! keeps no list of tokens, and a token names one process incarnation for ever.

use aws_lc_rs::{aead, constant_time, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mainstay_core::step::Digest;
use zeroize::Zeroizing;

use crate::ground::Ground;
use crate::{Code, HubError};

/// A task's random key: digests of its content are keyed with it, and erasing it unlinks them.
pub type TaskKey = [u8; 32];

/// Keys derived from the state key, one per purpose.
pub struct Keys {
    tokens: hmac::Key,
    owner: Zeroizing<String>,
    metrics: Zeroizing<String>,
    secrets: Zeroizing<[u8; 32]>,
    log_seed: Zeroizing<[u8; 32]>,
    ids: hmac::Key,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What a token claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// One attempt of a task by one process of one instance. A shim holds the next attempt's token
    /// in advance: where it is out of reach, that number may be given to another instance.
    Attempt {
        task: String,
        attempt: u32,
        instance: String,
    },
    /// One incarnation of a service's process.
    Service { instance: String, incarnation: u32 },
}

impl Keys {
    /// Derives all keys.
    #[must_use]
    pub fn derive(state_key: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, state_key);
        let sub = |purpose: &str| {
            Zeroizing::new(digest(&root, &[b"mainstay.dev/v1/", purpose.as_bytes()]).0)
        };
        Self {
            tokens: hmac::Key::new(hmac::HMAC_SHA256, &*sub("gateway-token")),
            owner: Zeroizing::new(format!(
                "mst_{}",
                URL_SAFE_NO_PAD.encode(*sub("owner-token"))
            )),
            metrics: Zeroizing::new(format!(
                "msm_{}",
                URL_SAFE_NO_PAD.encode(*sub("metrics-token"))
            )),
            secrets: sub("secrets"),
            log_seed: sub("log-signer"),
            ids: hmac::Key::new(hmac::HMAC_SHA256, &*sub("ids")),
        }
    }

    /// The seed of the key that signs heads.
    #[must_use]
    pub fn log_seed(&self) -> &[u8; 32] {
        &self.log_seed
    }

    /// The owner's token for the facade.
    #[must_use]
    pub fn owner_token(&self) -> &str {
        &self.owner
    }

    /// Compares in constant time.
    #[must_use]
    pub fn is_owner(&self, bearer: &str) -> bool {
        constant_time::verify_slices_are_equal(bearer.as_bytes(), self.owner.as_bytes()).is_ok()
    }

    /// Whether it is the token of who may see the metrics and nothing else. Whoever has the state key
    /// can derive it: the operator gives it to a cluster's Prometheus.
    #[must_use]
    pub fn is_monitor(&self, bearer: &str) -> bool {
        constant_time::verify_slices_are_equal(bearer.as_bytes(), self.metrics.as_bytes()).is_ok()
    }

    /// Signs a claim.
    #[must_use]
    pub fn token(&self, claim: &Claim) -> String {
        let text = match claim {
            Claim::Attempt {
                task,
                attempt,
                instance,
            } => format!("a|{task}|{attempt}|{instance}"),
            Claim::Service {
                instance,
                incarnation,
            } => format!("s|{instance}|{incarnation}"),
        };
        let mac = hmac::sign(&self.tokens, text.as_bytes());
        format!(
            "msa_{}.{}",
            URL_SAFE_NO_PAD.encode(text),
            URL_SAFE_NO_PAD.encode(mac.as_ref())
        )
    }

    /// Checks a token and reads its claim.
    #[must_use]
    pub fn claim(&self, token: &str) -> Option<Claim> {
        let (text, mac) = token.strip_prefix("msa_")?.split_once('.')?;
        let text = URL_SAFE_NO_PAD.decode(text).ok()?;
        hmac::verify(&self.tokens, &text, &URL_SAFE_NO_PAD.decode(mac).ok()?).ok()?;
        let text = String::from_utf8(text).ok()?;
        let mut parts = text.split('|');
        let (kind, name, number) = (
            parts.next()?,
            parts.next()?.to_owned(),
            parts.next()?.parse().ok()?,
        );
        match kind {
            "a" => Some(Claim::Attempt {
                task: name,
                attempt: number,
                instance: parts.next()?.to_owned(),
            }),
            "s" => Some(Claim::Service {
                instance: name,
                incarnation: number,
            }),
            _ => None,
        }
    }

    /// A UUIDv8 derived from what it names: the same thing gets the same id in every life.
    #[must_use]
    pub fn derived_id(&self, parts: &[&[u8]]) -> String {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest(&self.ids, &framed(parts)).0[..16]);
        uuid::Builder::from_custom_bytes(bytes)
            .into_uuid()
            .to_string()
    }

    /// A client's idempotency key as it stands in the log.
    #[must_use]
    pub fn idempotency(&self, key: &str) -> Digest {
        digest(&self.ids, &framed(&[b"idempotency", key.as_bytes()]))
    }

    /// Encrypts a secret for the store.
    pub fn seal(&self, name: &str, value: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; aead::NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut bytes = value.to_vec();
        let key = self.aead()?;
        key.seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(name.as_bytes()),
            &mut bytes,
        )
        .ok()?;
        Some([nonce.as_slice(), &bytes].concat())
    }

    /// Decrypts a secret; `None` when it was made under another key or name.
    #[must_use]
    pub fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, bytes) = sealed.split_first_chunk::<{ aead::NONCE_LEN }>()?;
        let mut bytes = Zeroizing::new(bytes.to_vec());
        let len = self
            .aead()?
            .open_in_place(
                aead::Nonce::assume_unique_for_key(*nonce),
                aead::Aad::from(name.as_bytes()),
                &mut bytes,
            )
            .ok()?
            .len();
        bytes.truncate(len);
        Some(bytes)
    }

    fn aead(&self) -> Option<aead::LessSafeKey> {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &*self.secrets).ok()?;
        Some(aead::LessSafeKey::new(key))
    }
}

/// A fresh task key.
pub fn random_key(ground: &dyn Ground) -> Result<TaskKey, HubError> {
    let mut key = [0; 32];
    let failed = |error: store::StoreError| HubError::new(Code::Internal, error.to_string());
    ground.fill(&mut key).map_err(failed)?;
    Ok(key)
}

/// A digest of content under a task's key. `domain` keeps uses apart.
#[must_use]
pub fn keyed(key: &TaskKey, domain: &str, content: &[u8]) -> Digest {
    digest(
        &hmac::Key::new(hmac::HMAC_SHA256, key),
        &framed(&[domain.as_bytes(), content]),
    )
}

fn framed<'a>(parts: &[&'a [u8]]) -> Vec<&'a [u8]> {
    // Only the last part has free length everywhere this is used, so a separator suffices.
    parts
        .iter()
        .flat_map(|part| [*part, b"\0".as_slice()])
        .collect()
}

fn digest(key: &hmac::Key, parts: &[&[u8]]) -> Digest {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let tag = context.sign();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    Digest(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_claim_and_nothing_else() {
        let keys = Keys::derive(&[1; 32]);
        let claim = Claim::Attempt {
            task: "t".into(),
            attempt: 3,
            instance: "helper-0".into(),
        };
        let token = keys.token(&claim);
        assert_eq!(keys.claim(&token), Some(claim));
        for at in 4..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] ^= 1;
            let forged = String::from_utf8(forged).unwrap_or_default();
            assert_eq!(keys.claim(&forged), None, "byte {at}");
        }
        assert_eq!(Keys::derive(&[2; 32]).claim(&token), None);
    }

    #[test]
    fn the_monitors_token_is_what_the_operator_derives() {
        let keys = Keys::derive(&[1; 32]);
        // The same as in the operator's test of what it gives to Prometheus.
        let token = "msm_nQTgiuBKtfQ6YcIDnLHmlCErfyAtEURRqD3xVO-1i_I";
        assert!(keys.is_monitor(token));
        assert!(!keys.is_owner(token) && !keys.is_monitor(keys.owner_token()));
        assert!(!Keys::derive(&[2; 32]).is_monitor(token));
    }

    #[test]
    fn a_sealed_secret_opens_only_under_its_name() {
        let keys = Keys::derive(&[1; 32]);
        let sealed = keys.seal("desk/token", b"value").unwrap();
        assert_eq!(
            keys.open("desk/token", &sealed).unwrap().as_slice(),
            b"value"
        );
        assert!(keys.open("desk/other", &sealed).is_none());
    }
}
