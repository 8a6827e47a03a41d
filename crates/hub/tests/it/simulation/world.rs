//! What all of one history share: the hub of the moment, what was really done outside, and chance.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use contract::keeper::ToHub;
use hub::home::{HomeEvent, HomeLink};
use hub::{Hub, HubError, Options};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::shim::SimShim;
use crate::home::{WAIT, fleet};

/// A seeded stream of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit.max(1)
    }

    pub(crate) fn pick(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.pick(from.len())]
    }
}

/// One history's world.
pub(crate) struct World {
    seed: u64,
    draws: AtomicU64,
    kind: AtomicBool,
    hub: watch::Sender<Option<Hub>>,
    /// How often each step was really performed, by its id.
    performed: Mutex<HashMap<String, u32>>,
    /// Calls being made by the hub of the moment: they die with it.
    calls: Mutex<Vec<JoinHandle<()>>>,
    changed: Mutex<Vec<String>>,
    /// What an agent has read whole, by task and call: every later attempt reads the same.
    read: Mutex<HashMap<(String, usize), String>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            seed,
            draws: AtomicU64::new(0),
            kind: AtomicBool::new(false),
            hub: watch::Sender::new(None),
            performed: Mutex::default(),
            calls: Mutex::default(),
            changed: Mutex::default(),
            read: Mutex::default(),
        })
    }

    /// The hub that runs now, or the next.
    pub(crate) async fn hub(&self) -> Hub {
        let mut hubs = self.hub.subscribe();
        let hub = hubs.wait_for(Option::is_some).await.unwrap();
        hub.clone().unwrap()
    }

    /// A stream of its own for each who asks.
    pub(crate) fn random(&self) -> Random {
        let draw = self.draws.fetch_add(1, Ordering::SeqCst);
        Random::seeded(self.seed ^ draw.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub(crate) fn is_kind(&self) -> bool {
        self.kind.load(Ordering::SeqCst)
    }

    /// From here on nothing goes wrong.
    pub(crate) fn be_kind(&self) {
        self.kind.store(true, Ordering::SeqCst);
    }

    /// Makes a call on the hub's behalf.
    pub(crate) fn call(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut calls = self.calls.lock().unwrap();
        calls.retain(|call| !call.is_finished());
        calls.push(tokio::spawn(call));
    }

    async fn calls_die(&self) {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        for call in calls {
            call.abort();
            let _ = call.await;
        }
    }

    /// Performs a step; returns its result.
    pub(crate) fn perform(&self, step: &str) -> String {
        *self
            .performed
            .lock()
            .unwrap()
            .entry(step.to_owned())
            .or_insert(0) += 1;
        self.result(step)
    }

    /// What performing a step gives.
    pub(crate) fn result(&self, step: &str) -> String {
        format!("result of {step}, world {}", self.seed)
    }

    pub(crate) fn executions(&self, step: &str) -> u32 {
        self.performed
            .lock()
            .unwrap()
            .get(step)
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn has_read(&self, task: &str, call: usize, answer: &str) {
        let mut read = self.read.lock().unwrap();
        let first = read
            .entry((task.to_owned(), call))
            .or_insert_with(|| answer.to_owned());
        if first != answer {
            let changed = format!("call {call} of {task} changed: {first}, then {answer}");
            self.changed.lock().unwrap().push(changed);
        }
    }

    /// An agent that reads another answer than the one before it is no failure of that agent.
    pub(crate) fn no_answer_changed(&self) {
        let changed = self.changed.lock().unwrap();
        assert!(changed.is_empty(), "{changed:#?}");
    }
}

/// A hub with its keeper in the test's hands.
pub(crate) struct SimHome {
    world: Arc<World>,
    events: mpsc::Sender<HomeEvent>,
    running: JoinHandle<Result<(), HubError>>,
    _commands: mpsc::UnboundedReceiver<contract::keeper::ToKeeper>,
}

impl SimHome {
    pub(crate) async fn start(world: &Arc<World>, state: &Path, shims: &[SimShim]) -> Self {
        let fleet = fleet(|agent| {
            agent.queue_max = 1000;
            agent.max_attempts = 1_000_000;
        });
        let dir = state.join("generations/001");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("fleet.json"), serde_json::to_vec(&fleet).unwrap()).unwrap();
        let (events, events_rx) = mpsc::channel(16);
        let (commands, commands_rx) = mpsc::unbounded_channel();
        let home = HomeLink {
            events: events_rx,
            commands,
        };
        let (hub, running) = Hub::start(Options {
            home,
            pid: std::process::id(),
            state_key: [7; 32],
            state_dir: state.to_owned(),
            workspace: "default".into(),
        })
        .await
        .unwrap();
        let proposed = ToHub::GenerationProposed {
            number: 1,
            hash: "hash".into(),
        };
        events.send(HomeEvent::Message(proposed)).await.unwrap();
        let instances = shims.iter().map(|shim| shim.instance.clone()).collect();
        let listed = ToHub::Instances { instances };
        events.send(HomeEvent::Message(listed)).await.unwrap();
        let ready = async {
            while hub.agent_get("helper").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT, ready).await.unwrap();
        world.hub.send_replace(Some(hub));
        Self {
            world: Arc::clone(world),
            events,
            running,
            _commands: commands_rx,
        }
    }

    /// Ends the hub as a dying keeper does: nothing is drained.
    pub(crate) async fn end(self) {
        self.world.hub.send_replace(None);
        self.events.send(HomeEvent::Gone).await.unwrap();
        let ended = tokio::time::timeout(WAIT, self.running).await;
        ended.unwrap().unwrap().unwrap();
        self.world.calls_die().await;
    }
}
