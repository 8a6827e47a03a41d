//! What the writer knows: open tasks, who may take them, and where everything stands.
//!
//! Rebuilt from the log at start. Terminal tasks are not kept; they are read when asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use api::fleet::{Agent, Fleet};
use contract::keeper::{GenerationRef, Instance, InstanceKind};
use contract::shim::{Exit, ServiceState};
use mainstay_core::event::StepMark;
use mainstay_core::step::{Index, StepKind, StepState};
use mainstay_core::task::TaskRecord;
use tokio::time::Instant;

use crate::keys::TaskKey;
use crate::unwritten::Unwritten;

/// A map whose order depends on nothing but what was put in, so that a history can be run again.
/// Its keys are ids and names of ours or of manifests.
pub(crate) type Map<V> = HashMap<String, V, BuildHasherDefault<DefaultHasher>>;

/// A task in memory.
pub(crate) struct Open {
    pub(crate) record: TaskRecord,
    pub(crate) updated_seq: u64,
    pub(crate) key: TaskKey,
    pub(crate) input_text: Arc<str>,
    /// Messages already stored for this task.
    pub(crate) blobs: HashSet<[u8; 32]>,
    /// Its steps by key, as far as it was last asked for.
    pub(crate) index: Index,
    /// Marks applied in memory that no entry has yet.
    pub(crate) pending_marks: BTreeMap<u32, StepMark>,
    /// The attempt that an earlier hub was serving. Marks of it may have died with that hub.
    pub(crate) inherited: Option<u32>,
    /// The same attempt, until it has made a call to this hub. The earlier one's death broke its
    /// connections, and an exit for that is none of its own making.
    pub(crate) unheard: Option<u32>,
    /// When it was submitted, and when its deadline passes, on [`Ground::boot_ms`]: no wall jump
    /// moves them.
    ///
    /// [`Ground::boot_ms`]: crate::ground::Ground::boot_ms
    pub(crate) born_ms: i64,
    pub(crate) due_ms: Option<i64>,
    /// Its provider failed: nobody works on it before.
    pub(crate) rests_until: Option<Instant>,
}

/// Both clocks, read together.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) wall_ms: i64,
    pub(crate) boot_ms: i64,
}

impl Clocks {
    pub(crate) fn read(ground: &dyn crate::ground::Ground) -> Self {
        Self {
            wall_ms: ground.now_ms(),
            boot_ms: ground.boot_ms(),
        }
    }

    /// A time by the wall on the clock that doesn't jump.
    pub(crate) fn boot_time(self, wall_ms: i64) -> i64 {
        self.boot_ms
            .saturating_add(wall_ms.saturating_sub(self.wall_ms))
    }
}

impl Open {
    /// Calls of it are being made, here and not inside its agent.
    pub(crate) fn has_calls(&self) -> bool {
        self.record
            .steps
            .iter()
            .any(|step| step.state == StepState::InFlight && step.kind != StepKind::Local)
    }

    /// How long ago it was submitted.
    pub(crate) fn age_ms(&self, boot_ms: i64) -> u64 {
        u64::try_from(boot_ms.saturating_sub(self.born_ms)).unwrap_or(0)
    }

    /// Waits for an instance.
    pub(crate) fn is_waiting(&self) -> bool {
        let task = &self.record.task;
        !task.ambient
            && !task.state.is_terminal()
            && !task.state.is_parked()
            && task.lease.is_none()
    }
}

/// An instance as the hub sees it.
pub(crate) struct InstanceState {
    pub(crate) instance: Instance,
    /// The link to its shim stands and has told what runs.
    pub(crate) linked: bool,
    /// It has also handed in what happened while no link stood.
    pub(crate) settled: bool,
    pub(crate) service: Option<ServiceState>,
    pub(crate) attached: bool,
    /// Its shim was told that nobody waits for it.
    pub(crate) idle: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<Exit>,
    /// When the attempt before the one that follows by itself ended, as the shim read the clock.
    pub(crate) ended_ms: Option<u64>,
    /// When it went away, if it did: an attempt on it is lost after a while.
    pub(crate) gone_since: Option<Instant>,
    /// Tasks that lost their lease and whose process tree here has yet to end, and until when that
    /// is waited for: nobody else gets the task, and this instance no other, before.
    pub(crate) ending: BTreeMap<String, Instant>,
}

/// Everything the writer owns.
pub(crate) struct State {
    pub(crate) log: store::Log,
    pub(crate) system: store::Log,
    /// This hub's number among the hubs of this state.
    pub(crate) incarnation: u64,
    pub(crate) tasks: Map<Open>,
    /// What the tables lack.
    pub(crate) unwritten: Unwritten,
    /// Waiting tasks by agent, oldest first.
    pub(crate) queues: BTreeMap<String, BTreeSet<(i64, String)>>,
    /// Open tasks by session, oldest first.
    pub(crate) sessions: HashMap<String, BTreeSet<(i64, String)>>,
    /// Leased tasks by instance.
    pub(crate) leases: Map<BTreeSet<String>>,
    pub(crate) instances: BTreeMap<String, InstanceState>,
    /// Where instances are pods: those that get no more work.
    pub(crate) pods: Option<BTreeSet<String>>,
    pub(crate) stopped: BTreeSet<String>,
    pub(crate) generation: Option<GenerationRef>,
    pub(crate) fleets: HashMap<u64, Arc<Fleet>>,
    /// How far the wall clock was ahead of the one that doesn't jump, at the last look.
    pub(crate) ahead_ms: Option<i64>,
    pub(crate) low_space: bool,
    pub(crate) low_space_checked: Option<Instant>,
    /// The writer's thread ends after this batch.
    pub(crate) ends: bool,
}

impl State {
    /// The fleet of a generation; today's when it is no longer known.
    pub(crate) fn fleet(&self, generation: u64) -> Option<Arc<Fleet>> {
        self.fleets
            .get(&generation)
            .or_else(|| self.today_fleet())
            .cloned()
    }

    fn today_fleet(&self) -> Option<&Arc<Fleet>> {
        self.fleets.get(&self.generation.as_ref()?.number)
    }

    /// Today's agent of this name.
    pub(crate) fn agent(&self, name: &str) -> Option<&Agent> {
        self.today_fleet()?.agents.get(name)
    }

    /// `; did you mean X?` for a name that is close to an agent's.
    pub(crate) fn nearest(&self, name: &str) -> String {
        let names: Vec<&str> = self
            .today_fleet()
            .into_iter()
            .flat_map(|fleet| fleet.agents.keys())
            .map(String::as_str)
            .collect();
        match names
            .iter()
            .find(|known| known.contains(name) || name.contains(**known))
        {
            Some(known) => format!("; did you mean {known}?"),
            None if names.is_empty() => "; the fleet has none".to_owned(),
            None => format!(
                "; there are {}",
                names.iter().take(8).copied().collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// The session has another open task before this one: turns follow each other.
    pub(crate) fn session_is_busy(&self, task: &TaskRecord) -> bool {
        let this = (task.task.created_ms, task.task.id.as_str());
        let first = self.sessions.get(&task.task.session);
        first
            .and_then(BTreeSet::first)
            .is_some_and(|(created_ms, id)| (*created_ms, id.as_str()) < this)
    }

    /// The tree of an earlier attempt of this task has yet to end somewhere.
    pub(crate) fn is_ending(&self, task: &str) -> bool {
        self.instances
            .values()
            .any(|state| state.ending.contains_key(task))
    }

    /// Can this instance take one more task now?
    pub(crate) fn has_room(&self, name: &str, concurrency: u32) -> bool {
        let Some(state) = self.instances.get(name) else {
            return false;
        };
        let up = match state.instance.kind {
            InstanceKind::Exec => state.linked && state.settled,
            InstanceKind::Service => {
                state.linked
                    && self.runs_todays(state)
                    && (state.attached
                        || state.service.as_ref().is_some_and(|service| service.ready))
            }
            InstanceKind::Mcp => false,
        };
        let held = self.leases.get(name).map_or(0, BTreeSet::len) + state.ending.len();
        let is_draining = self.pods.as_ref().is_some_and(|pods| pods.contains(name));
        up && !is_draining && held < concurrency as usize
    }

    /// Whether a service's process is what today's generation would start. Right after a switch its
    /// shim hasn't said so yet; one of an older build never does.
    fn runs_todays(&self, state: &InstanceState) -> bool {
        let today = self.generation.as_ref().map_or(0, |today| today.number);
        state.service.as_ref().is_none_or(|service| {
            !service.outdated && (service.generation == 0 || service.generation >= today)
        })
    }

    /// Ends in good order.
    pub(crate) fn close(self) {
        for log in [self.log, self.system] {
            if let Err(error) = log.close() {
                tracing::warn!(%error, "failed to close the log in good order; the next start repairs it");
            }
        }
    }
}
