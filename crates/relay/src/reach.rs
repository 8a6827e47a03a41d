//! Whether the policies that hold an agent's pod are enforced: tries what they forbid.
//!
//! Theory: such a pod may reach its hub's door for pods and nothing else, so the clients' door beside
//! it is forbidden. A hub's process has opened that door before it welcomes the first pod, and both
//! are ports of one Service: while an offer is welcomed, the other door listens and a way leads
//! there. If a connection to it isn't made then, something keeps this pod from it. Who ends TLS there
//! with the hub's own certificate is the hub and no proxy on the way: then nothing does. Whatever lies
//! between says nothing. Policies may be put in place a while after a pod began, so that the door is
//! found open counts only when it is found so again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::pod::Network;

use crate::Relay;
use crate::door::Knock;

/// When what is forbidden is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From the start on, and after what says nothing; then twice as long each time.
    first: Duration,
    /// After the first time that the door is found open.
    again: Duration,
    /// After an answer.
    later: Duration,
}

impl Pace {
    pub(crate) const USUAL: Self = Self {
        first: Duration::from_secs(2),
        again: Duration::from_secs(20),
        later: Duration::from_secs(600),
    };
}

/// Tries for ever, and keeps what the relay's offers say of it.
pub(crate) async fn watch(relay: Arc<Relay>, forbidden: SocketAddr, pace: Pace) {
    let mut is_open = false;
    let mut wait = pace.first;
    loop {
        tokio::time::sleep(wait).await;
        let found = attempt(&relay, forbidden).await;
        wait = match found {
            None => (wait * 2).min(pace.later),
            Some(Network::Open) if !is_open => pace.again,
            Some(found) => {
                tell(&relay, found);
                pace.later
            }
        };
        is_open = match found {
            None => is_open,
            Some(found) => found == Network::Open,
        };
    }
}

/// `None` where a try says nothing.
async fn attempt(relay: &Relay, forbidden: SocketAddr) -> Option<Network> {
    let before = relay.standing.times_welcomed()?;
    let knock = relay.door.knock(forbidden).await;
    // The same offer, or the hub may have been away in between.
    let after = relay.standing.times_welcomed()?;
    match knock {
        Knock::Answered => Some(Network::Open),
        Knock::NotMade if before == after => Some(Network::Closed),
        Knock::NotMade | Knock::Unclear => None,
    }
}

fn tell(relay: &Relay, found: Network) {
    let is_news = relay.door.network.send_if_modified(|known| {
        let is_news = *known != found;
        *known = found;
        is_news
    });
    if is_news && found == Network::Open {
        tracing::warn!(
            "the network lets this pod reach what its policies forbid: nothing enforces them here"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;

    use contract::keeper::InstanceKind;
    use contract::pod::{Pod, Purpose, ToRelay, below};
    use testkit::pod_door::PodDoor;
    use tokio::sync::{Semaphore, watch};

    use super::*;
    use crate::door::Door;
    use crate::standing::Standing;

    const FAST: Pace = Pace {
        first: Duration::from_millis(1),
        again: Duration::from_millis(5),
        later: Duration::from_millis(20),
    };

    fn relay(door: &PodDoor, root: &Path) -> Arc<Relay> {
        let certificate = below(root, contract::pod::CA_FILE);
        std::fs::create_dir_all(certificate.parent().unwrap()).unwrap();
        std::fs::write(&certificate, &door.certificate).unwrap();
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "workspace": "acme", "owner": "helper", "kind": InstanceKind::Exec, "command": [],
            "env": {}, "graceMs": 1, "hub": door.address.to_string(), "template": "t",
        }))
        .unwrap();
        Arc::new(Relay {
            door: Door::new(door.address, root, &pod),
            root: root.to_owned(),
            standing: Standing::default(),
            offered: watch::channel(ToRelay::default()).1,
            gateway_slots: Arc::new(Semaphore::new(1)),
            opened_slots: Arc::new(Semaphore::new(1)),
        })
    }

    /// A port where nothing listens.
    fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn what_is_refused_is_closed_only_while_the_hub_is_there() {
        let (door, root) = (PodDoor::open(), tempfile::tempdir().unwrap());
        let relay = relay(&door, root.path());
        assert_eq!(attempt(&relay, nowhere()).await, None);
        let welcomed = relay.standing.welcomed();
        let found = attempt(&relay, nowhere()).await;
        assert_eq!(found, Some(Network::Closed));
        drop(welcomed);
        assert_eq!(attempt(&relay, nowhere()).await, None);
    }

    #[tokio::test]
    async fn who_takes_the_connection_and_is_no_hub_says_nothing() {
        let (door, root) = (PodDoor::open(), tempfile::tempdir().unwrap());
        let relay = relay(&door, root.path());
        let _welcomed = relay.standing.welcomed();
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = proxy.local_addr().unwrap();
        let taken = std::thread::spawn(move || drop(proxy.accept().unwrap()));
        assert_eq!(attempt(&relay, address).await, None);
        taken.join().unwrap();
        // Another's certificate.
        let mut other = PodDoor::open();
        let address = other.address;
        let taken =
            std::thread::spawn(move || other.next_within(Purpose::Offer, Duration::from_secs(1)));
        assert_eq!(attempt(&relay, address).await, None);
        assert!(taken.join().unwrap().is_none());
    }

    #[tokio::test]
    async fn that_the_hub_is_reached_counts_when_it_is_so_again() {
        let (mut door, root) = (PodDoor::open(), tempfile::tempdir().unwrap());
        let relay = relay(&door, root.path());
        let _welcomed = relay.standing.welcomed();
        let address = door.address;
        let (stop_tx, stop) = std::sync::mpsc::channel::<()>();
        let hub = std::thread::spawn(move || {
            while stop.try_recv().is_err() {
                let _none = door.next_within(Purpose::Offer, Duration::from_millis(20));
            }
        });
        let mut network = relay.door.network.subscribe();
        let watching = tokio::spawn(watch(Arc::clone(&relay), address, FAST));
        let found = network.wait_for(|found| *found != Network::Unknown);
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        assert_eq!(*found.unwrap().unwrap(), Network::Open);
        // Nothing listens there any more: it is as if a policy were in force now.
        stop_tx.send(()).unwrap();
        hub.join().unwrap();
        let found = network.wait_for(|found| *found == Network::Closed);
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        assert_eq!(*found.unwrap().unwrap(), Network::Closed);
        watching.abort();
    }
}
