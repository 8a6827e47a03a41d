//! What everything on Kubernetes shares: the group, labels, what objects are called, and how a
//! custom resource is read as the manifest that it is.
//!
//! Only words and rules for making names. Objects are built by `operator`; custom resource
//! definitions are in `crd`.

mod alone;
mod document;
mod identity;
mod lenient;
mod shallow;
mod source;
mod template;

pub use alone::alone;
pub use document::document;
pub use identity::{
    AS_GROUP, AS_USER, CLIENTS, LONGEST_S, TASKS, client_audiences, client_of, hub_audience,
};
pub use lenient::{Lenient, Refused, resolve_lenient};
pub use shallow::shallow;
pub use source::{NODE_IMAGE, PYTHON_IMAGE, SOURCE, default_image, sent_source, source_annotation};
pub use template::{agent_template, tool_template};

use crate::manifest::Kind;

/// The API group.
pub const GROUP: &str = "mainstay.dev";
/// The version served and stored.
pub const VERSION: &str = "v1alpha1";

/// Who manages an object: `mainstay`.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// What an object or pod is part of: `hub`, `agent` or `tool`.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// On namespaces: the workspace that owns or adopts it. On a namespace that exists, it is the leave
/// to adopt it.
pub const WORKSPACE_LABEL: &str = "mainstay.dev/workspace";
/// On pods and what is made for them: the agent.
pub const AGENT_LABEL: &str = "mainstay.dev/agent";
/// On pods of a stdio MCP server: its short id (`tool_id`).
pub const TOOL_LABEL: &str = "mainstay.dev/tool";

/// The condition of an Agent that is `False` while it lacks a credential: the hub's to say, and the
/// operator's to repeat.
pub const CREDENTIALS_VALID: &str = "CredentialsValid";

/// The hub's StatefulSet or Deployment, Service, ServiceAccount and Secret.
pub const HUB: &str = "mainstay-hub";
/// The ConfigMap with the certificate that pods check the hub's against, key `ca.crt`.
pub const HUB_CA: &str = "mainstay-hub-ca";
/// The Secret with the certificate that KEDA shows a hub, and the TriggerAuthentication that names
/// it.
pub const HUB_KEDA: &str = "mainstay-keda";
/// Where a hub answers KEDA.
pub const KEDA_PORT: u16 = 7444;

/// A kind's word in paths and rights.
pub fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Provider => "providers",
        Kind::PromptPack => "promptpacks",
        Kind::ToolRegistry => "toolregistries",
        Kind::Agent => "agents",
        Kind::Workspace => "workspaces",
    }
}

/// The ServiceAccount of an agent's pods. Its name is what the hub learns from a token.
pub fn agent_account(agent: &str) -> String {
    format!("mainstay-agent-{agent}")
}

/// A short id of a tool for labels and names, which a tool's own name may not fit: twelve hex digits.
pub fn tool_id(tool: &str) -> String {
    let mut id = crate::canonical::hash(&serde_json::Value::from(tool));
    id.truncate(12);
    id
}

/// The ServiceAccount of a stdio MCP server's pods; `tool` is `registry/tool`.
pub fn tool_account(tool: &str) -> String {
    format!("mainstay-tool-{}", tool_id(tool))
}

/// Whose pods have this ServiceAccount: one of these agents, or of these tools (`registry/tool`).
pub fn account_owner<'a>(
    account: &str,
    agents: impl IntoIterator<Item = &'a str>,
    tools: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    agents
        .into_iter()
        .find(|agent| agent_account(agent) == account)
        .or_else(|| tools.into_iter().find(|tool| tool_account(tool) == account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_names_its_owner() {
        let owner = |account: &str| account_owner(account, ["a-b"], ["desk/Read_File"]);
        assert_eq!(owner(&agent_account("a-b")), Some("a-b"));
        assert_eq!(
            owner(&tool_account("desk/Read_File")),
            Some("desk/Read_File")
        );
        assert_eq!(owner("default"), None);
    }
}
