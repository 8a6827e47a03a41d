//! A service account's token (RFC 7519): signature, dates, audience, and the pod it is bound to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::pod::AUDIENCE;
use serde::Deserialize;

use super::jwks::Keys;

/// What clocks of two machines may differ by.
pub(crate) const LEEWAY_S: u64 = 60;

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token is no signed token")]
    Malformed,
    #[error("token's algorithm is not its key's")]
    Algorithm,
    #[error("token was signed by no key of the cluster that is known")]
    UnknownKey,
    #[error("token's signature is wrong")]
    Signature,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet")]
    Early,
    #[error("token is not for {AUDIENCE}")]
    Audience,
    #[error("token is of another namespace")]
    Namespace,
    #[error("token is not bound to a pod")]
    NoPod,
}

impl TokenError {
    /// Whether the kubelet's next token, or the cluster's next keys, may do.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::UnknownKey | Self::Expired | Self::Early)
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What must be understood, and isn't.
    crit: Option<serde_json::Value>,
}

/// What a token says, once its signature, dates and audience are right.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    aud: Audience,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Some(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Object>,
    serviceaccount: Named,
}

#[derive(Debug, Deserialize)]
struct Object {
    name: String,
    uid: String,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// The pod that a token is bound to, and its account.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) account: String,
    pub(super) issued_s: u64,
    pub(super) expires_s: u64,
}

/// Believes a token, or says why not.
pub(super) fn verify(token: &str, keys: &Keys, now_s: u64) -> Result<Claims, TokenError> {
    let (signed, signature) = token.trim().rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = decoded(header)?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed);
    }
    let id = header.kid.ok_or(TokenError::UnknownKey)?;
    let mut named = keys.named(&id).peekable();
    named.peek().ok_or(TokenError::UnknownKey)?;
    let key = named
        .find(|key| key.algorithm() == header.alg)
        .ok_or(TokenError::Algorithm)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| TokenError::Malformed)?;
    if !key.signed(signed.as_bytes(), &signature) {
        return Err(TokenError::Signature);
    }
    let claims: Claims = decoded(claims)?;
    claims.hold(now_s)?;
    Ok(claims)
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

impl Claims {
    fn hold(&self, now_s: u64) -> Result<(), TokenError> {
        if self.exp.saturating_add(LEEWAY_S) <= now_s {
            return Err(TokenError::Expired);
        }
        if self
            .nbf
            .is_some_and(|from| from > now_s.saturating_add(LEEWAY_S))
        {
            return Err(TokenError::Early);
        }
        let is_ours = match &self.aud {
            Audience::One(audience) => audience == AUDIENCE,
            Audience::Some(audiences) => audiences.iter().any(|audience| audience == AUDIENCE),
        };
        is_ours.then_some(()).ok_or(TokenError::Audience)
    }

    /// The pod of this namespace that the token is bound to.
    pub(super) fn bound_to(self, namespace: &str) -> Result<Bound, TokenError> {
        let kubernetes = self.kubernetes.ok_or(TokenError::NoPod)?;
        if kubernetes.namespace != namespace {
            return Err(TokenError::Namespace);
        }
        let pod = kubernetes.pod.ok_or(TokenError::NoPod)?;
        // It becomes a file's name: Kubernetes' names hold nothing else, and must go on doing so.
        let is_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
        if pod.name.is_empty() || pod.name.starts_with('.') || !pod.name.bytes().all(is_name) {
            return Err(TokenError::Malformed);
        }
        Ok(Bound {
            pod: pod.name,
            uid: pod.uid,
            account: kubernetes.serviceaccount.name,
            issued_s: self.iat,
            expires_s: self.exp,
        })
    }
}
