//! A stdio MCP server that has an image: a pod of its own, supervised like an agent's.

use std::collections::BTreeMap;

use api::fleet::Resources;
use api::kubernetes::{TOOL_LABEL, tool_account, tool_id};
use contract::keeper::InstanceKind;
use contract::pod::Pod;
use serde_json::json;

use super::REGISTRY_LABEL;
use super::pod::{PodInput, selector, template};
use crate::object::{Object, Owner, Place, Resource};

const GRACE_MS: u64 = 5_000;

/// What a server's pod depends on.
#[derive(Clone, Debug)]
pub struct ToolInput<'a> {
    pub namespace: &'a str,
    pub owner: &'a Owner,
    /// `registry/tool`.
    pub tool: &'a str,
    pub registry: &'a str,
    pub image: &'a str,
    pub command: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    /// Mainstay's own image.
    pub own_image: &'a str,
    /// `ADDRESS:PORT` of the hub's pod door.
    pub hub: &'a str,
}

/// Its account and its Deployment.
pub fn tool(input: &ToolInput<'_>) -> Vec<Object> {
    let id = tool_id(input.tool);
    let account = tool_account(input.tool);
    let labels = [(TOOL_LABEL, id.as_str()), (REGISTRY_LABEL, input.registry)];
    let place = Place {
        namespace: Some(input.namespace),
        component: "tool",
        owner: input.owner,
    };
    let pod = Pod {
        workspace: input.namespace.to_owned(),
        owner: input.tool.to_owned(),
        kind: InstanceKind::Mcp,
        command: input.command.to_vec(),
        source: None,
        env: input.env.clone(),
        secrets: BTreeMap::new(),
        grace_ms: GRACE_MS,
        volume: None,
        serves: false,
        port: None,
        hub: input.hub.to_owned(),
        template: api::kubernetes::tool_template(input.command, input.env, Some(input.image)),
    };
    let resources = Resources::default();
    let pod_input = PodInput {
        pod: &pod,
        component: "tool",
        labels: &labels,
        image: input.image,
        own_image: input.own_image,
        account: &account,
        resources: &resources,
        node_selector: &BTreeMap::new(),
        tolerations: &[],
        // A tool is what reaches the outside.
        has_dns: true,
    };
    let unmounted = json!({"automountServiceAccountToken": false});
    let deployment = json!({"spec": {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        // Two of it could do twice what one was asked for.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector(&pod_input)},
        "template": template(&pod_input),
    }});
    vec![
        place.object(Resource::ServiceAccount, &account, &labels, unmounted),
        place.object(Resource::Deployment, &account, &labels, deployment),
    ]
}
