//! Which pod of a name is the newest.
//!
//! A StatefulSet's pods have their names again and again, and the token of one that was deleted is
//! signed and dated like any other. A pod's tokens are all issued after its predecessor is gone: so
//! one whose token isn't newer than the earliest of the newest pod stays out. This is remembered
//! until no token of the name can be valid any more, whether or not a pod stands at the door.

use std::collections::BTreeMap;

use crate::token::{Identity, LEEWAY_S};

/// Names that are remembered; those whose tokens end first are forgotten first.
const MAX_NAMES: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, Newest>);

#[derive(Debug)]
struct Newest {
    uid: String,
    /// The earliest of its tokens that were seen.
    issued_s: u64,
    /// The last of all tokens of the name that were seen.
    expires_s: u64,
}

impl Names {
    /// Whether it is its name's newest pod; remembered if so.
    pub(super) fn takes(&mut self, pod: &Identity) -> bool {
        let Some(newest) = self.0.get_mut(&pod.pod) else {
            self.make_room();
            let newest = Newest {
                uid: pod.uid.clone(),
                issued_s: pod.issued_s,
                expires_s: pod.expires_s,
            };
            self.0.insert(pod.pod.clone(), newest);
            return true;
        };
        if newest.uid == pod.uid {
            newest.issued_s = newest.issued_s.min(pod.issued_s);
        } else if pod.issued_s > newest.issued_s {
            newest.uid.clone_from(&pod.uid);
            newest.issued_s = pod.issued_s;
        } else {
            return false;
        }
        newest.expires_s = newest.expires_s.max(pod.expires_s);
        true
    }

    /// Forgets names whose tokens have all expired.
    pub(super) fn tidy(&mut self, now_s: u64) {
        self.0
            .retain(|_, newest| newest.expires_s.saturating_add(LEEWAY_S) > now_s);
    }

    fn make_room(&mut self) {
        while self.0.len() >= MAX_NAMES {
            let first = self.0.iter().min_by_key(|(_, newest)| newest.expires_s);
            let Some(name) = first.map(|(name, _)| name.clone()) else {
                return;
            };
            self.0.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, issued_s: u64) -> Identity {
        Identity {
            owner: "helper".into(),
            pod: "helper-0".into(),
            uid: uid.into(),
            issued_s,
            expires_s: issued_s + 3600,
        }
    }

    #[test]
    fn only_a_newer_token_replaces_a_pod_and_its_own_renewed_one_changes_nothing() {
        let mut names = Names::default();
        assert!(names.takes(&pod("z", 1000)));
        assert!(names.takes(&pod("a", 2000)));
        // The deleted pod's last token, and one of a pod before both.
        assert!(!names.takes(&pod("z", 1900)));
        assert!(!names.takes(&pod("b", 2000)));
        assert!(names.takes(&pod("a", 5000)));
        // A pod that wasn't heard while it had its first tokens.
        assert!(names.takes(&pod("a", 1950)));
        assert!(names.takes(&pod("c", 1951)));
    }

    #[test]
    fn a_deleted_pod_stays_out_until_its_token_has_expired() {
        let mut names = Names::default();
        assert!(names.takes(&pod("old", 1000)));
        assert!(names.takes(&pod("new", 2000)));
        names.tidy(2000 + 3600 + LEEWAY_S - 1);
        assert!(!names.takes(&pod("old", 1000)));
        names.tidy(2000 + 3600 + LEEWAY_S);
        assert!(names.0.is_empty());
    }
}
