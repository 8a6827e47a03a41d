//! The list of tools that an agent sees: its fleet's tools and those of its MCP servers, under the
//! names that models accept, sorted, so that a request that carries them is the same every time.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::fleet::{AgentTool, KeyPlace, Tool, ToolKind};
use hub::caller::Caller;
use hub::step::Effect;
use hub::{Code, HubError, Refusal};
use serde_json::{Value, json};

use super::todays;
use crate::Gateway;

/// What models accept.
const MAX_NAME: usize = 64;

/// A tool under the name that the agent sees.
#[derive(Clone, Debug)]
pub struct Exposed {
    pub definition: mcp::Tool,
    pub effect: Effect,
    pub(super) tool: Tool,
    pub(super) server_tool: Option<String>,
}

/// All tools of the agent. A server that can't be reached fails the list: an agent that silently
/// lacks a tool does its work wrong, and differently from its last attempt.
pub async fn list(gateway: &Arc<Gateway>, caller: &Caller) -> Result<Vec<Exposed>, Refusal> {
    let mut by_name: BTreeMap<String, Exposed> = BTreeMap::new();
    for (entry, tool) in tools_of(caller) {
        for exposed in expose(gateway, caller, entry, tool).await? {
            by_name
                .entry(exposed.definition.name.clone())
                .or_insert(exposed);
        }
    }
    Ok(by_name.into_values().collect())
}

/// One tool. The fleet's own come first; only servers whose prefix fits are asked, and one that
/// can't be reached hides no other's tools.
pub(super) async fn find(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    name: &str,
) -> Result<Exposed, Refusal> {
    let own = tools_of(caller).find(|(entry, tool)| !is_server(tool) && entry.exposed == name);
    if let Some((entry, tool)) = own {
        return Ok(one(entry, tool));
    }
    let mut unreachable = None;
    let servers = tools_of(caller)
        .filter(|(entry, tool)| is_server(tool) && name.starts_with(&entry.exposed));
    for (entry, tool) in servers {
        match expose(gateway, caller, entry, tool).await {
            Ok(exposed) => {
                let mut exposed = exposed.into_iter();
                if let Some(found) = exposed.find(|exposed| exposed.definition.name == name) {
                    return Ok(found);
                }
            }
            Err(refused) => unreachable = Some(refused),
        }
    }
    Err(unreachable.unwrap_or_else(|| {
        let name = mcp::message::bounded(name, MAX_NAME);
        let message = format!("agent {} has no tool {name}", caller.agent.name);
        HubError::new(Code::NotFound, message)
    }))
}

fn tools_of(caller: &Caller) -> impl Iterator<Item = (&AgentTool, &Tool)> {
    let entries = caller.agent.tools.iter();
    entries.filter_map(|entry| {
        caller
            .fleet
            .tools
            .get(&entry.tool)
            .map(|tool| (entry, tool))
    })
}

fn is_server(tool: &Tool) -> bool {
    matches!(
        tool.kind,
        ToolKind::McpHttp { .. } | ToolKind::McpStdio { .. }
    )
}

async fn expose(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    entry: &AgentTool,
    tool: &Tool,
) -> Result<Vec<Exposed>, Refusal> {
    if !is_server(tool) {
        return Ok(vec![one(entry, tool)]);
    }
    let tools = gateway
        .mcp_servers
        .tools(&gateway.hub, &todays(caller, tool))
        .await
        .map_err(|error| unlisted(&entry.tool, tool, &error))?;
    // A tool without a name can't be called, and providers refuse a request that lists one.
    let allowed = tools.iter().filter(|served| {
        !served.name.is_empty()
            && tool
                .allow
                .as_ref()
                .is_none_or(|allow| allow.contains(&served.name))
    });
    Ok(allowed
        .map(|served| of_server(entry, tool, served))
        .collect())
}

fn unlisted(name: &str, tool: &Tool, error: &mcp::CallError) -> Refusal {
    let hint = match tool.kind {
        ToolKind::McpStdio { .. } => {
            let instance = format!("{}-{}", tool.registry, tool.name);
            format!("; what it wrote: mainstay logs {instance}")
        }
        _ => String::new(),
    };
    HubError::new(
        Code::Upstream,
        format!("the tools of {name} can't be listed: {error}{hint}"),
    )
}

fn one(entry: &AgentTool, tool: &Tool) -> Exposed {
    let schema = tool
        .input_schema
        .clone()
        .unwrap_or_else(|| json!({"type": "object"}));
    Exposed {
        definition: mcp::Tool {
            name: entry.exposed.clone(),
            description: tool.description.clone(),
            input_schema: schema,
            output_schema: None,
            annotations: None,
        },
        effect: effect(tool.effect),
        tool: tool.clone(),
        server_tool: None,
    }
}

fn of_server(entry: &AgentTool, tool: &Tool, served: &mcp::Tool) -> Exposed {
    let declared = tool
        .effects
        .get(&served.name)
        .copied()
        .unwrap_or(tool.effect);
    let mut definition = served.clone();
    definition.name = model_name(&entry.exposed, &served.name);
    if let (Effect::Keyed, Some(KeyPlace::Argument(argument))) = (effect(declared), &tool.key) {
        hide(&mut definition.input_schema, argument);
    }
    Exposed {
        definition,
        effect: effect(declared),
        tool: tool.clone(),
        server_tool: Some(served.name.clone()),
    }
}

/// A name that every model accepts.
fn model_name(prefix: &str, name: &str) -> String {
    let mut name = api::model_name(prefix, name);
    name.truncate(MAX_NAME);
    name
}

/// Takes an argument that Mainstay fills in out of the schema.
fn hide(schema: &mut Value, argument: &str) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove(argument);
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != argument);
    }
}

fn effect(effect: api::fleet::Effect) -> Effect {
    match effect {
        api::fleet::Effect::Pure => Effect::Pure,
        api::fleet::Effect::Keyed => Effect::Keyed,
        api::fleet::Effect::Queryable => Effect::Queryable,
        api::fleet::Effect::Opaque => Effect::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_name_becomes_one_that_models_accept() {
        assert_eq!(model_name("desk__", "read.file/v2"), "desk__read_file_v2");
        assert_eq!(model_name("", &"x".repeat(100)).len(), MAX_NAME);
    }

    #[test]
    fn the_key_is_not_the_models_to_fill_in() {
        let mut schema = json!({"properties": {"key": {}, "a": {}}, "required": ["key", "a"]});
        hide(&mut schema, "key");
        assert_eq!(schema, json!({"properties": {"a": {}}, "required": ["a"]}));
    }
}
