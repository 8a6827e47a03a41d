//! What lies outside the hub and outlives it: what was really done, what becomes of each call, who
//! has read what, and chance. And the hub of the moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hub::Hub;
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::invariant::Watch;
pub(crate) use testkit::random::Random;

/// What becomes of a call that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answer,
    /// 502: not done.
    Fail,
    /// 401 from every credential: not done.
    Unauthorized,
    /// The connection breaks; it was done.
    BreakAfter,
    /// The connection breaks; it was not done.
    BreakBefore,
    /// Whoever performs it is gone in the middle; it was done.
    DropAfter,
}

/// How results are told apart: by their step, or by what was asked, which is the same in every
/// history of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Results {
    ByStep,
    ByRequest,
}

/// A flag of the world: no provider takes the credentials.
pub(crate) const REFUSED: &str = "credentials are refused";

/// One history's world.
#[derive(Debug)]
pub(crate) struct World {
    results: Results,
    pub(crate) watch: Watch,
    /// Everything is delivered twice: commands, facts, and what a keeper says.
    pub(crate) is_double: bool,
    random: Mutex<Random>,
    is_kind: AtomicBool,
    hub: Mutex<Option<Hub>>,
    /// How often each step was really performed: its request, and the times.
    performed: Mutex<BTreeMap<String, (String, u32)>>,
    /// Calls being made by the hub of the moment: they die with it.
    calls: Mutex<Vec<JoinHandle<()>>>,
    /// What an agent has read whole, by task and call: every later attempt reads the same.
    read: Mutex<BTreeMap<(String, usize), String>>,
    fates: Mutex<BTreeMap<String, VecDeque<Fate>>>,
    flags: Mutex<BTreeSet<String>>,
    wrong: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, results: Results, is_double: bool) -> Arc<Self> {
        Arc::new(Self {
            results,
            watch: Watch::default(),
            is_double,
            random: Mutex::new(Random::seeded(seed)),
            is_kind: AtomicBool::new(results == Results::ByRequest),
            hub: Mutex::default(),
            performed: Mutex::default(),
            calls: Mutex::default(),
            read: Mutex::default(),
            fates: Mutex::default(),
            flags: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    /// The hub that runs now, or the next.
    pub(crate) async fn hub(&self) -> Hub {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(hub) = self.hub.lock().unwrap().clone() {
                return hub;
            }
            assert!(tokio::time::Instant::now() < until, "no hub comes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn hub_is(&self, hub: Hub) {
        *self.hub.lock().unwrap() = Some(hub);
    }

    /// Its calls end with it.
    pub(crate) fn hub_is_gone(&self) {
        *self.hub.lock().unwrap() = None;
        for call in self.calls.lock().unwrap().iter() {
            call.abort();
        }
    }

    pub(crate) async fn calls_are_gone(&self) {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        for call in calls {
            call.abort();
            let _ = call.await;
        }
    }

    /// Makes a call on the hub's behalf.
    pub(crate) fn call(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut calls = self.calls.lock().unwrap();
        calls.retain(|call| !call.is_finished());
        calls.push(tokio::spawn(call));
    }

    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.random.lock().unwrap().below(limit)
    }

    /// From here on nothing goes wrong by chance.
    pub(crate) fn be_kind(&self) {
        self.is_kind.store(true, Ordering::SeqCst);
    }

    /// What becomes of the next call for this.
    pub(crate) fn fate(&self, request: &str) -> Fate {
        let mut fates = self.fates.lock().unwrap();
        if let Some(fate) = fates.get_mut(request).and_then(VecDeque::pop_front) {
            return fate;
        }
        drop(fates);
        if self.has(REFUSED) {
            return Fate::Unauthorized;
        }
        if self.is_kind.load(Ordering::SeqCst) {
            return Fate::Answer;
        }
        match self.below(100) {
            0..=4 => Fate::Fail,
            5..=8 => Fate::BreakAfter,
            9..=12 => Fate::BreakBefore,
            13..=16 => Fate::DropAfter,
            _ => Fate::Answer,
        }
    }

    pub(crate) fn will(&self, request: &str, fates: &[Fate]) {
        let fates = fates.iter().copied().collect();
        self.fates.lock().unwrap().insert(request.to_owned(), fates);
    }

    /// Takes time, if chance has a say here.
    pub(crate) async fn dawdle(&self, below_ms: u64) {
        let ms = if self.results == Results::ByStep {
            self.below(below_ms)
        } else {
            1
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Performs a step; returns its result.
    pub(crate) fn perform(&self, step: &str, request: &str) -> String {
        let mut performed = self.performed.lock().unwrap();
        let (_, times) = performed
            .entry(step.to_owned())
            .or_insert_with(|| (request.to_owned(), 0));
        *times += 1;
        self.watch.performed(step, *times);
        self.result(step, request)
    }

    /// What performing a step gives.
    pub(crate) fn result(&self, step: &str, request: &str) -> String {
        match self.results {
            Results::ByStep => format!("result of {step}"),
            Results::ByRequest => format!("result of {request}"),
        }
    }

    /// What a step gave, if it was performed.
    pub(crate) fn result_of(&self, step: &str) -> Option<String> {
        let performed = self.performed.lock().unwrap();
        let (request, _) = performed.get(step)?;
        Some(self.result(step, request))
    }

    pub(crate) fn executions(&self, step: &str) -> u32 {
        let performed = self.performed.lock().unwrap();
        performed.get(step).map_or(0, |(_, times)| *times)
    }

    /// What was done, by request: its steps, and how often each was. An outside that knows a key
    /// again counts a step once.
    pub(crate) fn effects(&self) -> BTreeMap<String, Vec<(String, u32)>> {
        let mut effects: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
        for (step, (request, times)) in &*self.performed.lock().unwrap() {
            let steps = effects.entry(request.clone()).or_default();
            steps.push((step.clone(), *times));
        }
        effects
    }

    pub(crate) fn has_read(&self, task: &str, call: usize, answer: &str) {
        let mut read = self.read.lock().unwrap();
        let first = read
            .entry((task.to_owned(), call))
            .or_insert_with(|| answer.to_owned());
        if first != answer {
            let changed = format!("call {call} of {task} changed: {first}, then {answer}");
            self.is_wrong(changed);
        }
    }

    /// The first time it is asked.
    pub(crate) fn first(&self, what: &str) -> bool {
        self.flags.lock().unwrap().insert(what.to_owned())
    }

    pub(crate) fn has(&self, what: &str) -> bool {
        self.flags.lock().unwrap().contains(what)
    }

    pub(crate) fn no_longer(&self, what: &str) {
        self.flags.lock().unwrap().remove(what);
    }

    /// A panic in a task of the rig would end that task alone: what is wrong is kept instead.
    pub(crate) fn is_wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}
