//! Who a pod is: its projected token, checked without asking the API server.
//!
//! A token is believed when one of the cluster's keys signed it with that key's own algorithm, it is
//! for this hub, of this namespace, not expired, and bound to a pod. Whose pod it is follows from
//! its service account and today's fleet; what the pod says of itself has only to agree. The keys
//! are fetched from the API server and kept on disk, so that pods get in while it is away.

mod jwks;
mod jwt;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::Fleet;
use api::fleet::{Runtime, ToolKind};
use api::kubernetes::account_owner;
use contract::keeper::InstanceKind;
use contract::pod::FromPod;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::clock::now_seconds;
use crate::disk;
use jwks::Keys;

pub use jwks::JwksError;
pub(crate) use jwt::LEEWAY_S;
pub use jwt::TokenError;

/// Between two tries to fetch keys for a token that none of the known ones signed.
const REFRESH: Duration = Duration::from_secs(10);
/// What the API server has for an answer.
const FETCH: Duration = Duration::from_secs(5);

/// Who a token says that its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The agent, or `registry/tool`.
    pub owner: String,
    pub pod: String,
    pub uid: String,
    /// When the token was issued and when it ends, in seconds since 1970.
    pub issued_s: u64,
    pub expires_s: u64,
}

/// Why a pod is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("service account {account} belongs to no agent and no tool of the workspace")]
    NoOwner { account: String },
    #[error("pod is of {owner} and calls itself another's")]
    OtherOwner { owner: String },
    #[error("pod of {owner} is of the wrong kind")]
    WrongKind { owner: String },
}

impl AdmitError {
    /// Whether a later try can end otherwise: the token is renewed, the fleet changes.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Token(error) => error.may_pass(),
            Self::NoOwner { .. } | Self::WrongKind { .. } => true,
            Self::OtherOwner { .. } => false,
        }
    }
}

/// Asks the API server for its keys: the JWKS's text, or a sentence.
pub type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The check.
pub struct Tokens {
    namespace: String,
    path: PathBuf,
    keys: std::sync::RwLock<Arc<Keys>>,
    fetch: Fetch,
    fetched: Mutex<Option<Instant>>,
    fleet: watch::Receiver<Arc<Fleet>>,
}

impl Tokens {
    /// Checks tokens of this namespace, with the keys that are kept in `state_dir` to begin with.
    #[must_use]
    pub fn new(
        namespace: &str,
        state_dir: &Path,
        fetch: Fetch,
        fleet: watch::Receiver<Arc<Fleet>>,
    ) -> Self {
        let path = state_dir.join("cluster/jwks.json");
        let kept = std::fs::read_to_string(&path).ok();
        let keys = kept.and_then(|text| Keys::parse(&text).ok());
        Self {
            namespace: namespace.to_owned(),
            path,
            keys: std::sync::RwLock::new(Arc::new(keys.unwrap_or_default())),
            fetch,
            fetched: Mutex::default(),
            fleet,
        }
    }

    /// Who sent this frame. `known` tells the owner of a pod that was let in before: it stays in
    /// while an agent that was removed ends. That it is still of its kind is `Pods::meet`'s to say.
    pub(crate) async fn admit(
        &self,
        frame: &FromPod,
        known: impl Fn(&str, &str) -> Option<String>,
    ) -> Result<Identity, AdmitError> {
        let claims = match jwt::verify(&frame.token, &self.keys(), now_seconds()) {
            Err(TokenError::UnknownKey) if self.refresh_for_one().await => {
                jwt::verify(&frame.token, &self.keys(), now_seconds())
            }
            claims => claims,
        };
        let bound = claims?.bound_to(&self.namespace)?;
        let owner = match known(&bound.pod, &bound.uid) {
            Some(owner) => owner,
            None => self.owner(&bound.account, frame.kind)?,
        };
        if owner != frame.owner {
            return Err(AdmitError::OtherOwner { owner });
        }
        Ok(Identity {
            owner,
            pod: bound.pod,
            uid: bound.uid,
            issued_s: bound.issued_s,
            expires_s: bound.expires_s,
        })
    }

    fn owner(&self, account: &str, kind: InstanceKind) -> Result<String, AdmitError> {
        let fleet = self.fleet.borrow().clone();
        let servers = fleet.tools.iter();
        let servers = servers.filter(|(_, tool)| matches!(tool.kind, ToolKind::McpStdio { .. }));
        let agents = fleet.agents.keys().map(String::as_str);
        let owner = account_owner(account, agents, servers.map(|(name, _)| name.as_str()));
        let owner = owner
            .map(str::to_owned)
            .ok_or_else(|| AdmitError::NoOwner {
                account: account.to_owned(),
            })?;
        let expected = match fleet.agents.get(&owner).map(|agent| &agent.runtime) {
            Some(Runtime::Builtin | Runtime::Exec { .. }) => InstanceKind::Exec,
            Some(Runtime::Service { .. }) => InstanceKind::Service,
            None => InstanceKind::Mcp,
        };
        match kind == expected {
            true => Ok(owner),
            false => Err(AdmitError::WrongKind { owner }),
        }
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.read();
        Arc::clone(&keys.unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// A token came that no known key signed: whether the keys were fetched again for it. Strangers
    /// can make this happen, so it is done now and then only.
    async fn refresh_for_one(&self) -> bool {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < REFRESH) {
            // Another connection may just have brought the key.
            return true;
        }
        *fetched = Some(Instant::now());
        self.fetch().await
    }

    /// Fetches the keys; called hourly, for a key that was withdrawn.
    pub async fn refresh(&self) {
        *self.fetched.lock().await = Some(Instant::now());
        self.fetch().await;
    }

    async fn fetch(&self) -> bool {
        let fetched = tokio::time::timeout(FETCH, (self.fetch)()).await;
        let text = fetched.unwrap_or_else(|_| Err("the API server does not answer".into()));
        let parsed = text.and_then(|text| match Keys::parse(&text) {
            Ok(keys) => Ok((text, keys)),
            Err(error) => Err(error.to_string()),
        });
        let (text, keys) = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => {
                tracing::warn!(reason, "the keys of pods' tokens were not fetched");
                return false;
            }
        };
        let known = self.keys.write();
        *known.unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(keys);
        if let Err(error) = disk::write(&self.path, text.as_bytes()) {
            tracing::warn!(path = %self.path.display(), %error, "the keys of pods' tokens were not kept");
        }
        true
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tokens")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
