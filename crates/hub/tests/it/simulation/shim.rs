//! A shim as the real one behaves: it outlives hubs, starts the next attempt by itself, keeps
//! facts until they are acknowledged, and ends trees when told to, not at once.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::Versions;
use contract::frame::{self, Decoder};
use contract::keeper::{Instance, InstanceKind};
use contract::shim::{Attempt, Exit, Fact, FromShim, Running, ToShim};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::agent::{self, Exits};
use super::world::{Random, World};
use crate::home::{exited, killed};

/// One instance, in the test's hands.
pub(crate) struct SimShim {
    pub(crate) instance: Instance,
    inputs: mpsc::UnboundedSender<Input>,
}

enum Input {
    Connected(OwnedWriteHalf),
    Hub(ToShim),
    Ended {
        task: String,
        attempt: u32,
        exit: Exit,
    },
    Kill,
    CutLink,
}

#[derive(Default)]
struct Task {
    waiting: VecDeque<Attempt>,
    running: Option<(u32, AbortHandle)>,
    ended_by_hub: bool,
}

struct Shim {
    world: Arc<World>,
    name: String,
    random: Random,
    inputs: mpsc::UnboundedSender<Input>,
    link: Option<OwnedWriteHalf>,
    tasks: HashMap<String, Task>,
    started: HashMap<String, u32>,
    spool: VecDeque<(u64, Fact)>,
    records: u64,
}

impl SimShim {
    pub(crate) fn start(world: &Arc<World>, state: &Path, index: u32, seed: u64) -> Self {
        let name = format!("helper-{index}");
        let socket = state.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let (inputs, queue) = mpsc::unbounded_channel();
        tokio::spawn(accept(listener, inputs.clone()));
        let shim = Shim {
            world: Arc::clone(world),
            name: name.clone(),
            random: Random::seeded(seed),
            inputs: inputs.clone(),
            link: None,
            tasks: HashMap::new(),
            started: HashMap::new(),
            spool: VecDeque::new(),
            records: 0,
        };
        tokio::spawn(shim.live(queue));
        let instance = Instance {
            name,
            owner: "helper".into(),
            kind: InstanceKind::Exec,
            index,
            socket: socket.to_str().unwrap().into(),
            shim_pid: index + 1,
            gateway_port: 0,
            isolation: "none".into(),
            service_port: None,
        };
        Self { instance, inputs }
    }

    /// Kills an agent of this instance, if one runs.
    pub(crate) fn kill(&self) {
        let _ = self.inputs.send(Input::Kill);
    }

    pub(crate) fn cut_link(&self) {
        let _ = self.inputs.send(Input::CutLink);
    }
}

async fn accept(listener: UnixListener, inputs: mpsc::UnboundedSender<Input>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(hear(stream, inputs.clone()));
    }
}

async fn hear(stream: UnixStream, inputs: mpsc::UnboundedSender<Input>) {
    let (mut reader, writer) = stream.into_split();
    let _ = inputs.send(Input::Connected(writer));
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
                Input::Connected(writer) => self.link = Some(writer),
                Input::CutLink => self.link = None,
                Input::Hub(message) => self.obey(message).await,
                Input::Ended {
                    task,
                    attempt,
                    exit,
                } => self.ended(&task, attempt, exit).await,
                Input::Kill => self.kill(),
            }
        }
    }

    async fn obey(&mut self, message: ToShim) {
        match message {
            ToShim::Hello { .. } => self.greet().await,
            ToShim::Acknowledge { record } => self.spool.retain(|(known, _)| *known != record),
            ToShim::Assign { task, attempts, .. } => {
                self.tasks.entry(task.clone()).or_default();
                self.queue(&task, attempts);
                if self.tasks[&task].running.is_none() {
                    self.start_next(&task).await;
                }
            }
            ToShim::Prepare { task, attempt } if self.tasks.contains_key(&task) => {
                self.queue(&task, vec![attempt]);
            }
            ToShim::EndTask { task, .. } => self.end(&task),
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
                .write_all(&frame::encode(message).unwrap())
                .await
                .is_err()
        {
            self.link = None;
        }
    }

    async fn tell(&mut self, record: u64, fact: Fact) {
        let message = FromShim::Record {
            record,
            at_ms: record,
            fact,
        };
        self.send(&message).await;
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
        let next = self
            .tasks
            .get_mut(task)
            .and_then(|state| state.waiting.pop_front());
        let Some(attempt) = next else {
            self.tasks.remove(task);
            return;
        };
        let stdin: serde_json::Value = serde_json::from_str(&attempt.stdin).unwrap();
        let input = stdin["input"].as_str().unwrap().to_owned();
        let process = agent::run(
            Arc::clone(&self.world),
            task.to_owned(),
            attempt.token,
            input,
        );
        let (inputs, id, number) = (self.inputs.clone(), task.to_owned(), attempt.number);
        let process = tokio::spawn(async move {
            let exit = match process.await {
                Ok(said) => exited(0, &said),
                Err(Exits) => exited(1, ""),
            };
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
        if state
            .running
            .as_ref()
            .is_none_or(|(known, _)| *known != attempt)
        {
            return;
        }
        state.running = None;
        exit.asked |= state.ended_by_hub;
        let goes_on = exit.code != Some(0) && !exit.asked && !state.waiting.is_empty();
        let fact = Fact::AttemptEnded {
            task: task.to_owned(),
            attempt,
            exit,
            will_restart: goes_on,
            delay_ms: 0,
        };
        self.record(fact).await;
        if goes_on {
            self.start_next(task).await;
        } else {
            self.tasks.remove(task);
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
        let (process, ms) = (process.clone(), self.random.below(30));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
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
        let (task, attempt, process) = running[self.random.pick(running.len())].clone();
        process.abort();
        let exit = killed();
        let _ = self.inputs.send(Input::Ended {
            task,
            attempt,
            exit,
        });
    }
}
