//! The tools of an agent, whatever their kind: which there are, and how one is called.
//!
//! What a tool is belongs to the task's own generation; where it is reached, with what credential
//! and within which bounds is today's.

mod agent;
mod arguments;
pub mod canonical;
mod filling;
mod http;
mod list;
mod mcp_servers;
mod perform;
mod read_back;
pub mod result;

use std::sync::Arc;

use api::fleet::{Tool, ToolKind};
use hub::caller::Caller;
use hub::step::Effect;
use hub::{Code, HubError, Refusal};
use serde_json::Value;

pub use arguments::check_schema;
pub use canonical::canonical;
pub use list::list;
pub use mcp_servers::McpServers;
pub use read_back::check_expression;

use crate::Gateway;

/// A tool call that may be made.
pub struct ToolCall {
    /// The name that the agent sees.
    pub exposed: String,
    pub arguments: Value,
    pub effect: Effect,
    tool: Tool,
    /// The name at the MCP server.
    server_tool: Option<String>,
    caller: Caller,
}

impl ToolCall {
    /// Finds the tool and validates the arguments against its schema.
    pub async fn prepare(
        gateway: &Arc<Gateway>,
        caller: &Caller,
        name: &str,
        arguments: Value,
    ) -> Result<Self, Refusal> {
        let exposed = list::find(gateway, caller, name).await?;
        arguments::validate(&exposed.definition.input_schema, &arguments).map_err(|why| {
            HubError::new(
                Code::Invalid,
                format!("the arguments of {name} don't fit its schema: {why}"),
            )
        })?;
        Ok(Self {
            exposed: exposed.definition.name,
            arguments,
            effect: exposed.effect,
            tool: todays(caller, &exposed.tool),
            server_tool: exposed.server_tool,
            caller: caller.clone(),
        })
    }
}

/// The pinned tool with today's address, credential and bounds.
fn todays(caller: &Caller, pinned: &Tool) -> Tool {
    let mut tool = pinned.clone();
    let key = format!("{}/{}", pinned.registry, pinned.name);
    let Some(today) = caller.today.tools.get(&key) else {
        return tool;
    };
    tool.timeout_ms = today.timeout_ms;
    tool.result_bytes = today.result_bytes;
    match (&mut tool.kind, &today.kind) {
        (
            ToolKind::McpHttp { url, credential },
            ToolKind::McpHttp {
                url: now,
                credential: new,
            },
        ) => {
            url.clone_from(now);
            credential.clone_from(new);
        }
        (
            ToolKind::Http { credential, .. },
            ToolKind::Http {
                credential: new, ..
            },
        ) => credential.clone_from(new),
        _ => {}
    }
    tool
}
