//! The keeper's and a shim's side of one hub, played by a test: a fleet of one agent, its instance
//! `helper-0`, and the test's end of the link to it.
//!
//! The one module that links rooms (`api` and `contract`), and so behind a feature of its own: the
//! tests of rooms that start a hub in their own process share it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::fleet::{Agent, Fleet, Mask, OnDivergence, Runtime, TaskBudget};
use contract::Versions;
use contract::frame::{self, Decoder};
use contract::keeper::{Instance, InstanceKind};
use contract::shim::{Attempt, Exit, Fact, FromShim, Running, ServiceState, ToShim};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// In which everything must have happened.
pub const WAIT: Duration = Duration::from_secs(20);

/// A fleet of one agent `helper`, changed by the test.
pub fn fleet(change: impl FnOnce(&mut Agent)) -> Fleet {
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
        image: None,
        env: Default::default(),
        secret_env: Default::default(),
        replicas: 1,
        scale: None,
        concurrency: 1,
        queue_max: 3,
        volume: None,
        resources: Default::default(),
        placement: Default::default(),
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

/// Writes a generation as the keeper does.
pub fn write_fleet(state: &Path, number: u64, fleet: &Fleet) {
    let dir = state.join(format!("generations/{number:03}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("fleet.json"), serde_json::to_vec(fleet).unwrap()).unwrap();
}

/// An instance as the keeper lists it, `OWNER-INDEX`, whose shim listens below this directory.
pub fn instance(state: &Path, owner: &str, index: u32, kind: InstanceKind) -> Instance {
    let name = format!("{owner}-{index}");
    let socket = state.join(format!("{name}.sock"));
    Instance {
        socket: socket.to_str().unwrap().into(),
        name,
        owner: owner.into(),
        kind,
        index,
        shim_pid: 0,
        gateway_port: 0,
        isolation: "none".into(),
        service_port: None,
    }
}

/// An end of a process with this code.
pub fn exited(code: i32, stdout: &str) -> Exit {
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

/// An end by SIGKILL.
pub fn killed() -> Exit {
    Exit {
        code: None,
        signal: Some(9),
        ..exited(0, "")
    }
}

/// A shim that listens, and that no hub has called yet.
pub struct Listening {
    listener: UnixListener,
    instance: String,
}

/// The test's end of a hub's link to a shim.
pub struct Shim {
    stream: UnixStream,
    decoder: Decoder,
    records: u64,
}

impl Listening {
    /// Listens where the keeper's list says.
    pub fn of(instance: &Instance) -> Self {
        let socket = PathBuf::from(&instance.socket);
        let _from_before = std::fs::remove_file(&socket);
        Self {
            listener: UnixListener::bind(socket).unwrap(),
            instance: instance.name.clone(),
        }
    }

    /// Takes the hub's call, and says what runs.
    pub async fn greet(&self, running: Vec<Running>, service: Option<ServiceState>) -> Shim {
        let accepted = tokio::time::timeout(WAIT, self.listener.accept()).await;
        let mut shim = Shim {
            stream: accepted.unwrap().unwrap().0,
            decoder: Decoder::default(),
            records: 0,
        };
        assert!(matches!(shim.receive().await, ToShim::Hello { .. }));
        let hello = FromShim::Hello {
            versions: Versions::OURS,
            instance: self.instance.clone(),
            pid: 1,
            running,
            service,
        };
        shim.send(&hello).await;
        shim
    }
}

impl Shim {
    pub async fn send(&mut self, message: &FromShim) {
        let bytes = frame::encode(message).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub async fn receive(&mut self) -> ToShim {
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
    pub async fn until(&mut self, wanted: impl Fn(&ToShim) -> bool) -> ToShim {
        loop {
            let message = self.receive().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    /// The next task given to this instance: its id and attempts.
    pub async fn assigned(&mut self) -> (String, Vec<Attempt>) {
        let assign = |message: &ToShim| matches!(message, ToShim::Assign { .. });
        match self.until(assign).await {
            ToShim::Assign { task, attempts, .. } => (task, attempts),
            _ => unreachable!("until looked for it"),
        }
    }

    /// A fact, acknowledged.
    pub async fn fact(&mut self, fact: Fact) {
        self.records += 1;
        let record = self.records;
        let message = FromShim::Record {
            record,
            at_ms: record,
            fact,
        };
        self.send(&message).await;
        let acknowledged = |message: &ToShim| matches!(message, ToShim::Acknowledge { record: known } if *known == record);
        self.until(acknowledged).await;
    }

    /// The process of an attempt has ended.
    pub async fn ended(&mut self, task: &str, attempt: u32, exit: Exit, will_restart: bool) {
        let fact = Fact::AttemptEnded {
            task: task.into(),
            attempt,
            exit,
            will_restart,
            delay_ms: 0,
        };
        self.fact(fact).await;
    }
}
