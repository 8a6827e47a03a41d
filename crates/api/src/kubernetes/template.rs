//! What of an agent or a stdio MCP server is its pod's content, as a hash: the operator writes it
//! into the pod, and the hub knows by it which pods run what the present generation says.
//!
//! Whatever is here and changes replaces pods; what the hub alone reads (models, tools, budgets)
//! is not, so that changing it restarts nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fleet::Agent;

const DIGITS: usize = 16;

/// Of an agent.
pub fn agent_template(agent: &Agent) -> String {
    let volume = agent.volume.as_ref().map(|volume| &volume.path);
    short(&json!({
        "runtime": agent.runtime,
        "image": agent.image,
        "source": agent.source.as_ref().map(|source| &source.hash),
        "env": agent.env,
        "secretEnv": agent.secret_env,
        "grace": agent.grace_ms,
        "volume": volume,
    }))
}

/// Of a stdio MCP server.
pub fn tool_template(
    command: &[String],
    env: &BTreeMap<String, String>,
    image: Option<&str>,
) -> String {
    short(&json!({"command": command, "env": env, "image": image}))
}

fn short(value: &Value) -> String {
    let mut hash = crate::canonical::hash(value);
    hash.truncate(DIGITS);
    hash
}
