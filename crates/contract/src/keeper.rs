//! Keeper and hub. The link is a socket pair that the hub inherits as descriptor 3.
//!
//! The keeper treats the hub as hostile: the hub names instances and marks, never commands,
//! paths or users. Descriptors that a message announces travel with that frame's first byte
//! (`SCM_RIGHTS`), in the order the message lists them.

use serde::{Deserialize, Serialize};

use crate::Versions;

/// From keeper to hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ToHub {
    /// First message. One descriptor: a sealed memfd with the 32-byte state key.
    #[serde(rename_all = "camelCase")]
    Hello {
        versions: Versions,
        boot_id: String,
        state_dir: String,
        isolation: String,
        /// The one workspace of this state.
        workspace: String,
    },
    /// A listening socket to serve; one descriptor. Sent for each at the start of every hub and
    /// whenever one is opened. A listener that was shut down is announced again when it is back.
    #[serde(rename_all = "camelCase")]
    Listener {
        purpose: ListenerPurpose,
        address: String,
    },
    /// A generation lies complete in `generations/NNN/`; the hub journals it and answers
    /// `GenerationCommitted`. The same content hash as the current one is not sent again.
    #[serde(rename_all = "camelCase")]
    GenerationProposed { number: u64, hash: String },
    /// The content of a file that a credential names and that the hub's user may not be able to
    /// read; one descriptor, a sealed memfd. Sent before the generation that names it, and again
    /// whenever the file changed. Only for files that `up`'s own manifests name.
    #[serde(rename_all = "camelCase")]
    CredentialFile { path: String },
    /// The whole list of instances, sent at start and after each change.
    #[serde(rename_all = "camelCase")]
    Instances { instances: Vec<Instance> },
    /// From a home whose instances are pods, before each list of them: those that get no more work.
    /// From the first one on a service is reached at its instance's `service_port` alone, for what
    /// its shim says of its port is true inside the pod only.
    #[serde(rename_all = "camelCase")]
    Pods { draining: Vec<String> },
    /// What a `ToKeeper::Apply` or `Delete` came to; `problems` are rendered for a person.
    #[serde(rename_all = "camelCase")]
    Applied {
        request: u64,
        generation: Option<u64>,
        problems: Vec<String>,
        summary: Vec<String>,
    },
    /// Finish: accept nothing new, drain, journal, release the log, exit 0.
    Stop,
}

/// From hub to keeper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ToKeeper {
    #[serde(rename_all = "camelCase")]
    Hello {
        versions: Versions,
        pid: u32,
        current_generation: Option<GenerationRef>,
    },
    /// The log is open and listeners are being accepted on.
    Ready,
    /// The switch: the log entry is durable, the keeper reconciles its instances to it.
    #[serde(rename_all = "camelCase")]
    GenerationCommitted { number: u64 },
    /// The generation is not taken: what runs stays. `problems` are sentences for a person.
    #[serde(rename_all = "camelCase")]
    GenerationRefused { number: u64, problems: Vec<String> },
    /// Generations that open tasks still pin (their code is kept and pushed to shims).
    #[serde(rename_all = "camelCase")]
    Pins { generations: Vec<u64> },
    /// What an operator stopped and is not run: `AGENT`, or `AGENT/INSTANCE`.
    #[serde(rename_all = "camelCase")]
    Stopped { agents: Vec<String> },
    /// End and start this instance's processes (class `asked`).
    #[serde(rename_all = "camelCase")]
    Restart { instance: String },
    /// Documents from `mainstay apply`; answered by `Applied`. `dry_run` is `diff`.
    #[serde(rename_all = "camelCase")]
    Apply {
        request: u64,
        documents: Vec<Document>,
        dry_run: bool,
    },
    /// Objects from `mainstay delete`, answered by `Applied`.
    #[serde(rename_all = "camelCase")]
    Delete {
        request: u64,
        objects: Vec<(String, String)>,
        dry_run: bool,
    },
}

/// One manifest file's name and text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub path: String,
    pub text: String,
}

/// A generation by number and content hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRef {
    pub number: u64,
    pub hash: String,
}

/// What a listening socket is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum ListenerPurpose {
    /// The clients' TCP door.
    Facade,
    /// The command line's Unix socket.
    Control,
    /// Monitors' own port, without a token.
    Metrics,
    /// One instance's only way out.
    Gateway { instance: String },
}

/// One instance as the keeper sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// `researcher-0`, or `desk-files-0` for the stdio server of tool `desk/files`.
    pub name: String,
    /// The agent, or `registry/tool` for a stdio MCP server.
    pub owner: String,
    pub kind: InstanceKind,
    /// Index among the owner's instances.
    pub index: u32,
    /// Path of the shim's socket.
    pub socket: String,
    pub shim_pid: u32,
    pub gateway_port: u16,
    /// What is really enforced: `none`, or `partial: landlock, uid`.
    pub isolation: String,
    /// For a service: where it listens.
    pub service_port: Option<u16>,
}

/// What kind of process an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InstanceKind {
    /// A process per task (`exec` and `builtin`).
    Exec,
    /// A long-running agent.
    Service,
    /// A stdio MCP server.
    Mcp,
}
