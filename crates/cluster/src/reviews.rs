//! Who a caller at the clients' door is, and whether he may: the API server's word.
//!
//! A TokenReview says whose token it is, and only one for this hub's own audience is taken; a
//! LocalSubjectAccessReview says whether its bearer has the right in this namespace. Answers are
//! kept for a few seconds. Nobody is let in because something wasn't answered.
//!
//! Everybody in the cluster can reach that door, so who was never let in waits in a line of its own,
//! in which few are asked about at a time. Tokens are kept nowhere, only their digests.

mod answers;
mod ask;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use kube::Client;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use answers::Answers;
use ask::Ask;

/// What the API server has for all that is asked about one caller.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a caller waits in line.
const LINE: Duration = Duration::from_secs(5);
/// Asked about at a time: callers that were let in lately, and others.
const KNOWN: usize = 16;
const STRANGERS: usize = 4;

/// What somebody wants to do at a hub, as a right on objects of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
    /// None is the empty word.
    pub subresource: &'static str,
    /// Of one object; all of them is the empty word.
    pub name: &'static str,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            verb,
            group,
            resource,
            ..
        } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        for (mark, rest) in [("/", self.subresource), (" ", self.name)] {
            if !rest.is_empty() {
                write!(f, "{mark}{rest}")?;
            }
        }
        Ok(())
    }
}

/// Why somebody isn't let in, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token isn't one for this hub.
    Unknown(String),
    NotAllowed(String),
    /// Nobody can say.
    Unanswered(String),
}

/// Who somebody is, as it stands in the log, or why he isn't let in.
pub type Answer = Result<Arc<str>, Refusal>;

type TokenDigest = [u8; 32];

/// Asks, and keeps answers for a while.
pub struct Reviews {
    ask: Ask,
    answers: Mutex<Answers>,
    known: Semaphore,
    strangers: Semaphore,
}

impl Reviews {
    /// For the hub in this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            ask: Ask::new(client, namespace),
            answers: Mutex::default(),
            known: Semaphore::new(KNOWN),
            strangers: Semaphore::new(STRANGERS),
        }
    }

    /// Whether the bearer of a token has a right.
    pub async fn review(&self, token: &str, right: Right) -> Answer {
        let of = identified(token);
        let (kept, was_let_in) = {
            let answers = self.answers();
            (answers.get(&of, right), answers.was_let_in(&of))
        };
        if let Some(kept) = kept {
            return kept;
        }
        let line = match was_let_in {
            true => &self.known,
            false => &self.strangers,
        };
        let slot = timeout(LINE, line.acquire()).await;
        let Ok(Ok(_slot)) = slot else {
            let why = "too many callers whom nobody knows are asked about: try again";
            return Err(Refusal::Unanswered(why.to_owned()));
        };
        // Another of the same caller's requests may have been answered meanwhile.
        if let Some(kept) = self.answers().get(&of, right) {
            return kept;
        }
        let asked = timeout(ANSWER, self.ask.about(token, right)).await;
        let answer = asked.unwrap_or_else(|_| {
            let why = "the API server, which knows who may call, does not answer";
            Err(Refusal::Unanswered(why.to_owned()))
        });
        self.answers().keep(of, right, &answer);
        answer
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reviews(..)")
    }
}

fn identified(token: &str) -> TokenDigest {
    let mut bytes = TokenDigest::default();
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests;
