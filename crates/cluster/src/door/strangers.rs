//! Who stands at the door and hasn't shown a token yet.
//!
//! Each address gets a few at a time, so that one pod can't keep the others out; an agent that opens
//! many connections at once has them wait for their turn, without a byte being read. More than that
//! is closed at once: a relay tries again by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Heard at once, of one address.
pub(super) const HEARD_EACH: usize = 16;
/// Heard at once, of all.
const HEARD: usize = 1024;
/// At the door, of one address: as many as a pod's agent may have connections to its gateway.
pub(super) const WAITING_EACH: usize = 1024;
/// Above this an address has only those that may be heard.
const WAITING: usize = 4096;

/// The places at the door. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Strangers {
    heard: Arc<Semaphore>,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    by_address: BTreeMap<IpAddr, Peer>,
}

#[derive(Debug)]
struct Peer {
    taken: usize,
    heard: Arc<Semaphore>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Strangers,
    address: IpAddr,
    heard: Arc<Semaphore>,
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self {
            heard: Arc::new(Semaphore::new(HEARD)),
            places: Arc::default(),
        }
    }

    /// A place for one more of this address, if there is one.
    pub(super) fn place(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut places = self.lock();
        let taken = places.by_address.get(&address).map_or(0, |peer| peer.taken);
        let is_full = match taken < HEARD_EACH {
            true => places.taken >= WAITING + HEARD,
            false => places.taken >= WAITING || taken >= WAITING_EACH,
        };
        if is_full {
            return None;
        }
        places.taken += 1;
        let peer = places.by_address.entry(address).or_insert_with(|| Peer {
            taken: 0,
            heard: Arc::new(Semaphore::new(HEARD_EACH)),
        });
        peer.taken += 1;
        Some(Place {
            strangers: self.clone(),
            address,
            heard: Arc::clone(&peer.heard),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Each critical section leaves its value whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until this one may be heard. `None` never comes: the semaphores are never closed.
    pub(super) async fn turn(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        // Its own address's first: who waits for that holds nothing that others need.
        let own = Arc::clone(&self.heard).acquire_owned().await.ok()?;
        let heard = Arc::clone(&self.strangers.heard);
        Some((own, heard.acquire_owned().await.ok()?))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.strangers.lock();
        places.taken -= 1;
        let Some(peer) = places.by_address.get_mut(&self.address) else {
            return;
        };
        peer.taken -= 1;
        if peer.taken == 0 {
            places.by_address.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt as _;

    use super::*;

    fn address(last: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + last))
    }

    #[tokio::test]
    async fn one_address_keeps_no_other_out() {
        let strangers = Strangers::new();
        let mut turns = Vec::new();
        let mut crowd = Vec::new();
        while let Some(place) = strangers.place(address(1)) {
            turns.extend(place.turn().now_or_never().flatten());
            crowd.push(place);
        }
        assert_eq!((crowd.len(), turns.len()), (WAITING_EACH, HEARD_EACH));
        let other = strangers.place(address(2)).unwrap();
        assert!(other.turn().now_or_never().flatten().is_some());
        // One that has its token shown makes room for the next.
        turns.pop();
        assert!(crowd[100].turn().now_or_never().flatten().is_some());
        crowd.pop();
        assert!(strangers.place(address(1)).is_some());
    }

    #[test]
    fn a_full_door_still_has_places_for_an_address_with_few() {
        let strangers = Strangers::new();
        let mut crowd = Vec::new();
        for last in 0..8 {
            crowd.extend(std::iter::from_fn(|| strangers.place(address(last))));
        }
        assert!(crowd.len() < WAITING + HEARD);
        assert!(strangers.place(address(9)).is_some());
        for last in 100..1000 {
            crowd.extend(std::iter::from_fn(|| strangers.place(address(last))));
        }
        assert_eq!(crowd.len(), WAITING + HEARD);
        drop(crowd);
        assert!(strangers.lock().by_address.is_empty());
        assert_eq!(strangers.lock().taken, 0);
    }
}
