//! What the writer publishes and everybody else reads without asking it.
//!
//! Written only by the writer after an event was applied, or by the owners named at each field.
//! Locks are held for look-ups, never across an await.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use api::fleet::Fleet;
use contract::keeper::ToKeeper;
use contract::shim::ToShim;
use store::Trouble;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::action::Action;

use crate::answer::{Guard, Spool};
use crate::caller::Caller;
use crate::ground::Ground;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::secret::SecretStore;
use crate::service::ServiceCall;
use crate::stream::Streams;
use crate::view::ApplyView;
use crate::{Code, HubError};

impl Shared {
    /// What keeps one of the logs from being written.
    pub(crate) fn trouble(&self) -> Trouble {
        let [log, system] = &self.log_health;
        match log.trouble() {
            Trouble::None => system.trouble(),
            trouble => trouble,
        }
    }

    /// New work is refused, rather than kept waiting, while it can't be recorded.
    pub(crate) fn can_record(&self) -> Result<(), HubError> {
        match self.trouble() {
            Trouble::None => Ok(()),
            Trouble::Away | Trouble::Lost => Err(HubError::new(
                Code::Unavailable,
                "the log's Postgres is away: nothing is begun until it is back; try again then",
            )),
            Trouble::Full => Err(HubError::new(
                Code::NoSpace,
                "the log's Postgres has no room: free some there, then try again",
            )),
        }
    }
}

/// State that outlives no process and decides nothing.
pub(crate) struct Shared {
    pub(crate) ground: Arc<dyn Ground>,
    pub(crate) keys: Keys,
    pub(crate) state_dir: PathBuf,
    pub(crate) workspace_dir: PathBuf,
    pub(crate) secrets: SecretStore,
    pub(crate) metrics: Metrics,
    pub(crate) streams: Streams,
    /// Today's fleet.
    pub(crate) today: RwLock<Arc<Fleet>>,
    /// Who holds which task now: task id to caller.
    pub(crate) callers: RwLock<HashMap<String, Caller>>,
    /// Services by instance.
    pub(crate) services: RwLock<HashMap<String, ServiceIdentity>>,
    /// Links to shims by instance; kept by `link`.
    pub(crate) links: Mutex<HashMap<String, mpsc::UnboundedSender<ToShim>>>,
    pub(crate) keeper: mpsc::UnboundedSender<ToKeeper>,
    pub(crate) actions: mpsc::UnboundedSender<Action>,
    /// Calls to services: task to the attempt and the sender whose drop revokes its call.
    pub(crate) calls: Mutex<HashMap<String, (u32, watch::Sender<bool>)>>,
    pub(crate) service_calls: mpsc::Sender<ServiceCall>,
    /// Answers being made, by task and step.
    pub(crate) spools: Spools,
    /// Connections that wait for a step in an attempt.
    pub(crate) live: Arc<Live>,
    pub(crate) conversations: Arc<crate::load::Conversations>,
    /// Who waits for a task to end or park.
    pub(crate) waiters: Mutex<HashMap<String, Vec<oneshot::Sender<()>>>>,
    /// Applies that wait for the keeper's answer.
    pub(crate) applies: Mutex<HashMap<u64, oneshot::Sender<ApplyView>>>,
    /// How the two logs' server is, if they lie on one.
    pub(crate) log_health: [store::Health; 2],
    pub(crate) ready: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// The tables lack rows of entries that are committed.
    pub(crate) rows_lag: AtomicBool,
    pub(crate) stop: Notify,
    /// Tasks of [`crate::Hub::spawn`] that still run.
    pub(crate) spawned: AtomicU64,
    /// How long an instance whose link broke may stay away, in milliseconds.
    pub(crate) reattach_ms: AtomicU64,
    /// Shims' process ids, for telling whose descendant a peer is.
    pub(crate) shim_pids: RwLock<Vec<u32>>,
    /// Sockets of stdio MCP servers' shims by `registry/tool`.
    pub(crate) bridges: RwLock<HashMap<String, PathBuf>>,
}

/// Answers by task and step.
pub(crate) type Spools = Mutex<HashMap<(String, u32), Arc<Spool>>>;

/// A service process that may call the gateway.
#[derive(Clone, Debug)]
pub(crate) struct ServiceIdentity {
    pub(crate) agent: String,
    pub(crate) incarnation: u32,
    /// With concurrency 1: the task it works on now.
    pub(crate) task: Option<String>,
    /// What it does outside any task, once it did something.
    pub(crate) ambient: Option<String>,
    pub(crate) concurrency: u32,
}

/// Takes a lock whatever happened to an earlier holder: each critical section leaves it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a lock likewise.
pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a lock likewise.
pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Counts connections that wait for a step.
#[derive(Debug, Default)]
pub(crate) struct Live {
    counts: Mutex<HashMap<(String, u32, u32), u32>>,
}

impl Live {
    /// Does a connection of this attempt wait for the step?
    pub(crate) fn is(&self, task: &str, attempt: u32, n: u32) -> bool {
        lock(&self.counts).contains_key(&(task.to_owned(), attempt, n))
    }

    /// Registers a connection until the guard is dropped.
    pub(crate) fn register(self: &Arc<Self>, task: &str, attempt: u32, n: u32) -> Guard {
        let key = (task.to_owned(), attempt, n);
        *lock(&self.counts).entry(key.clone()).or_insert(0) += 1;
        Box::new(LiveGuard {
            live: Arc::clone(self),
            key,
        })
    }
}

struct LiveGuard {
    live: Arc<Live>,
    key: (String, u32, u32),
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        let mut counts = lock(&self.live.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
