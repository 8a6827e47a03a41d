//! A home in the test's hands: it lists one instance, plays its shim, and can end the hub.

use std::path::Path;
use std::sync::Arc;

use api::fleet::{Fleet, Runtime};
use bytes::Bytes;
use contract::keeper::{InstanceKind, ToHub, ToKeeper};
use contract::shim::{Exit, Fact, Running, ToShim};
use hub::caller::Caller;
use hub::ground::{Ground, Machine};
use hub::home::{HomeEvent, HomeLink};
use hub::step::{Effect, Request, Reserve, Settled, StepAsk, StepKind, StepRun, StepTurn};
use hub::task::SubmitTask;
use hub::view::TaskView;
use hub::{Hub, HubError, Options};
use serde_json::json;
use testkit::home::{Listening, Shim};
pub(crate) use testkit::home::{WAIT, exited, fleet, instance, killed, write_fleet};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A hub, its home and its one instance `helper-0`.
pub(crate) struct Home {
    pub(crate) hub: Hub,
    events: mpsc::Sender<HomeEvent>,
    commands: mpsc::UnboundedReceiver<ToKeeper>,
    running: JoinHandle<Result<(), HubError>>,
    pub(crate) shim: Shim,
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
        let kind = match fleet.agents["helper"].runtime {
            Runtime::Service { .. } => InstanceKind::Service,
            _ => InstanceKind::Exec,
        };
        let instance = instance(state, "helper", 0, kind);
        let listening = Listening::of(&instance);
        let (events, events_rx) = mpsc::channel(16);
        let (commands, mut commands_rx) = mpsc::unbounded_channel();
        let home = HomeLink {
            events: events_rx,
            commands,
        };
        let options = Options {
            home,
            pid: std::process::id(),
            state_key: state_key(state),
            state_dir: state.to_owned(),
            workspace: "default".into(),
        };
        let (hub, service) = Hub::start_on(ground, options).await.unwrap();
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
        let shim = listening.greet(running, None).await;
        Self {
            hub,
            events,
            commands: commands_rx,
            running: service,
            shim,
        }
    }

    /// The shim is told to end a task's process, and it ends.
    pub(crate) async fn ends_as_asked(&mut self, task: &str, attempt: u32) {
        self.shim
            .until(|message| matches!(message, ToShim::EndTask { task: told, .. } if told == task))
            .await;
        let exit = Exit {
            asked: true,
            ..exited(0, "")
        };
        self.ended(task, attempt, exit, false).await;
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
        self.shim.fact(fact).await;
    }

    /// The shim started the next attempt by itself.
    pub(crate) async fn started(&mut self, task: &str, attempt: u32) {
        let fact = Fact::AttemptStarted {
            task: task.to_owned(),
            attempt,
            pid: 1,
        };
        self.fact(fact).await;
    }

    /// The process ends.
    pub(crate) async fn ended(&mut self, task: &str, attempt: u32, exit: Exit, will_restart: bool) {
        self.shim.ended(task, attempt, exit, will_restart).await;
    }

    /// One model or tool call from begin to end; returns the answer's text and whether it was replayed.
    pub(crate) async fn call(&self, caller: &Caller, ask: StepAsk, answer: &str) -> (String, bool) {
        match self.hub.step_begin(caller, ask).await.unwrap() {
            StepTurn::Run(run, stream) => {
                finish(*run, answer).await;
                read(stream).await
            }
            StepTurn::Answer(stream) => read(stream).await,
            StepTurn::Local { .. } => panic!("not a local step"),
        }
    }
}

/// Another state has another key, and one state the same in each life.
fn state_key(state: &Path) -> [u8; 32] {
    let mut key = [7; 32];
    for (at, byte) in state.as_os_str().as_encoded_bytes().iter().enumerate() {
        key[at % 32] ^= byte.rotate_left(u32::try_from(at / 32).unwrap());
    }
    key
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
