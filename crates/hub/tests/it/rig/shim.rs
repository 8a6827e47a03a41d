//! A shim as the real one behaves: it outlives hubs, starts the next attempt by itself after the
//! pause that `core::restart` says, keeps facts until they are acknowledged, and ends trees when
//! told to, not at once.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::Versions;
use contract::frame::{self, Decoder};
use contract::keeper::{Instance, InstanceKind};
use contract::shim::{Attempt, Exit, Fact, FromShim, Running, ToShim};
use mainstay_core::restart::{self, Backoff, Evidence, Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::agent;
use super::ground::Outside;
use super::world::World;
use crate::home::{instance, killed};

/// One instance, in the test's hands.
pub(crate) struct SimShim {
    pub(crate) instance: Instance,
    inputs: mpsc::UnboundedSender<Input>,
}

enum Input {
    Connected(Link),
    Hub(ToShim),
    Ended {
        task: String,
        attempt: u32,
        exit: Exit,
    },
    Due(String),
    Kill,
    /// The link breaks, and the way stays closed so long.
    CutLink(Duration),
    Open,
}

/// A way to a hub, closed when it is dropped.
struct Link {
    writer: WriteHalf<DuplexStream>,
    hears: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.hears.abort();
    }
}

#[derive(Default)]
struct Task {
    waiting: VecDeque<Attempt>,
    running: Option<(u32, AbortHandle)>,
    ended_by_hub: bool,
    backoff: Backoff,
}

struct Shim {
    world: Arc<World>,
    outside: Arc<Outside>,
    name: String,
    inputs: mpsc::UnboundedSender<Input>,
    link: Option<Link>,
    is_closed: bool,
    tasks: BTreeMap<String, Task>,
    started: BTreeMap<String, u32>,
    spool: VecDeque<(u64, Fact)>,
    records: u64,
}

impl SimShim {
    /// The instance of that index of an agent.
    pub(crate) fn start(
        world: &Arc<World>,
        outside: &Arc<Outside>,
        state: &Path,
        owner: &str,
        index: u32,
    ) -> Self {
        let instance = Instance {
            shim_pid: index + 1,
            ..instance(state, owner, index, InstanceKind::Exec)
        };
        let calls = outside.open_door(Path::new(&instance.socket));
        let (inputs, queue) = mpsc::unbounded_channel();
        tokio::spawn(accept(calls, inputs.clone()));
        let shim = Shim {
            world: Arc::clone(world),
            outside: Arc::clone(outside),
            name: instance.name.clone(),
            inputs: inputs.clone(),
            link: None,
            is_closed: false,
            tasks: BTreeMap::new(),
            started: BTreeMap::new(),
            spool: VecDeque::new(),
            records: 0,
        };
        tokio::spawn(shim.live(queue));
        Self { instance, inputs }
    }

    /// Kills an agent of this instance, if one runs.
    pub(crate) fn kill(&self) {
        let _ = self.inputs.send(Input::Kill);
    }

    pub(crate) fn cut_link(&self, closed_for: Duration) {
        let _ = self.inputs.send(Input::CutLink(closed_for));
    }
}

async fn accept(
    mut calls: mpsc::UnboundedReceiver<DuplexStream>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    while let Some(stream) = calls.recv().await {
        let (reader, writer) = tokio::io::split(stream);
        let hears = tokio::spawn(hear(reader, inputs.clone())).abort_handle();
        let _ = inputs.send(Input::Connected(Link { writer, hears }));
    }
}

async fn hear(mut reader: ReadHalf<DuplexStream>, inputs: mpsc::UnboundedSender<Input>) {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; 65536];
    while let Ok(read) = reader.read(&mut bytes).await
        && read > 0
    {
        decoder.push(&bytes[..read]);
        while let Ok(Some(message)) = decoder.next::<ToShim>() {
            let _ = inputs.send(Input::Hub(message));
        }
    }
}

impl Shim {
    async fn live(mut self, mut queue: mpsc::UnboundedReceiver<Input>) {
        while let Some(input) = queue.recv().await {
            match input {
                // A way that is closed drops who comes.
                Input::Connected(link) => self.link = (!self.is_closed).then_some(link),
                Input::CutLink(closed_for) => self.close_for(closed_for),
                Input::Open => self.is_closed = false,
                Input::Hub(message) => self.obey(message).await,
                Input::Ended {
                    task,
                    attempt,
                    exit,
                } => self.ended(&task, attempt, exit).await,
                Input::Due(task) => self.start_next(&task).await,
                Input::Kill => self.kill(),
            }
        }
    }

    fn later(&self, after: Duration, input: Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = inputs.send(input);
        });
    }

    fn close_for(&mut self, closed_for: Duration) {
        self.link = None;
        self.is_closed = true;
        self.later(closed_for, Input::Open);
    }

    async fn obey(&mut self, message: ToShim) {
        if self.link.is_none() {
            return;
        }
        match message {
            ToShim::Hello { .. } => self.greet().await,
            ToShim::Acknowledge { record } => self.spool.retain(|(known, _)| *known != record),
            ToShim::Assign { task, attempts, .. } => {
                let state = self.tasks.entry(task.clone()).or_default();
                let is_idle = state.running.is_none() && state.waiting.is_empty();
                self.queue(&task, attempts);
                if is_idle {
                    self.start_next(&task).await;
                }
            }
            ToShim::Prepare { task, attempt } if self.tasks.contains_key(&task) => {
                self.queue(&task, vec![attempt]);
            }
            ToShim::EndTask { task, .. } => self.end(&task),
            ToShim::Marks {
                productive: true, ..
            } => self
                .tasks
                .values_mut()
                .for_each(|task| task.backoff = Backoff::default()),
            _ => {}
        }
    }

    async fn greet(&mut self) {
        let running = self.tasks.iter().filter_map(|(task, state)| {
            let (attempt, _) = state.running.as_ref()?;
            Some(Running {
                task: task.clone(),
                attempt: *attempt,
                pid: 1,
            })
        });
        let hello = FromShim::Hello {
            versions: Versions::OURS,
            instance: self.name.clone(),
            pid: 1,
            running: running.collect(),
            service: None,
        };
        self.send(&hello).await;
        for (record, fact) in self.spool.clone() {
            self.tell(record, fact).await;
        }
    }

    async fn send(&mut self, message: &FromShim) {
        if let Some(link) = &mut self.link
            && link
                .writer
                .write_all(&frame::encode(message).unwrap())
                .await
                .is_err()
        {
            self.link = None;
        }
    }

    async fn tell(&mut self, record: u64, fact: Fact) {
        let at_ms = u64::try_from(self.outside.now_ms()).unwrap();
        let message = FromShim::Record {
            record,
            at_ms,
            fact,
        };
        for _ in 0..=u32::from(self.world.is_double) {
            self.send(&message).await;
        }
    }

    async fn record(&mut self, fact: Fact) {
        self.records += 1;
        self.spool.push_back((self.records, fact.clone()));
        self.tell(self.records, fact).await;
    }

    fn queue(&mut self, task: &str, attempts: Vec<Attempt>) {
        let started = self.started.get(task).copied().unwrap_or(0);
        let state = self.tasks.get_mut(task).unwrap();
        for attempt in attempts {
            let newest = state.waiting.back().map_or(started, |last| last.number);
            if attempt.number > newest.max(started) {
                state.waiting.push_back(attempt);
            }
        }
    }

    async fn start_next(&mut self, task: &str) {
        let Some(state) = self.tasks.get_mut(task) else {
            return;
        };
        if state.running.is_some() {
            return;
        }
        let Some(attempt) = state.waiting.pop_front() else {
            self.tasks.remove(task);
            return;
        };
        let stdin: serde_json::Value = serde_json::from_str(&attempt.stdin).unwrap();
        let input = stdin["input"].as_str().unwrap().to_owned();
        let (world, id) = (Arc::clone(&self.world), task.to_owned());
        let process = agent::run(world, id.clone(), attempt.token, input);
        let (inputs, number) = (self.inputs.clone(), attempt.number);
        let process = tokio::spawn(async move {
            let exit = process.await;
            let _ = inputs.send(Input::Ended {
                task: id,
                attempt: number,
                exit,
            });
        });
        self.started.insert(task.to_owned(), number);
        self.tasks.get_mut(task).unwrap().running = Some((number, process.abort_handle()));
        let fact = Fact::AttemptStarted {
            task: task.to_owned(),
            attempt: number,
            pid: 1,
        };
        self.record(fact).await;
    }

    async fn ended(&mut self, task: &str, attempt: u32, mut exit: Exit) {
        let Some(state) = self.tasks.get_mut(task) else {
            return;
        };
        let is_running = state.running.as_ref();
        if is_running.is_none_or(|(known, _)| *known != attempt) {
            return;
        }
        state.running = None;
        exit.asked |= state.ended_by_hub;
        let evidence = Evidence {
            code: exit.code,
            signal: exit.signal,
            asked: exit.asked,
            ready: true,
            ..Evidence::default()
        };
        let decision = restart::decide(Kind::Attempt, &evidence, state.backoff, true);
        state.backoff = decision.backoff;
        let goes_on = decision.restart && !state.waiting.is_empty();
        let fact = Fact::AttemptEnded {
            task: task.to_owned(),
            attempt,
            exit,
            will_restart: goes_on,
            delay_ms: decision.delay_ms,
        };
        self.record(fact).await;
        if !goes_on {
            self.tasks.remove(task);
        } else if decision.delay_ms == 0 {
            self.start_next(task).await;
        } else {
            let pause = Duration::from_millis(decision.delay_ms);
            self.later(pause, Input::Due(task.to_owned()));
        }
    }

    /// TERM; the process takes its time.
    fn end(&mut self, task: &str) {
        let Some(state) = self.tasks.get_mut(task) else {
            return;
        };
        state.waiting.clear();
        state.ended_by_hub = true;
        let Some((attempt, process)) = &state.running else {
            self.tasks.remove(task);
            return;
        };
        let (inputs, task, attempt) = (self.inputs.clone(), task.to_owned(), *attempt);
        let (process, world) = (process.clone(), Arc::clone(&self.world));
        tokio::spawn(async move {
            world.dawdle(30).await;
            process.abort();
            let exit = killed();
            let _ = inputs.send(Input::Ended {
                task,
                attempt,
                exit,
            });
        });
    }

    fn kill(&mut self) {
        let running: Vec<(String, u32, AbortHandle)> = self
            .tasks
            .iter()
            .filter_map(|(task, state)| {
                let (attempt, process) = state.running.clone()?;
                Some((task.clone(), attempt, process))
            })
            .collect();
        if running.is_empty() {
            return;
        }
        let among = u64::try_from(running.len()).unwrap();
        let at = usize::try_from(self.world.below(among)).unwrap();
        let (task, attempt, process) = running[at].clone();
        process.abort();
        let exit = killed();
        let _ = self.inputs.send(Input::Ended {
            task,
            attempt,
            exit,
        });
    }
}
