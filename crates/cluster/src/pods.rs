//! The pods that stand at the door: who each is, its idle offers, and its sockets on this host.
//!
//! For each pod there is a Unix socket, whose connections become the shim's, a loopback listener
//! that the hub serves as the instance's gateway, and for a service a loopback port. So hub and
//! gateway reach a pod as they reach a process beside them. A pod stays listed for a while after
//! its last offer: it may only be out of reach, and when its work is lost is the hub's to say.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::keeper::{Instance, InstanceKind};
use contract::pod::{FromPod, Network, Purpose, Target};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use crate::clock::now_seconds;
use crate::doors::Doors;
use crate::offer::{Offer, Stream};
use crate::token::Identity;
use names::Names;

/// Pods at once.
pub const MAX_PODS: usize = 2048;
/// Idle offers of one pod.
pub const MAX_OFFERS: usize = 16;
/// Connections of one pod's agent to its gateway.
pub const MAX_GATEWAY: usize = 1024;
/// How long a pod without an offer stays listed.
const LISTED: Duration = Duration::from_secs(60);
/// How long who wants to reach a pod waits for an offer.
const OFFER_WAIT: Duration = Duration::from_secs(2);
/// Above every process id: the hub tells by it whether an instance has a new shim, and must take no
/// process of this host for one.
const FIRST_SERIAL: u32 = 1 << 23;

/// Why a pod is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    #[error("{MAX_PODS} pods are connected already")]
    TooMany,
    #[error("pod has {MAX_OFFERS} offers already")]
    TooManyOffers,
    #[error("pod was replaced by a newer one of its name")]
    Replaced,
    #[error("pod was of another kind before")]
    OtherKind,
    #[error("its sockets could not be opened")]
    Sockets,
}

impl PodError {
    /// Whether a later try can end otherwise.
    pub(crate) fn may_pass(self) -> bool {
        !matches!(self, Self::Replaced | Self::OtherKind)
    }
}

/// What the home is told.
#[derive(Debug)]
pub enum PodEvent {
    /// A pod is here for the first time; its gateway listener is to be served.
    Gateway {
        instance: String,
        listener: std::net::TcpListener,
    },
    /// The list of instances is another one.
    Changed,
}

/// The registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pods(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run_dir: PathBuf,
    pods: Mutex<Known>,
    events: mpsc::Sender<PodEvent>,
    /// An operator's `AGENT` and `AGENT/INSTANCE` that get no work.
    stopped: Mutex<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: BTreeMap<String, Pod>,
    names: Names,
    serial: u32,
}

/// One pod.
#[derive(Debug)]
struct Pod {
    identity: Identity,
    kind: InstanceKind,
    isolation: String,
    template: String,
    service_port: Option<u16>,
    is_draining: bool,
    network: Network,
    /// How full its memory is, as it said last.
    memory_percent: Option<u8>,
    serial: u32,
    index: u32,
    doors: Doors,
    offers: Vec<Offer>,
    offered: Arc<Notify>,
    gateway_slots: Arc<Semaphore>,
    /// When it last had an offer.
    seen: Instant,
}

/// How many pods found their network open, and how many closed; others don't know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    pub(crate) open: usize,
    pub(crate) closed: usize,
}

/// What a connection is to the registry.
enum Met {
    New,
    Changed,
    Same,
}

/// Where a gateway connection of a pod goes, and its slot.
#[derive(Debug)]
pub(crate) struct ToGateway {
    pub(crate) address: SocketAddr,
    pub(crate) slots: Arc<Semaphore>,
}

impl Pods {
    /// An empty registry; sockets are made in `run_dir`.
    #[must_use]
    pub fn new(run_dir: &Path, events: mpsc::Sender<PodEvent>) -> Self {
        Self(Arc::new(Inner {
            run_dir: run_dir.to_owned(),
            pods: Mutex::default(),
            events,
            stopped: Mutex::default(),
        }))
    }

    /// The owner of a pod that was let in before and is still listed.
    pub(crate) fn owner_of(&self, pod: &str, uid: &str) -> Option<String> {
        let known = self.lock();
        let pod = known.by_name.get(pod)?;
        (pod.identity.uid == uid).then(|| pod.identity.owner.clone())
    }

    /// Keeps what a connection says of its pod, which was let in, and makes its sockets if it is new.
    pub(crate) async fn meet(&self, identity: &Identity, frame: &FromPod) -> Result<(), PodError> {
        let listener = {
            let mut known = self.lock();
            match known.again(identity, frame)? {
                Met::Same => return Ok(()),
                Met::Changed => None,
                // Under the lock: a pod's first two connections come together.
                Met::New => Some(self.insert(&mut known, identity, frame)?),
            }
        };
        if let Some(listener) = listener {
            let instance = identity.pod.clone();
            tracing::info!(pod = instance, owner = identity.owner, "a pod is here");
            // The home is gone only when the hub ends.
            let event = PodEvent::Gateway { instance, listener };
            let _ended = self.0.events.send(event).await;
        }
        let _ended = self.0.events.send(PodEvent::Changed).await;
        Ok(())
    }

    fn insert(
        &self,
        known: &mut Known,
        identity: &Identity,
        frame: &FromPod,
    ) -> Result<std::net::TcpListener, PodError> {
        // Its sockets go before those of the same names are made.
        drop(known.by_name.remove(&identity.pod));
        let opened = Doors::open(self, &self.0.run_dir, &identity.pod, frame);
        let (doors, listener) = opened.map_err(|error| {
            tracing::error!(pod = identity.pod, %error, "a pod's sockets can't be opened");
            PodError::Sockets
        })?;
        known.serial += 1;
        let pod = Pod {
            identity: identity.clone(),
            kind: frame.kind,
            isolation: bounded(&frame.isolation),
            template: bounded(&frame.template),
            service_port: frame.service_port,
            is_draining: frame.draining,
            network: frame.network,
            memory_percent: frame.memory_percent,
            serial: FIRST_SERIAL + known.serial,
            index: known.free_index(&identity.owner),
            doors,
            offers: Vec::new(),
            offered: Arc::default(),
            gateway_slots: Arc::new(Semaphore::new(MAX_GATEWAY)),
            seen: Instant::now(),
        };
        known.by_name.insert(identity.pod.clone(), pod);
        Ok(listener)
    }

    /// Adds an idle offer to a pod that was met.
    pub(crate) fn offer(&self, identity: &Identity, offer: Offer) -> Result<(), PodError> {
        let mut known = self.lock();
        let pod = known.by_name.get_mut(&identity.pod);
        let pod = pod
            .filter(|pod| pod.identity.uid == identity.uid)
            .ok_or(PodError::Replaced)?;
        pod.offers.retain(Offer::is_idle);
        if pod.offers.len() >= MAX_OFFERS {
            return Err(PodError::TooManyOffers);
        }
        pod.offers.push(offer);
        pod.seen = Instant::now();
        pod.offered.notify_waiters();
        Ok(())
    }

    /// Where a pod's gateway connections go.
    pub(crate) fn gateway(&self, identity: &Identity) -> Option<ToGateway> {
        let known = self.lock();
        let pod = known.by_name.get(&identity.pod)?;
        (pod.identity.uid == identity.uid).then(|| ToGateway {
            address: pod.doors.gateway,
            slots: Arc::clone(&pod.gateway_slots),
        })
    }

    /// Takes an offer of a pod and opens it to a target; waits a little where none is idle.
    pub(crate) async fn open(&self, name: &str, target: Target) -> Option<Stream> {
        let until = Instant::now() + OFFER_WAIT;
        loop {
            let offered = Arc::clone(&self.lock().by_name.get(name)?.offered);
            let mut more = std::pin::pin!(offered.notified());
            more.as_mut().enable();
            if let Some(offer) = self.idle(name) {
                if let Some(stream) = offer.take(target).await {
                    return Some(stream);
                }
                continue;
            }
            tokio::time::timeout_at(until, more).await.ok()?;
        }
    }

    /// The offer that was heard of last.
    fn idle(&self, name: &str) -> Option<Offer> {
        let mut known = self.lock();
        let pod = known.by_name.get_mut(name)?;
        pod.offers.retain(Offer::is_idle);
        pod.offers.pop()
    }

    /// The port that a service said it listens on.
    pub(crate) fn service_port(&self, name: &str) -> Option<u16> {
        self.lock().by_name.get(name)?.service_port
    }

    /// The list for the hub.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        let known = self.lock();
        let pods = known.by_name.iter();
        pods.map(|(name, pod)| pod.instance(name)).collect()
    }

    /// What the pods of each owner run, by the content that they were made of.
    #[must_use]
    pub fn content(&self) -> BTreeMap<String, BTreeSet<String>> {
        let known = self.lock();
        let mut content: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in known.by_name.values().filter(|pod| !pod.offers.is_empty()) {
            let owner = pod.identity.owner.clone();
            content
                .entry(owner)
                .or_default()
                .insert(pod.template.clone());
        }
        content
    }

    /// What the pods that are there found of their network.
    pub(crate) fn networks(&self) -> Networks {
        let known = self.lock();
        let mut networks = Networks::default();
        for pod in known.by_name.values().filter(|pod| !pod.offers.is_empty()) {
            match pod.network {
                Network::Unknown => {}
                Network::Open => networks.open += 1,
                Network::Closed => networks.closed += 1,
            }
        }
        networks
    }

    /// How full the memory of each owner's pods is, of 100 for each: their sum.
    pub(crate) fn memory(&self) -> BTreeMap<String, u32> {
        let known = self.lock();
        let mut memory: BTreeMap<String, u32> = BTreeMap::new();
        for pod in known.by_name.values().filter(|pod| !pod.offers.is_empty()) {
            if let Some(percent) = pod.memory_percent {
                // It's the agent's word.
                *memory.entry(pod.identity.owner.clone()).or_default() +=
                    u32::from(percent.min(100));
            }
        }
        memory
    }

    /// Those that get no more work: they end, or an operator stopped them.
    #[must_use]
    pub fn draining(&self) -> Vec<String> {
        let stopped = lock(&self.0.stopped).clone();
        let known = self.lock();
        let pods = known.by_name.iter();
        pods.filter(|(name, pod)| pod.is_draining || pod.is_stopped(name, &stopped))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What an operator stopped gets no new work; the list is another one then.
    pub fn set_stopped(&self, stopped: impl IntoIterator<Item = String>) {
        *lock(&self.0.stopped) = stopped.into_iter().collect();
    }

    /// Forgets pods that have had no offer for a while; whether there were any.
    pub fn tidy(&self) -> bool {
        let gone = {
            let mut known = self.lock();
            known.names.tidy(now_seconds());
            known.without_offers(Instant::now())
        };
        if !gone.is_empty() {
            tracing::info!(pods = gone.join(", "), "pods are gone");
        }
        !gone.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.0.pods)
    }
}

impl Known {
    fn without_offers(&mut self, now: Instant) -> Vec<String> {
        for pod in self.by_name.values_mut() {
            pod.offers.retain(Offer::is_idle);
            if !pod.offers.is_empty() {
                pod.seen = now;
            }
        }
        let pods = self.by_name.iter();
        let gone: Vec<String> = pods
            .filter(|(_, pod)| now.duration_since(pod.seen) > LISTED)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &gone {
            self.by_name.remove(name);
        }
        gone
    }

    /// What a connection of a pod changes.
    fn again(&mut self, identity: &Identity, frame: &FromPod) -> Result<Met, PodError> {
        let is_full = self.by_name.len() >= MAX_PODS;
        if !self.names.takes(identity) {
            return Err(PodError::Replaced);
        }
        let Some(pod) = self.by_name.get_mut(&identity.pod) else {
            return match is_full {
                true => Err(PodError::TooMany),
                false => Ok(Met::New),
            };
        };
        if pod.identity.uid != identity.uid {
            return Ok(Met::New);
        }
        // Its sockets are made for one kind, and nothing in a pod changes it.
        if pod.kind != frame.kind {
            return Err(PodError::OtherKind);
        }
        Ok(match pod.says(frame) {
            true => Met::Changed,
            false => Met::Same,
        })
    }

    /// The lowest index that no pod of the owner has.
    fn free_index(&self, owner: &str) -> u32 {
        let pods = self.by_name.values();
        let taken: BTreeSet<u32> = pods
            .filter(|pod| pod.identity.owner == owner)
            .map(|pod| pod.index)
            .collect();
        (0..).find(|index| !taken.contains(index)).unwrap_or(0)
    }
}

impl Pod {
    /// Takes what it says of itself; whether the hub has to know.
    fn says(&mut self, frame: &FromPod) -> bool {
        let before = (self.is_draining, self.isolation.clone());
        if frame.purpose == Purpose::Offer {
            self.is_draining = frame.draining;
            self.network = frame.network;
            self.isolation = bounded(&frame.isolation);
            self.service_port = frame.service_port;
            self.memory_percent = frame.memory_percent.or(self.memory_percent);
        }
        before != (self.is_draining, self.isolation.clone())
    }

    fn is_stopped(&self, name: &str, stopped: &BTreeSet<String>) -> bool {
        let owner = &self.identity.owner;
        stopped.contains(owner) || stopped.contains(&format!("{owner}/{name}"))
    }

    fn instance(&self, name: &str) -> Instance {
        Instance {
            name: name.to_owned(),
            owner: self.identity.owner.clone(),
            kind: self.kind,
            index: self.index,
            socket: self.doors.socket.display().to_string(),
            shim_pid: self.serial,
            gateway_port: self.doors.gateway.port(),
            isolation: self.isolation.clone(),
            service_port: self.doors.service.map(|address| address.port()),
        }
    }
}

/// What a pod says of itself is shown to people, and is the agent's word.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves its value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
