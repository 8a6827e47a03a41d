//! What the API server said of callers, for a few seconds.
//!
//! What was given may be taken away, so a yes is kept short; a no is kept shorter, for somebody may
//! be waiting to be given it. Both are bounded, each by itself: strangers can't crowd out who was
//! let in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Refusal, Right, TokenDigest};

const YES: Duration = Duration::from_secs(5);
const NO: Duration = Duration::from_secs(2);
/// Of each; beyond it the oldest goes.
const MOST: usize = 1024;

type Key = (TokenDigest, Right);

#[derive(Default)]
pub(super) struct Answers {
    yes: BTreeMap<Key, (Instant, Arc<str>)>,
    no: BTreeMap<Key, (Instant, Refusal)>,
}

impl Answers {
    pub(super) fn get(&self, of: &TokenDigest, right: Right) -> Option<Answer> {
        let key = (*of, right);
        let now = Instant::now();
        let yes = self.yes.get(&key).filter(|(until, _)| now < *until);
        let no = self.no.get(&key).filter(|(until, _)| now < *until);
        let no = no.map(|(_, refusal)| Err(refusal.clone()));
        yes.map(|(_, author)| Ok(Arc::clone(author))).or(no)
    }

    /// Whether the token was good for something lately, also if that has to be asked anew.
    pub(super) fn was_let_in(&self, of: &TokenDigest) -> bool {
        let first = Right {
            verb: "",
            group: "",
            resource: "",
            subresource: "",
            name: "",
        };
        let mut behind = self.yes.range((*of, first)..);
        behind.next().is_some_and(|((found, _), _)| found == of)
    }

    pub(super) fn keep(&mut self, of: TokenDigest, right: Right, answer: &Answer) {
        let (key, now) = ((of, right), Instant::now());
        match answer {
            Ok(author) => {
                self.no.remove(&key);
                put(&mut self.yes, key, (now + YES, Arc::clone(author)));
            }
            Err(Refusal::Unanswered(_)) => {}
            Err(refusal) => {
                self.yes.remove(&key);
                put(&mut self.no, key, (now + NO, refusal.clone()));
            }
        }
    }
}

fn put<T>(map: &mut BTreeMap<Key, (Instant, T)>, key: Key, value: (Instant, T)) {
    if map.len() >= MOST && !map.contains_key(&key) {
        let oldest = map.iter().min_by_key(|(_, (until, _))| *until);
        if let Some(oldest) = oldest.map(|(key, _)| *key) {
            map.remove(&oldest);
        }
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Right = Right {
        verb: "get",
        group: "g",
        resource: "agents",
        subresource: "tasks",
        name: "",
    };

    fn digest(number: usize) -> TokenDigest {
        let mut digest = TokenDigest::default();
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_ends_after_seconds_and_leaves_who_it_was_known() {
        let mut answers = Answers::default();
        answers.keep(digest(1), READ, &Ok("user:ada".into()));
        assert_eq!(answers.get(&digest(1), READ), Some(Ok("user:ada".into())));
        let run = Right {
            verb: "create",
            ..READ
        };
        assert_eq!(answers.get(&digest(1), run), None);
        assert!(answers.was_let_in(&digest(1)) && !answers.was_let_in(&digest(0)));
        tokio::time::advance(YES).await;
        assert_eq!(answers.get(&digest(1), READ), None);
        assert!(answers.was_let_in(&digest(1)));
        answers.keep(digest(1), READ, &Err(Refusal::NotAllowed("no".into())));
        assert!(!answers.was_let_in(&digest(1)));
        assert!(answers.get(&digest(1), READ).is_some_and(|it| it.is_err()));
    }

    #[test]
    fn strangers_crowd_out_strangers_alone() {
        let mut answers = Answers::default();
        answers.keep(digest(0), READ, &Ok("user:ada".into()));
        for stranger in 1..=2 * MOST {
            let refusal = Err(Refusal::Unknown("who?".into()));
            answers.keep(digest(stranger), READ, &refusal);
        }
        assert!(answers.was_let_in(&digest(0)));
        assert_eq!(answers.no.len(), MOST);
    }

    #[test]
    fn what_was_not_answered_is_not_kept() {
        let mut answers = Answers::default();
        let silence = Err(Refusal::Unanswered("away".into()));
        answers.keep(digest(0), READ, &silence);
        assert_eq!(answers.get(&digest(0), READ), None);
    }
}
