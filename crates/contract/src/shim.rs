//! Shim and whoever talks to it: the hub (work and evidence) and the keeper (policy, stop, specs).
//!
//! The shim listens on `run/<instance>.sock`. Each connection opens with `ToShim::Hello` naming a
//! role. A `Bridge` connection of a stdio MCP server carries raw lines after both hellos.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Versions;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    Hub,
    Keeper,
    /// Raw newline-delimited JSON-RPC to and from the stdio MCP server.
    Bridge,
}

/// To the shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ToShim {
    #[serde(rename_all = "camelCase")]
    Hello { versions: Versions, role: Role },
    /// Hub: run this task (`exec`). `attempts` holds the attempt to start and the ones that may
    /// follow without asking, in order, each with its token; the first use of a token revokes the
    /// one before. Idempotent by (task, first attempt number).
    #[serde(rename_all = "camelCase")]
    Assign {
        task: String,
        generation: u64,
        attempts: Vec<Attempt>,
        hold_restart: bool,
    },
    /// Hub: one more attempt that may follow.
    #[serde(rename_all = "camelCase")]
    Prepare { task: String, attempt: Attempt },
    /// Hub: tokens for a service's next process incarnations, in order.
    #[serde(rename_all = "camelCase")]
    ServiceTokens {
        generation: u64,
        tokens: Vec<ServiceToken>,
    },
    /// Hub: end this task's process tree and start no other attempt. TERM, `grace_ms`, KILL.
    #[serde(rename_all = "camelCase")]
    EndTask { task: String, grace_ms: u64 },
    /// Hub: restart the service's process (token shared by a revoked task, new generation).
    #[serde(rename_all = "camelCase")]
    RestartService { grace_ms: u64 },
    /// Hub: the log has this exit; its spooled record may go.
    #[serde(rename_all = "camelCase")]
    Acknowledge { record: u64 },
    /// Hub: marks for the restart policy (`core::restart`). `hold`: start nothing until it is
    /// lifted. `productive`: a step was finished live, which resets the back-off. `idle`: no task
    /// waits for a service, so its back-off may be long.
    #[serde(rename_all = "camelCase")]
    Marks {
        hold: bool,
        productive: bool,
        #[serde(default)]
        idle: bool,
    },
    /// Keeper: how to start the child under this generation. The keeper alone sends it. Generation
    /// 0 stands for every one that has no spec of its own: a pod has one content for its life.
    #[serde(rename_all = "camelCase")]
    Spec { generation: u64, spec: Box<Spec> },
    /// Keeper: forget specs of other generations than these.
    #[serde(rename_all = "camelCase")]
    KeepSpecs { generations: Vec<u64> },
    /// Keeper: end everything and exit.
    #[serde(rename_all = "camelCase")]
    Stop { grace_ms: u64 },
    /// Keeper: send back the gateway listener (one descriptor with the answer `Listener`).
    GiveListener,
}

/// One try of a task by one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    pub number: u32,
    pub token: String,
    /// Fed from a sealed memfd as standard input.
    pub stdin: String,
    /// `MAINSTAY_TASK_ID` and the like, added to the spec's environment.
    pub env: BTreeMap<String, String>,
}

/// One service incarnation's token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceToken {
    pub incarnation: u32,
    pub token: String,
    /// Values of the variables that `Spec::hub_env` allows the hub to set.
    pub env: BTreeMap<String, String>,
}

/// From the shim, to hub and keeper alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum FromShim {
    /// Answer to `Hello`: what runs now. Unacknowledged records follow as `Record`s.
    #[serde(rename_all = "camelCase")]
    Hello {
        versions: Versions,
        instance: String,
        pid: u32,
        running: Vec<Running>,
        service: Option<ServiceState>,
    },
    /// A fact, spooled on disk until acknowledged.
    #[serde(rename_all = "camelCase")]
    Record { record: u64, at_ms: u64, fact: Fact },
    /// The listener asked for by `GiveListener`; one descriptor.
    Listener,
    /// A service became ready or stopped being so (not spooled: state, not a fact).
    #[serde(rename_all = "camelCase")]
    Service { state: Option<ServiceState> },
    /// To the keeper: what the last child's start really put in force.
    #[serde(rename_all = "camelCase")]
    Enforced { user: bool, landlock: bool },
    /// To the keeper, on a spec: what its command or variables name and its user can't use, in
    /// sentences for a person.
    #[serde(rename_all = "camelCase")]
    OutOfReach { sentences: Vec<String> },
    /// To the keeper: a process could not be started, or ended by itself before it was of use.
    #[serde(rename_all = "camelCase")]
    FalseStart { reason: String },
    /// To the keeper: a process is of use. An attempt's is once it runs, a service's once it is
    /// ready, an MCP server's once it has run for ten seconds.
    OfUse,
}

/// A running attempt of an `exec` task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    pub task: String,
    pub attempt: u32,
    pub pid: u32,
}

/// A running service process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceState {
    pub incarnation: u32,
    pub pid: u32,
    pub ready: bool,
    /// The newest generation that the shim was told of; 0 from a shim that doesn't say.
    #[serde(default)]
    pub generation: u64,
    /// The newest spec would start another process than this one.
    #[serde(default)]
    pub outdated: bool,
    /// Where this process was told to listen.
    #[serde(default)]
    pub port: Option<u16>,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Fact {
    #[serde(rename_all = "camelCase")]
    AttemptStarted {
        task: String,
        attempt: u32,
        pid: u32,
    },
    /// `will_restart`: the shim starts the next prepared attempt by itself after `delay_ms`.
    #[serde(rename_all = "camelCase")]
    AttemptEnded {
        task: String,
        attempt: u32,
        exit: Exit,
        will_restart: bool,
        delay_ms: u64,
    },
    #[serde(rename_all = "camelCase")]
    ServiceStarted { incarnation: u32, pid: u32 },
    /// `recovery_ms` is the time from the exit before to this ready, when there was one.
    #[serde(rename_all = "camelCase")]
    ServiceReady {
        incarnation: u32,
        recovery_ms: Option<f64>,
    },
    #[serde(rename_all = "camelCase")]
    ServiceEnded {
        incarnation: u32,
        exit: Exit,
        delay_ms: u64,
    },
}

/// How a process ended and what it left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The kernel reported an out-of-memory kill.
    pub oom: bool,
    /// We ended it (`EndTask`, `Stop`, `RestartService`).
    pub asked: bool,
    /// The program could not be started at all; the reason.
    pub spawn_error: Option<String>,
    /// Standard output, up to `Spec::answer_max_bytes` (an `exec` attempt's answer).
    pub stdout: String,
    pub stdout_truncated: bool,
    /// The last 4 KiB of standard error.
    pub stderr_tail: String,
}

/// How to start a child. Built by the keeper from a generation; nothing of it comes from the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Absolute program or a name looked up in the child's PATH.
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Names the hub may set per attempt (`secretEnv`); all others from it but `MAINSTAY_*` are dropped.
    pub hub_env: Vec<String>,
    /// Which secret each of these is (`NAME/KEY`): another one is another process.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    pub current_dir: String,
    /// uid and gid to become when the keeper is root.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Paths the child may read (Landlock), and those it may also write.
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub home: String,
    pub tmp: String,
    pub log_dir: String,
    /// At most this much of standard output is kept as the answer (8 MiB).
    pub answer_max_bytes: u64,
    pub grace_ms: u64,
    /// The gateway's port, for the base URLs in `env` that the shim completes with the token.
    pub gateway_port: u16,
    /// For a service: where it listens, probed for readiness when it writes no ready byte.
    pub service_port: Option<u16>,
    /// Directories that the child's user must reach although one above them is closed to it.
    #[serde(default)]
    pub reach: Vec<String>,
    /// Each attempt finds `home` and `tmp` empty (an `exec` without a volume).
    #[serde(default)]
    pub fresh_scratch: bool,
}

impl Spec {
    /// Whether both start the same process. How it is ended and what is kept of its output may
    /// differ; so may the lists of paths, which say what lies where today.
    #[must_use]
    pub fn starts_the_same(&self, other: &Self) -> bool {
        let essence = |spec: &Self| Self {
            read: Vec::new(),
            write: Vec::new(),
            reach: Vec::new(),
            answer_max_bytes: 0,
            grace_ms: 0,
            ..spec.clone()
        };
        essence(self) == essence(other)
    }
}
