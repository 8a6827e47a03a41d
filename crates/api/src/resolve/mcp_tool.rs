//! MCP servers in a registry.

use super::tool::Written;
use super::{Resolver, listed};
use crate::fleet::{Effect, ToolKind};
use crate::nearest::did_you_mean;
use crate::problem::quoted;
use crate::tool_registry::McpSpec;
use std::collections::BTreeSet;

impl Resolver<'_> {
    pub(super) fn mcp_tool(&mut self, tool: &Written<'_>, mcp: &McpSpec) -> ToolKind {
        self.mcp_effects(tool);
        match (&mcp.url, &mcp.command) {
            (Some(url), _) => {
                let field = tool.field("mcp.credential");
                let credential = self.credential(tool.object, &field, mcp.credential.as_ref());
                ToolKind::McpHttp {
                    url: url.clone(),
                    credential,
                }
            }
            (None, command) => {
                self.environment(tool.object, &tool.field("mcp.env"), mcp.env.keys());
                self.kubernetes_only(tool.object, &tool.field("mcp.image"), mcp.image.is_some());
                ToolKind::McpStdio {
                    command: command.clone().unwrap_or_default(),
                    env: mcp.env.clone(),
                    image: mcp.image.clone(),
                }
            }
        }
    }

    fn mcp_effects(&mut self, tool: &Written<'_>) {
        let spec = tool.spec;
        let effects = spec.effects.iter();
        for (name, _) in effects.filter(|(_, effect)| **effect == Effect::Queryable) {
            self.tool_problem(
                tool,
                &format!("effects.{name}"),
                "a call to an MCP server can't be read back, so it can't be queryable",
            );
        }
        let Some(allow) = &spec.allow else { return };
        let mut seen = BTreeSet::new();
        for (index, name) in allow.iter().enumerate() {
            if !seen.insert(name) {
                self.tool_problem(
                    tool,
                    &format!("allow[{index}]"),
                    format!("{} is written twice", quoted(name)),
                );
            }
        }
        for name in spec.effects.keys().filter(|name| !allow.contains(name)) {
            let names = || allow.iter().map(String::as_str);
            let hint = did_you_mean(name, names())
                .unwrap_or_else(|| format!("allowed: {}", listed(names())));
            let field = tool.field(&format!("effects.{name}"));
            self.hinted(
                tool.object,
                &field,
                format!("tool {} is not in `allow`", quoted(name)),
                hint,
            );
        }
    }
}
