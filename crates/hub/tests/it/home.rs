//! A home in the test's hands: it lists one instance, plays its shim, and can end the hub.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::{Agent, Fleet, Mask, OnDivergence, Runtime, TaskBudget};
use bytes::Bytes;
use contract::Versions;
use contract::frame::{self, Decoder};
use contract::keeper::{Instance, InstanceKind, ToHub, ToKeeper};
use contract::shim::{Attempt, Exit, Fact, FromShim, Running, ToShim};
use hub::caller::Caller;
use hub::ground::{Ground, Machine};
use hub::home::{HomeEvent, HomeLink};
use hub::step::{Effect, Request, Reserve, Settled, StepAsk, StepKind, StepRun, StepTurn};
use hub::task::SubmitTask;
use hub::view::TaskView;
use hub::{Hub, HubError, Options};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// A hub, its home and its one instance `helper-0`.
pub(crate) struct Home {
    pub(crate) hub: Hub,
    events: mpsc::Sender<HomeEvent>,
    commands: mpsc::UnboundedReceiver<ToKeeper>,
    running: JoinHandle<Result<(), HubError>>,
    pub(crate) shim: Shim,
    records: u64,
}

/// The test's end of the hub's link to the shim.
pub(crate) struct Shim {
    stream: UnixStream,
    decoder: Decoder,
}

/// A fleet of one agent, changed by the test.
pub(crate) fn fleet(change: impl FnOnce(&mut Agent)) -> Fleet {
    let mut agent = Agent {
        name: "helper".into(),
        labels: Default::default(),
        models: Vec::new(),
        model_facts: Default::default(),
        instructions: String::new(),
        prompt: None,
        tools: Vec::new(),
        runtime: Runtime::Exec {
            command: vec!["true".into()],
        },
        source: None,
        env: Default::default(),
        secret_env: Default::default(),
        replicas: 1,
        concurrency: 1,
        queue_max: 3,
        volume: None,
        max_attempts: 10,
        grace_ms: 1000,
        on_divergence: OnDivergence::Ask,
        mask: [Mask::Now].into(),
        budget: TaskBudget::default(),
    };
    change(&mut agent);
    let mut fleet = Fleet::empty("default");
    fleet.agents.insert("helper".into(), agent);
    fleet
}

impl Home {
    /// Starts a hub on the state, proposes the fleet as generation 1 and plays the shim.
    pub(crate) async fn start(state: &Path, fleet: &Fleet, running: Vec<Running>) -> Self {
        Self::start_on(Arc::new(Machine), state, fleet, running).await
    }

    /// The same on another ground than the machine.
    pub(crate) async fn start_on(
        ground: Arc<dyn Ground>,
        state: &Path,
        fleet: &Fleet,
        running: Vec<Running>,
    ) -> Self {
        write_fleet(state, 1, fleet);
        let socket = state.join("helper-0.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let (events, events_rx) = mpsc::channel(16);
        let (commands, mut commands_rx) = mpsc::unbounded_channel();
        let home = HomeLink {
            events: events_rx,
            commands,
        };
        let options = Options {
            home,
            pid: std::process::id(),
            state_key: [7; 32],
            state_dir: state.to_owned(),
            workspace: "default".into(),
        };
        let (hub, service) = Hub::start_on(ground, options).await.unwrap();
        let instance = Instance {
            name: "helper-0".into(),
            owner: "helper".into(),
            kind: match fleet.agents["helper"].runtime {
                Runtime::Service { .. } => InstanceKind::Service,
                _ => InstanceKind::Exec,
            },
            index: 0,
            socket: socket.to_str().unwrap().into(),
            shim_pid: 0,
            gateway_port: 0,
            isolation: "none".into(),
            service_port: None,
        };
        let proposed = ToHub::GenerationProposed {
            number: 1,
            hash: "hash".into(),
        };
        events.send(HomeEvent::Message(proposed)).await.unwrap();
        events
            .send(HomeEvent::Message(ToHub::Instances {
                instances: vec![instance],
            }))
            .await
            .unwrap();
        let committed = async {
            while let Some(message) = commands_rx.recv().await {
                if message == (ToKeeper::GenerationCommitted { number: 1 }) {
                    return;
                }
            }
        };
        tokio::time::timeout(WAIT, committed).await.unwrap();
        let (stream, _) = tokio::time::timeout(WAIT, listener.accept())
            .await
            .unwrap()
            .unwrap();
        let mut shim = Shim {
            stream,
            decoder: Decoder::default(),
        };
        assert!(matches!(shim.receive().await, ToShim::Hello { .. }));
        let hello = FromShim::Hello {
            versions: Versions::OURS,
            instance: "helper-0".into(),
            pid: 1,
            running,
            service: None,
        };
        shim.send(&hello).await;
        Self {
            hub,
            events,
            commands: commands_rx,
            running: service,
            shim,
            records: 0,
        }
    }

    /// Proposes a fleet as the next generation; the problems if the hub refuses it.
    pub(crate) async fn propose(&mut self, number: u64, fleet: &Fleet) -> Result<(), Vec<String>> {
        write_fleet(&self.hub.state_dir(), number, fleet);
        let proposed = ToHub::GenerationProposed {
            number,
            hash: format!("hash {number}"),
        };
        self.events
            .send(HomeEvent::Message(proposed))
            .await
            .unwrap();
        let answer = async {
            loop {
                match self.commands.recv().await.unwrap() {
                    ToKeeper::GenerationCommitted { number: known } if known == number => {
                        return Ok(());
                    }
                    ToKeeper::GenerationRefused {
                        number: known,
                        problems,
                    } if known == number => return Err(problems),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(WAIT, answer).await.unwrap()
    }

    /// Ends the hub as a dying keeper does: no drain.
    pub(crate) async fn end(self) {
        drop(self.shim);
        self.events.send(HomeEvent::Gone).await.unwrap();
        tokio::time::timeout(WAIT, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn submit(&self, input: &str) -> TaskView {
        self.hub.task_submit(work(input)).await.unwrap()
    }

    /// A fact, acknowledged.
    pub(crate) async fn fact(&mut self, fact: Fact) {
        self.records += 1;
        let record = self.records;
        self.shim
            .send(&FromShim::Record {
                record,
                at_ms: record,
                fact,
            })
            .await;
        self.shim.until(|message| matches!(message, ToShim::Acknowledge { record: known } if *known == record)).await;
    }

    /// The process ends.
    pub(crate) async fn ended(&mut self, task: &str, attempt: u32, exit: Exit, will_restart: bool) {
        let fact = Fact::AttemptEnded {
            task: task.into(),
            attempt,
            exit,
            will_restart,
            delay_ms: 0,
        };
        self.fact(fact).await;
    }

    /// One model or tool call from begin to end; returns the answer's text and whether it was replayed.
    pub(crate) async fn call(&self, caller: &Caller, ask: StepAsk, answer: &str) -> (String, bool) {
        match self.hub.step_begin(caller, ask).await.unwrap() {
            StepTurn::Run(run, stream) => {
                finish(run, answer).await;
                read(stream).await
            }
            StepTurn::Answer(stream) => read(stream).await,
            StepTurn::Local { .. } => panic!("not a local step"),
        }
    }
}

/// Writes a generation as the keeper does.
pub(crate) fn write_fleet(state: &Path, number: u64, fleet: &Fleet) {
    let dir = state.join(format!("generations/{number:03}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("fleet.json"), serde_json::to_vec(fleet).unwrap()).unwrap();
}

/// Performs a live call.
pub(crate) async fn finish(mut run: StepRun, answer: &str) {
    run.head(200, "application/json");
    run.push(Bytes::from(answer.to_owned()), true, None)
        .unwrap();
    run.finish(Settled::default()).await;
}

/// Reads an answer to its end and says that it arrived.
pub(crate) async fn read(mut stream: hub::answer::AnswerStream) -> (String, bool) {
    let head = stream.head().await.unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    stream.delivered();
    (String::from_utf8(text).unwrap(), head.replayed)
}

pub(crate) fn work(input: &str) -> SubmitTask {
    SubmitTask {
        agent: "helper".into(),
        input: json!(input),
        author: "test".into(),
        ..Default::default()
    }
}

pub(crate) fn model(body: &str) -> StepAsk {
    ask(StepKind::Model, "gpt", body, Effect::Pure)
}

pub(crate) fn tool(arguments: &str, effect: Effect) -> StepAsk {
    ask(StepKind::Tool, "refund", arguments, effect)
}

fn ask(kind: StepKind, name: &str, body: &str, effect: Effect) -> StepAsk {
    StepAsk {
        kind,
        name: name.into(),
        canonical: body.as_bytes().to_vec(),
        masked: None,
        effect,
        retry: false,
        marks: Vec::new(),
        request: Request {
            envelope: b"{}".to_vec(),
            messages: vec![body.as_bytes().to_vec()],
        },
        reserve: Reserve::default(),
    }
}

pub(crate) fn exited(code: i32, stdout: &str) -> Exit {
    Exit {
        code: Some(code),
        signal: None,
        oom: false,
        asked: false,
        spawn_error: None,
        stdout: stdout.into(),
        stdout_truncated: false,
        stderr_tail: if code == 0 {
            String::new()
        } else {
            "it broke".into()
        },
    }
}

pub(crate) fn killed() -> Exit {
    Exit {
        code: None,
        signal: Some(9),
        ..exited(0, "")
    }
}

impl Shim {
    pub(crate) async fn send(&mut self, message: &FromShim) {
        self.stream
            .write_all(&frame::encode(message).unwrap())
            .await
            .unwrap();
    }

    pub(crate) async fn receive(&mut self) -> ToShim {
        let next = async {
            loop {
                if let Some(message) = self.decoder.next().unwrap() {
                    return message;
                }
                let mut bytes = vec![0; 65536];
                let read = self.stream.read(&mut bytes).await.unwrap();
                assert!(read > 0, "the hub closed the link");
                self.decoder.push(&bytes[..read]);
            }
        };
        tokio::time::timeout(WAIT, next).await.unwrap()
    }

    /// Receives until a message is of the kind looked for.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&ToShim) -> bool) -> ToShim {
        loop {
            let message = self.receive().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    /// The next task given to this instance: its id and attempts.
    pub(crate) async fn assigned(&mut self) -> (String, Vec<Attempt>) {
        match self
            .until(|message| matches!(message, ToShim::Assign { .. }))
            .await
        {
            ToShim::Assign { task, attempts, .. } => (task, attempts),
            _ => unreachable!("until looked for it"),
        }
    }
}
