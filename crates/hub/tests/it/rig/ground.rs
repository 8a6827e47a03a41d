//! The ground of a hub in a rig: one thread, a clock that moves when nothing else can happen,
//! chance from a seed, pipes in memory, a disk that fails where it is told to, and a process that
//! can end between any two steps.
//!
//! [`Outside`] is what outlives hubs; a [`Process`] is the ground of one hub.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hub::ground::{Connecting, Ground, Pipe, Work};
use store::{Stage, StoreError};
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::world::{Random, World};

/// The wall clock at the start of every history.
const FROM_MS: i64 = 1_700_000_000_000;
/// How long a hub may go by what it knew of the disk before.
const FULL_KNOWN: Duration = Duration::from_millis(550);
/// What a pipe to a shim holds.
const PIPE_BYTES: usize = 1 << 20;

/// What a hub may meet at its n-th commit to the workspace's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk fails there.
    Disk(Stage),
    /// Committed and told, and the process ends before any action.
    Told,
    /// The keeper goes: the hub ends in good order.
    Orderly,
}

/// What outlives every hub.
#[derive(Debug)]
pub(crate) struct Outside {
    random: Mutex<Random>,
    started: Instant,
    /// How far the wall clock was set forward or back.
    jumped_ms: AtomicI64,
    ids: AtomicU64,
    doors: Mutex<BTreeMap<PathBuf, mpsc::UnboundedSender<DuplexStream>>>,
    /// Since when less than the reserve is free.
    full_since: Mutex<Option<Instant>>,
    /// Commits to the workspace's log by all hubs.
    commits: AtomicU64,
    fault: Mutex<Option<(u64, Fault)>>,
}

impl Outside {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(Random::seeded(seed ^ 0x5eed)),
            started: Instant::now(),
            jumped_ms: AtomicI64::new(0),
            ids: AtomicU64::new(0),
            doors: Mutex::default(),
            full_since: Mutex::default(),
            commits: AtomicU64::new(0),
            fault: Mutex::default(),
        })
    }

    /// The wall clock.
    pub(crate) fn now_ms(&self) -> i64 {
        FROM_MS + self.passed_ms() + self.jumped_ms.load(Ordering::SeqCst)
    }

    fn passed_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap()
    }

    pub(crate) fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Less than the reserve is free, or enough again.
    pub(crate) fn fill(&self, is_full: bool) {
        let mut since = self.full_since.lock().unwrap();
        *since = is_full.then(|| since.unwrap_or_else(Instant::now));
    }

    /// The disk has been full for so long that a hub knows.
    fn is_known_full(&self) -> bool {
        let since = *self.full_since.lock().unwrap();
        since.is_some_and(|since| since.elapsed() > FULL_KNOWN)
    }

    /// A shim listens there.
    pub(crate) fn open_door(&self, socket: &Path) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (door, calls) = mpsc::unbounded_channel();
        self.doors.lock().unwrap().insert(socket.to_owned(), door);
        calls
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// The commit with this number, counted over all hubs, meets a fault. It happens once.
    pub(crate) fn fail_at(&self, commit: u64, fault: Fault) {
        *self.fault.lock().unwrap() = Some((commit, fault));
    }

    /// Whether the fault is still to come.
    pub(crate) fn is_to_fail(&self) -> bool {
        self.fault.lock().unwrap().is_some()
    }

    /// The fault of this stage of the current commit.
    fn take_fault(&self, stage: Stage) -> Option<Fault> {
        let mut fault = self.fault.lock().unwrap();
        let (commit, due) = (*fault)?;
        let at = match due {
            Fault::Disk(at) => at,
            Fault::Told | Fault::Orderly => Stage::Headed,
        };
        if commit != self.commits() || at != stage {
            return None;
        }
        *fault = None;
        Some(due)
    }
}

/// The ground of one hub: its process, as far as there is one.
#[derive(Debug)]
pub(crate) struct Process {
    outside: Arc<Outside>,
    world: Arc<World>,
    log: PathBuf,
    works: Mutex<Vec<JoinHandle<()>>>,
    is_dead: AtomicBool,
    died: Notify,
    pub(crate) orderly: Notify,
}

impl Process {
    pub(crate) fn new(world: &Arc<World>, outside: &Arc<Outside>, log: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            outside: Arc::clone(outside),
            world: Arc::clone(world),
            log,
            works: Mutex::default(),
            is_dead: AtomicBool::new(false),
            died: Notify::new(),
            orderly: Notify::new(),
        })
    }

    /// SIGKILL: nothing of the process runs again.
    pub(crate) fn kill(&self) {
        if self.is_dead.swap(true, Ordering::SeqCst) {
            return;
        }
        for work in self.works.lock().unwrap().iter() {
            work.abort();
        }
        self.world.hub_is_gone();
        self.died.notify_one();
    }

    /// Resolves once the process has died.
    pub(crate) async fn died(&self) {
        self.died.notified().await;
    }

    /// Waits until nothing of the process is left.
    pub(crate) async fn reap(&self) {
        loop {
            let works = std::mem::take(&mut *self.works.lock().unwrap());
            if works.is_empty() {
                return;
            }
            for work in works {
                work.abort();
                let _ = work.await;
            }
        }
    }
}

impl store::Ground for Process {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), StoreError> {
        let mut random = self.outside.random.lock().unwrap();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.draw().to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn is_low(&self, _dir: &Path) -> io::Result<bool> {
        Ok(self.outside.full_since.lock().unwrap().is_some())
    }

    fn reach(&self, dir: &Path, stage: Stage) -> io::Result<()> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("the process is dead"));
        }
        if dir != self.log {
            return Ok(());
        }
        if stage == Stage::Begin {
            self.outside.commits.fetch_add(1, Ordering::SeqCst);
        }
        if stage == Stage::Headed {
            self.world.watch.look(dir, self.outside.is_known_full());
        }
        match self.outside.take_fault(stage) {
            None => Ok(()),
            Some(Fault::Disk(_)) => Err(io::Error::other("the disk broke")),
            Some(Fault::Told) => {
                self.kill();
                Ok(())
            }
            Some(Fault::Orderly) => {
                self.orderly.notify_one();
                Ok(())
            }
        }
    }
}

impl Ground for Process {
    fn boot_ms(&self) -> i64 {
        self.outside.passed_ms()
    }

    fn now_ms(&self) -> i64 {
        self.outside.now_ms()
    }

    fn new_id(&self) -> String {
        let mut rest = [0; 10];
        let n = self.outside.ids.fetch_add(1, Ordering::SeqCst);
        rest[..8].copy_from_slice(&n.to_be_bytes());
        let ms = u64::try_from(FROM_MS).unwrap();
        let id = uuid::Builder::from_unix_timestamp_millis(ms, &rest);
        id.into_uuid().to_string()
    }

    fn connect<'a>(&'a self, socket: &'a Path) -> Connecting<'a> {
        Box::pin(async move {
            let doors = self.outside.doors.lock().unwrap();
            let door = doors.get(socket).ok_or(io::ErrorKind::NotFound)?;
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            door.send(theirs).map_err(refused)?;
            Ok(Box::new(ours) as Box<dyn Pipe>)
        })
    }

    fn spawn(&self, work: Work) -> AbortHandle {
        let work = tokio::spawn(work);
        let handle = work.abort_handle();
        if self.is_dead.load(Ordering::SeqCst) {
            handle.abort();
        }
        let mut works = self.works.lock().unwrap();
        works.retain(|work| !work.is_finished());
        works.push(work);
        handle
    }

    fn is_one_thread(&self) -> bool {
        true
    }

    fn end(&self, _code: i32) {
        self.kill();
    }
}
