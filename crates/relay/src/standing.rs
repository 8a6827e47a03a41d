//! How the pod stands with its hub, for the kubelet's probes and for the log.
//!
//! Ready means that the hub can give it work and says that the work can be done. An interruption of a
//! few seconds is none: a hub that is replaced would else make every pod unready.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the last offer counts after its end.
const COUNTS_FOR: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(crate) struct Standing {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    welcomed: u32,
    /// All of them, since the start.
    times: u64,
    last_welcomed: Option<Instant>,
    /// Why the hub wants no work to go here; `None` until it says so.
    unready: Option<String>,
    /// What kept the last offer from being welcomed, as it was logged.
    trouble: Option<String>,
}

/// An offer that the hub has taken in; it counts until it is dropped.
pub(crate) struct Welcomed<'a> {
    standing: &'a Standing,
}

impl Standing {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn welcomed(&self) -> Welcomed<'_> {
        let mut state = self.state();
        state.welcomed += 1;
        state.times += 1;
        if state.trouble.take().is_some() {
            tracing::warn!("the hub is there again");
        }
        Welcomed { standing: self }
    }

    /// How often an offer was welcomed, if one is now.
    pub(crate) fn times_welcomed(&self) -> Option<u64> {
        let state = self.state();
        (state.welcomed > 0).then_some(state.times)
    }

    pub(crate) fn told(&self, ready: bool, reason: String) {
        self.state().unready = (!ready).then_some(reason);
    }

    /// Logged once, however often it happens in a row.
    pub(crate) fn trouble(&self, trouble: String) {
        let mut state = self.state();
        if state.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}");
            state.trouble = Some(trouble);
        }
    }

    /// Why the pod isn't ready, if it isn't.
    pub(crate) fn unready(&self, draining: bool, now: Instant) -> Option<String> {
        let state = self.state();
        if draining {
            return Some("it was told to end".to_owned());
        }
        let last = state.last_welcomed;
        let there = state.welcomed > 0 || last.is_some_and(|last| now < last + COUNTS_FOR);
        if !there {
            let trouble = state.trouble.as_deref();
            return Some(trouble.unwrap_or("the hub has not answered yet").to_owned());
        }
        state.unready.clone()
    }
}

impl Drop for Welcomed<'_> {
    fn drop(&mut self) {
        let mut state = self.standing.state();
        state.welcomed -= 1;
        state.last_welcomed = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_ready_while_the_hub_has_an_offer_and_a_little_longer() {
        let (standing, now) = (Standing::default(), Instant::now());
        assert!(standing.unready(false, now).is_some());
        let welcomed = standing.welcomed();
        assert_eq!(standing.unready(false, now), None);
        drop(welcomed);
        let end = Instant::now();
        assert_eq!(standing.unready(false, end), None);
        standing.trouble("the hub is away".to_owned());
        let later = standing.unready(false, end + COUNTS_FOR);
        assert_eq!(later.as_deref(), Some("the hub is away"));
    }

    #[test]
    fn the_hubs_word_and_the_end_count_first() {
        let (standing, now) = (Standing::default(), Instant::now());
        let _welcomed = standing.welcomed();
        standing.told(false, "its provider's key is refused".to_owned());
        let unready = standing.unready(false, now);
        assert_eq!(unready.as_deref(), Some("its provider's key is refused"));
        standing.told(true, String::new());
        assert_eq!(standing.unready(false, now), None);
        assert!(standing.unready(true, now).is_some());
    }
}
