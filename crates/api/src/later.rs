//! Names of fields that are designed but not here yet, so that a manifest of tomorrow gets a better answer than "unknown".
//!
//! A field is struck off this list by whoever adds it. Nothing else may depend on the list.

use crate::manifest::Kind;

/// Whether a later version will know this field, written as a path without list positions.
pub(crate) fn is_later(kind: Kind, path: &str) -> bool {
    let names = match kind {
        Kind::Provider => PROVIDER,
        Kind::PromptPack => PROMPT_PACK,
        Kind::ToolRegistry => TOOL_REGISTRY,
        Kind::Agent => AGENT,
        Kind::Workspace => WORKSPACE,
    };
    let path = without_positions(path);
    names
        .iter()
        .any(|name| path.strip_prefix("spec.") == Some(name))
}

const PROVIDER: &[&str] = &["credentials", "tls", "proxy", "serve"];
const PROMPT_PACK: &[&str] = &["source"];
const TOOL_REGISTRY: &[&str] = &[
    "tools.approval",
    "tools.sandbox",
    "tools.openapi",
    "tools.grpc",
    "tools.browser",
    "tools.client",
];
const AGENT: &[&str] = &[
    "role",
    "priority",
    "mounts",
    "resources.gpu",
    "placement.pool",
    "placement.spot",
    "placement.region",
    "governor",
    "progress",
    "isolation",
    "egress",
    "runtime.a2a",
    "budget.day",
    "budget.month",
    "budget.warnAt",
    "budget.onLimit",
    "budget.degradeTo",
    "sla",
    "knowledge",
    "memory",
    "filters",
    "function",
    "rollout",
    "schedule",
    "triggers",
    "facade",
];
const WORKSPACE: &[&str] = &[
    "timeZone",
    "budget",
    "policy",
    "witnesses",
    "store.postgres",
    "knowledge",
    "channels",
    "telemetry",
];

fn without_positions(path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for character in path.chars() {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            other if !inside => plain.push(other),
            _ => {}
        }
    }
    plain
}
