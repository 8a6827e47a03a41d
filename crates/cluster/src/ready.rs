//! Whether an agent's pods count as ready, and why not.
//!
//! Judged by the home (a provider without a credential, a key that was refused), told to every pod
//! on its idle offers, and answered by its relay to the kubelet. Nobody restarts a pod for it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    Yes,
    /// A sentence for a person.
    No(String),
}

impl Ready {
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Yes)
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Yes => "",
            Self::No(reason) => reason,
        }
    }
}

/// By owner. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness(Arc<BTreeMap<String, String>>);

impl Readiness {
    /// Owners that are not ready, each with the reason; all others are.
    #[must_use]
    pub fn except(unready: BTreeMap<String, String>) -> Self {
        Self(Arc::new(unready))
    }

    pub(crate) fn of(&self, owner: &str) -> Ready {
        self.0
            .get(owner)
            .map_or(Ready::Yes, |reason| Ready::No(reason.clone()))
    }
}
