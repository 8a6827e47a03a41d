//! What the Workspace's status says of the network: whether anything enforces its policies.
//!
//! Pods try by themselves (`relay`) and say what they found. That is their word: one that lies can
//! make a workspace look worse than it is, and better only where every other says nothing.

use serde_json::{Value, json};

use crate::pods::Networks;

/// The condition's type.
pub(crate) const ISOLATION_UNENFORCED: &str = "IsolationUnenforced";

/// What agents' pods found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    Enforced,
    /// By none of the pods that know.
    Unenforced,
    /// Not everywhere: nodes differ.
    Partly,
}

impl Isolation {
    /// `None` while no pod knows.
    pub(super) fn of(networks: Networks) -> Option<Self> {
        match networks {
            Networks { open: 0, closed: 0 } => None,
            Networks { open: 0, .. } => Some(Self::Enforced),
            Networks { closed: 0, .. } => Some(Self::Unenforced),
            Networks { .. } => Some(Self::Partly),
        }
    }

    pub(super) fn condition(self, since: &str) -> Value {
        let (status, reason, message) = match self {
            Self::Enforced => (
                "False",
                "Refused",
                "agents' pods can't reach what their NetworkPolicy forbids",
            ),
            Self::Unenforced => (
                "True",
                "Reached",
                "agents' pods reach what their NetworkPolicy forbids, because the cluster's network plugin enforces no policies for what leaves a pod: install one that does (Calico, Cilium, Antrea, OVN-Kubernetes, kube-router), or turn that on in yours",
            ),
            Self::Partly => (
                "True",
                "ReachedBySome",
                "some agents' pods reach what their NetworkPolicy forbids and others don't: see on which nodes the network plugin doesn't run or enforces no policies for what leaves a pod",
            ),
        };
        json!({
            "type": ISOLATION_UNENFORCED, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pod_that_gets_through_is_enough_and_nothing_is_said_unasked() {
        let of = |open, closed| Isolation::of(Networks { open, closed });
        assert_eq!(of(0, 0), None);
        assert_eq!(of(0, 3), Some(Isolation::Enforced));
        assert_eq!(of(1, 3), Some(Isolation::Partly));
        assert_eq!(of(2, 0), Some(Isolation::Unenforced));
        for (isolation, status) in [
            (Isolation::Enforced, "False"),
            (Isolation::Partly, "True"),
            (Isolation::Unenforced, "True"),
        ] {
            assert_eq!(isolation.condition("x")["status"], status);
        }
    }
}
