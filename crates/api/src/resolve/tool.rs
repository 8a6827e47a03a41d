//! Tool registries: what every kind of tool has, and the tools that are agents.

use super::Resolver;
use crate::fleet::{Effect, KeyPlace, Tool, ToolKind};
use crate::manifest::{Kind, Object, Spec};
use crate::problem::quoted;
use crate::tool_registry::{KeySpec, ToolSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const DEFAULT_TIMEOUT_MS: u64 = 60_000;
/// A task of another agent is many calls, so it gets longer than one.
const DEFAULT_AGENT_TIMEOUT_MS: u64 = 600_000;
const DEFAULT_RESULT_BYTES: u64 = 256 << 10;

/// A tool that is being looked at, and where it was written.
pub(super) struct Written<'a> {
    pub(super) object: &'a Object,
    pub(super) spec: &'a ToolSpec,
    /// `spec.tools[3]`.
    pub(super) path: String,
}

impl Written<'_> {
    pub(super) fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}

impl<'a> Resolver<'a> {
    pub(super) fn tools(&mut self) {
        for object in self.of_kind(Kind::ToolRegistry) {
            let Spec::ToolRegistry(registry) = &object.spec else {
                continue;
            };
            let mut first: BTreeMap<&str, String> = BTreeMap::new();
            for (index, spec) in registry.tools.iter().enumerate() {
                let tool = Written {
                    object,
                    spec,
                    path: format!("spec.tools[{index}]"),
                };
                if let Some(place) = first.get(spec.name.as_str()) {
                    let message = format!(
                        "tool {} is written twice; the first is at {place}",
                        quoted(&spec.name)
                    );
                    self.tool_problem(&tool, "name", message);
                    continue;
                }
                first.insert(&spec.name, object.place_of(&tool.field("name")));
                match self.tool(&tool) {
                    Some(resolved) => {
                        let name = format!("{}/{}", object.name(), spec.name);
                        self.fleet.tools.insert(name, resolved);
                    }
                    None => self.set_aside(object),
                }
            }
        }
    }

    /// `None` if it is none of the three; the schema has reported that.
    fn tool(&mut self, tool: &Written<'a>) -> Option<Tool> {
        let spec = tool.spec;
        let (kind, input_schema) = self.tool_kind(tool)?;
        let (effect, timeout_ms) = match kind {
            ToolKind::Agent { .. } => (Effect::Keyed, DEFAULT_AGENT_TIMEOUT_MS),
            _ => (spec.effect.unwrap_or_default(), DEFAULT_TIMEOUT_MS),
        };
        let limits = &spec.limits;
        Some(Tool {
            registry: tool.object.name().to_owned(),
            name: spec.name.clone(),
            kind,
            description: spec.description.clone(),
            input_schema,
            effect,
            key: spec.key.as_ref().and_then(key_place),
            timeout_ms: limits.timeout.map_or(timeout_ms, |timeout| timeout.ms),
            result_bytes: limits
                .result
                .map_or(DEFAULT_RESULT_BYTES, |size| size.bytes),
            allow: spec.allow.clone(),
            effects: spec.effects.clone(),
        })
    }

    fn tool_kind(&mut self, tool: &Written<'a>) -> Option<(ToolKind, Option<Value>)> {
        let spec = tool.spec;
        if let Some(mcp) = &spec.mcp {
            return Some((self.mcp_tool(tool, mcp), None));
        }
        if let Some(http) = &spec.http {
            let schema = self.input_schema(tool);
            return Some((self.http_tool(tool, http, &schema), Some(schema)));
        }
        let agent = spec.agent.as_deref()?;
        Some((self.agent_tool(tool, agent), Some(agent_schema())))
    }

    fn agent_tool(&mut self, tool: &Written<'_>, agent: &str) -> ToolKind {
        if !self.objects.contains_key(&(Kind::Agent, agent)) {
            self.missing(tool.object, &tool.field("agent"), Kind::Agent, agent);
        }
        ToolKind::Agent {
            agent: agent.to_owned(),
        }
    }

    /// Reports a field that has no meaning for this kind of tool.
    pub(super) fn refuse(&mut self, tool: &Written<'_>, field: &str, written: bool, reason: &str) {
        if written {
            self.tool_problem(
                tool,
                field,
                format!("`{}` has no meaning here: {reason}", tool.field(field)),
            );
        }
    }

    pub(super) fn tool_problem(
        &mut self,
        tool: &Written<'_>,
        field: &str,
        message: impl Into<String>,
    ) {
        self.problem(tool.object, &tool.field(field), message);
    }
}

fn key_place(key: &KeySpec) -> Option<KeyPlace> {
    let header = key.header.clone().map(KeyPlace::Header);
    header.or_else(|| key.argument.clone().map(KeyPlace::Argument))
}

/// What the model may say to an agent.
fn agent_schema() -> Value {
    json!({
        "type": "object",
        "properties": {"input": {"type": "string", "description": "What the agent is asked to do."}},
        "required": ["input"],
        "additionalProperties": false,
    })
}
