//! Pod and hub: what a pod on Kubernetes is told, and how its relay and the hub's pod door speak.
//!
//! The operator writes a [`Pod`] into the pod's template (variable [`POD_ENV`]). Its relay dials the
//! hub's pod door over TLS. Every connection begins with one [`FromPod`] frame; the hub answers with
//! one [`ToPod`] frame; from `Welcome` (a gateway connection, a source) or `Open` (an offered one) on, the
//! connection carries raw bytes, and only its clean end is a `close_notify`. What a pod says of
//! itself is the agent's word: the hub believes the token alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Versions;
use crate::keeper::InstanceKind;

/// The variable that holds a [`Pod`] as JSON.
pub const POD_ENV: &str = "MAINSTAY_POD";
/// The audience of the token that a pod shows.
pub const AUDIENCE: &str = "mainstay-hub";
/// The name in the hub's certificate, whatever address leads there.
pub const SERVER_NAME: &str = "mainstay-hub";
/// The hub's door for pods.
pub const POD_DOOR_PORT: u16 = 7443;
/// The clients' door in a cluster.
pub const FACADE_PORT: u16 = 7080;
/// Where a pod's relay answers the kubelet's probes: `/readyz` and `/livez`.
pub const PROBE_PORT: u16 = 7081;
/// Where the program lies in Mainstay's own image. Not below `/mainstay`, where pods mount things.
pub const IMAGE_PROGRAM: &str = "/bin/mainstay";
/// Everything of ours in a pod lies below it, and below nothing else.
pub const ROOT: &str = "/mainstay";
/// Where the program lies in a pod, copied there by the init container.
pub const PROGRAM: &str = "/mainstay/bin/mainstay";
/// What the shim writes: spool, logs, scratch. An `emptyDir`.
pub const STATE_DIR: &str = "/mainstay/state";
/// The shim's socket.
pub const SHIM_SOCKET: &str = "/mainstay/state/run/agent.sock";
/// The certificate that the hub's is checked against: a mounted file, read at each connection.
pub const CA_FILE: &str = "/mainstay/ca/ca.crt";
/// An agent's code, unpacked there before the agent starts; mounted without the right to write.
pub const SOURCE_DIR: &str = "/mainstay/source";
/// The pod-bound token: a mounted file that the kubelet renews, read at each connection.
pub const TOKEN_FILE: &str = "/mainstay/token/token";

/// One of the paths above below another root than [`ROOT`], for a pod that is none.
#[must_use]
pub fn below(root: &Path, path: &str) -> PathBuf {
    let path = Path::new(path);
    root.join(path.strip_prefix(ROOT).unwrap_or(path))
}

/// What a pod runs. Built by the operator from a validated agent; nothing of it comes from the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    pub workspace: String,
    /// The agent, or `registry/tool` for a stdio MCP server.
    pub owner: String,
    pub kind: InstanceKind,
    /// Empty for the built-in loop.
    pub command: Vec<String>,
    /// The artifact that its code is, which the hub has; [`SOURCE_DIR`] is then where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub env: BTreeMap<String, String>,
    /// The variables that the hub may set, and the secret of each (`NAME/KEY`).
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    pub grace_ms: u64,
    /// Where its volume is mounted, if it has one.
    #[serde(default)]
    pub volume: Option<String>,
    /// For a service: whether it listens, and where it wants to.
    #[serde(default)]
    pub serves: bool,
    #[serde(default)]
    pub port: Option<u16>,
    /// `ADDRESS:PORT` of the hub's pod door; an address, since a pod has no DNS.
    pub hub: String,
    /// Which content this is: the hash that the hub compares with its generations.
    pub template: String,
}

/// The first frame of every connection from a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FromPod {
    pub versions: Versions,
    pub purpose: Purpose,
    /// The projected token, of audience [`AUDIENCE`].
    pub token: String,
    pub owner: String,
    pub kind: InstanceKind,
    pub template: String,
    /// What the shim's last start put in force: `none`, or `partial: landlock`.
    pub isolation: String,
    /// For a service that listens.
    #[serde(default)]
    pub service_port: Option<u16>,
    /// How full the container's memory is, of 100; an offer says it, where there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<u8>,
    /// It was told to end and wants no more work.
    #[serde(default)]
    pub draining: bool,
    /// For [`Purpose::Source`]: the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What its relay found last.
    #[serde(default)]
    pub network: Network,
}

/// Whether the network keeps a pod from what its policies forbid, as its relay finds by trying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// It was not tried yet, or can't be told.
    #[default]
    Unknown,
    /// It does.
    Closed,
    /// It doesn't: nothing enforces policies there.
    Open,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// The hub may use it to reach the pod; until then it lies idle.
    Offer,
    /// A connection of the agent's to its gateway.
    Gateway,
    /// The agent's code: behind `Welcome` follows the packed artifact.
    Source,
}

/// From hub to pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ToPod {
    #[serde(rename_all = "camelCase")]
    Welcome { versions: Versions },
    /// Not taken; the connection ends. `retry` says whether another try can help.
    #[serde(rename_all = "camelCase")]
    Refused { reason: String, retry: bool },
    /// On an idle offer, as often as it changes: whether the pod counts as ready, and why not.
    #[serde(rename_all = "camelCase")]
    Ready { ready: bool, reason: String },
    /// On an idle offer: connect to this and pass bytes from here on.
    #[serde(rename_all = "camelCase")]
    Open { target: Target },
}

/// What the hub reaches in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Target {
    /// The shim's socket.
    Shim,
    /// A port of the agent's service on the pod's loopback.
    #[serde(rename_all = "camelCase")]
    Port { port: u16 },
}

/// From a pod's supervisor to its relay, at the relay's start and as often as it changes: what its
/// offers say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToRelay {
    pub isolation: String,
    #[serde(default)]
    pub service_port: Option<u16>,
    #[serde(default)]
    pub draining: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<u8>,
}
