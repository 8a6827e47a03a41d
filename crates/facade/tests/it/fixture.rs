//! A real hub on a temporary state, served by the facade, with a shim of our own making.
//!
//! The home is this test: it hands over listeners and one generation with two agents. The shim
//! answers a task by what its input says, so that every end of a task can be had at will.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::fleet::{Agent, Fleet, ModelRef, OnDivergence, Runtime, TaskBudget};
use contract::Versions;
use contract::frame::{self, Decoder};
use contract::keeper::{Instance, InstanceKind, ListenerPurpose, ToHub, ToKeeper};
use contract::shim::{Attempt, Exit, Fact, FromShim, ToShim};
use hub::Hub;
use hub::home::{HomeEvent, HomeLink, Listener};
use hub::step::{Effect, Reserve, Settled, StepAsk, StepKind, StepTurn};
use serde_json::Value;
use testkit::http::{Answer, Request};
use tokio::sync::mpsc;

/// What the fixture's fleet was resolved from; it is written as it is, too.
const MANIFESTS: &str = "apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: echo}
spec: {runtime: {exec: {command: [echo]}}, restart: {maxAttempts: 1}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: talker}
spec: {models: [script/demo]}
";
/// How long anything in these tests may take.
pub const SOON: Duration = Duration::from_secs(20);

/// A served hub.
pub struct Served {
    pub hub: Hub,
    pub port: u16,
    pub token: String,
    pub socket: PathBuf,
    runtime: tokio::runtime::Runtime,
    home: mpsc::Sender<HomeEvent>,
    /// Ends with the facade.
    facade: Option<tokio::task::JoinHandle<()>>,
    _commands: mpsc::UnboundedReceiver<ToKeeper>,
    state: tempfile::TempDir,
}

impl Served {
    pub fn start() -> Self {
        Self::start_with(facade::Options::default())
    }

    pub fn start_with(options: facade::Options) -> Self {
        let door = options;
        let state = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (home, events) = mpsc::channel(64);
        let (commands_tx, commands) = mpsc::unbounded_channel();
        let options = hub::Options {
            home: HomeLink {
                events,
                commands: commands_tx,
            },
            pid: std::process::id(),
            state_key: [7; 32],
            state_dir: state.path().to_owned(),
            workspace: "default".into(),
        };
        let (hub, _service) = runtime.block_on(Hub::start(options)).unwrap();
        let names = vec!["agents.example".to_owned()];
        let artifacts = hub::artifact::Artifacts::open(state.path()).unwrap();
        let options = facade::Options {
            names,
            artifacts: Some(artifacts),
            ..door
        };
        let facade = runtime.spawn(facade::serve(hub.clone(), options));
        let socket = state.path().join("control.sock");
        let mut served = Self {
            token: hub.owner_token(),
            hub,
            port: 0,
            socket,
            runtime,
            home,
            facade: Some(facade),
            _commands: commands,
            state,
        };
        served.open_listeners();
        served.run_agents();
        served
    }

    fn open_listeners(&mut self) {
        self.port = self.listen("127.0.0.1:0");
        let back = UnixListener::bind(&self.socket).unwrap();
        self.send(HomeEvent::Listener {
            purpose: ListenerPurpose::Control,
            address: self.socket.display().to_string(),
            listener: Listener::Unix(back),
        });
    }

    /// One more address of the TCP door; its port.
    pub fn listen(&self, address: &str) -> u16 {
        let listener = std::net::TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.send(HomeEvent::Listener {
            purpose: ListenerPurpose::Facade,
            address: address.to_owned(),
            listener: Listener::Tcp(listener),
        });
        port
    }

    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// From now on this process counts as a shim, and so as an instance's.
    pub fn become_an_instance(&self) {
        let mut instance = self.instance(self.state.path(), "impostor");
        instance.shim_pid = std::process::id();
        self.send(HomeEvent::Message(ToHub::Instances {
            instances: vec![instance],
        }));
        let pid = i32::try_from(std::process::id()).unwrap();
        testkit::until("the hub knows", SOON, || {
            self.hub.is_instance_process(pid).then_some(())
        });
    }

    fn run_agents(&self) {
        let mut fleet = Fleet::empty("default");
        for (name, runtime) in [
            (
                "echo",
                Runtime::Exec {
                    command: vec!["echo".into()],
                },
            ),
            ("talker", Runtime::Builtin),
        ] {
            fleet.agents.insert(name.into(), agent(name, runtime));
        }
        let root = self.state.path();
        let generation = root.join("generations/001");
        std::fs::create_dir_all(&generation).unwrap();
        std::fs::write(
            generation.join("fleet.json"),
            serde_json::to_vec(&fleet).unwrap(),
        )
        .unwrap();
        std::fs::create_dir(generation.join("manifests")).unwrap();
        std::fs::write(generation.join("manifests/000-fleet.yaml"), MANIFESTS).unwrap();
        self.send(HomeEvent::Message(ToHub::GenerationProposed {
            number: 1,
            hash: fleet.hash(),
        }));
        let instances = ["echo", "talker"].map(|name| self.instance(root, name));
        self.send(HomeEvent::Message(ToHub::Instances {
            instances: instances.to_vec(),
        }));
        testkit::until("the agents are there", SOON, || {
            self.runtime.block_on(self.hub.agent_get("talker")).ok()
        });
    }

    fn instance(&self, root: &Path, agent: &str) -> Instance {
        let name = format!("{agent}-0");
        let socket = root.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let (hub, handle, own) = (
            self.hub.clone(),
            self.runtime.handle().clone(),
            name.clone(),
        );
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (hub, handle, own) = (hub.clone(), handle.clone(), own.clone());
                std::thread::spawn(move || {
                    Shim {
                        hub,
                        handle,
                        stream,
                        record: 0,
                    }
                    .serve(&own)
                });
            }
        });
        Instance {
            name,
            owner: agent.into(),
            kind: InstanceKind::Exec,
            index: 0,
            socket: socket.display().to_string(),
            shim_pid: 1,
            gateway_port: 1,
            isolation: "none".into(),
            service_port: None,
        }
    }

    fn send(&self, event: HomeEvent) {
        self.home.blocking_send(event).unwrap();
    }

    /// A request without a token.
    pub fn anonymous(&self, method: &str, path: &str) -> Request {
        Request::new(method, self.port, path)
    }

    /// A request with the owner's token.
    pub fn request(&self, method: &str, path: &str) -> Request {
        self.anonymous(method, path)
            .header("authorization", &format!("Bearer {}", self.token))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send().unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path).json(body).send().unwrap()
    }

    /// A task's JSON once it has ended or waits.
    pub fn run(&self, agent: &str, input: &str) -> Value {
        let request = self
            .request("POST", &format!("/api/v1/agents/{agent}/tasks"))
            .header("prefer", "wait=20");
        request
            .json(&serde_json::json!({"input": input}))
            .send()
            .unwrap()
            .json()
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(SOON, future)
                .await
                .expect("took too long")
        })
    }

    /// The hub is told to stop; returns when the facade has ended.
    pub fn stop(&mut self) {
        self.send(HomeEvent::Message(ToHub::Stop));
        let facade = self.facade.take().unwrap();
        self.block_on(facade).unwrap();
    }
}

fn agent(name: &str, runtime: Runtime) -> Agent {
    Agent {
        name: name.into(),
        labels: Default::default(),
        models: vec![ModelRef {
            provider: "script".into(),
            model: "demo".into(),
        }],
        model_facts: Default::default(),
        instructions: String::new(),
        prompt: None,
        tools: Vec::new(),
        runtime,
        source: None,
        image: None,
        env: Default::default(),
        secret_env: Default::default(),
        replicas: 1,
        scale: None,
        concurrency: 1,
        queue_max: 2,
        volume: None,
        resources: Default::default(),
        placement: Default::default(),
        max_attempts: 1,
        grace_ms: 100,
        on_divergence: OnDivergence::Ask,
        mask: Default::default(),
        budget: TaskBudget::default(),
    }
}

/// One connection of the hub to an instance.
struct Shim {
    hub: Hub,
    handle: tokio::runtime::Handle,
    stream: UnixStream,
    record: u64,
}

impl Shim {
    fn serve(mut self, instance: &str) {
        let mut decoder = Decoder::default();
        let mut bytes = [0; 65_536];
        while let Ok(read @ 1..) = self.stream.read(&mut bytes) {
            decoder.push(&bytes[..read]);
            while let Some(message) = decoder.next::<ToShim>().unwrap() {
                match message {
                    ToShim::Hello { .. } => self.send(&FromShim::Hello {
                        versions: Versions::OURS,
                        instance: instance.into(),
                        pid: 1,
                        running: Vec::new(),
                        service: None,
                    }),
                    ToShim::Assign { task, attempts, .. } => self.work(&task, &attempts[0]),
                    ToShim::EndTask { task, .. } => self.end(&task, 1, exit(None, "", true)),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: &FromShim) {
        // The hub may be gone already.
        let _ = self.stream.write_all(&frame::encode(message).unwrap());
    }

    fn fact(&mut self, fact: Fact) {
        self.record += 1;
        self.send(&FromShim::Record {
            record: self.record,
            at_ms: 1_767_323_045_000 + self.record,
            fact,
        });
    }

    fn end(&mut self, task: &str, attempt: u32, exit: Exit) {
        self.fact(Fact::AttemptEnded {
            task: task.into(),
            attempt,
            exit,
            will_restart: false,
            delay_ms: 0,
        });
    }

    /// `say A B`: streams `A ` and `B` and answers `A B`. `fail`: exit 78. `hang`: nothing.
    fn work(&mut self, task: &str, attempt: &Attempt) {
        self.fact(Fact::AttemptStarted {
            task: task.into(),
            attempt: attempt.number,
            pid: 4242,
        });
        let stdin: Value = serde_json::from_str(&attempt.stdin).unwrap();
        let input = stdin["input"]
            .as_str()
            .map_or_else(|| stdin["input"].to_string(), str::to_owned);
        let exit = match input.split_once(' ') {
            Some(("say", text)) => {
                self.say(&attempt.token, text);
                exit(Some(0), text, false)
            }
            _ if input == "fail" => Exit {
                stderr_tail: "no way".into(),
                ..exit(Some(78), "", false)
            },
            _ if input == "hang" => return,
            _ if input == "history" => exit(Some(0), &stdin["history"].to_string(), false),
            _ => exit(Some(0), &input, false),
        };
        self.end(task, attempt.number, exit);
    }

    /// A model call whose text passes as it comes.
    fn say(&self, token: &str, text: &str) {
        let hub = self.hub.clone();
        self.handle.block_on(async move {
            let caller = hub.identify(token).await.unwrap();
            let ask = StepAsk {
                kind: StepKind::Model,
                name: "script/demo".into(),
                canonical: text.as_bytes().to_vec(),
                masked: None,
                effect: Effect::Pure,
                retry: false,
                marks: Vec::new(),
                request: Default::default(),
                reserve: Reserve::default(),
            };
            let StepTurn::Run(mut run, mut answer) = hub.step_begin(&caller, ask).await.unwrap()
            else {
                panic!("not live")
            };
            run.head(200, "text/plain");
            for word in text.split_inclusive(' ') {
                run.push(word.to_owned().into(), false, Some(word)).unwrap();
            }
            run.finish(Settled::default()).await;
            while answer.next().await.is_some() {}
            answer.delivered();
        });
    }
}

fn exit(code: Option<i32>, stdout: &str, asked: bool) -> Exit {
    Exit {
        code,
        signal: code.is_none().then_some(15),
        oom: false,
        asked,
        spawn_error: None,
        stdout: stdout.into(),
        stdout_truncated: false,
        stderr_tail: String::new(),
    }
}
