//! How much of one instance's requests the gateway holds at a time. An agent can open a thousand
//! connections; this bounds what it can make the hub remember with them.
//!
//! Room is taken for all of a body before any of it is read, so that two that are half read never
//! wait for each other, and kept until its call has been answered. What waits, waits in the agent's
//! own socket. Instances share nothing here: one that fills its room takes none of another's.

use std::sync::Arc;
use std::time::Duration;

use hub::{Code, HubError, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the bodies of one instance's requests hold together.
const BYTES: usize = 64 * 1024 * 1024;
/// What room is counted in; a body without one byte takes one.
const UNIT: usize = 1024;
/// How long a request waits for room before it's told to come again.
const WAIT: Duration = Duration::from_secs(60);

/// The room of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

/// A part of it, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Held(OwnedSemaphorePermit);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BYTES / UNIT)))
    }
}

impl Room {
    /// Waits until there is room for `bytes`.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Held, Refusal> {
        let taken = self.0.clone().acquire_many_owned(units(bytes));
        match tokio::time::timeout(WAIT, taken).await {
            Ok(Ok(permit)) => Ok(Held(permit)),
            // The semaphore is never closed.
            _ => Err(HubError::new(
                Code::Unavailable,
                format!(
                    "requests of this instance that are under way hold {} MiB already, and none ended in {} s; try again",
                    BYTES / 1024 / 1024,
                    WAIT.as_secs()
                ),
            )),
        }
    }
}

impl Held {
    /// Gives back what wasn't needed.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.0.split(surplus));
    }
}

fn units(bytes: usize) -> u32 {
    let units = bytes.clamp(1, BYTES).div_ceil(UNIT);
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_waits_and_is_told_to_come_again_in_the_end() {
        let room = Room::default();
        let half = room.take(BYTES / 2).await.unwrap();
        let mut other = room.take(BYTES / 2).await.unwrap();
        let refused = room.take(1).await.unwrap_err();
        assert_eq!(refused.code, Code::Unavailable);
        assert!(refused.to_string().contains("64 MiB"), "{refused}");

        other.keep(0);
        let rest = room.take(BYTES / 2 - UNIT).await.unwrap();
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.take(BYTES / 2).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(half);
        waiting.await.unwrap().unwrap();
        drop(rest);
    }
}
