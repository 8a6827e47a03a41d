//! The tools of one agent, under the names its model sees.
//!
//! `registry__tool`, or the bare name where the agent has one registry only. An MCP server's tools are named by the
//! server, so only those that `allow` lists can be checked here; the gateway checks the others when the server has said.

use super::{Resolver, listed};
use crate::fleet::{AgentTool, Tool, ToolKind};
use crate::format::{is_tool_name, model_name};
use crate::manifest::{Kind, Object};
use crate::nearest::did_you_mean;
use crate::problem::quoted;
use std::collections::{BTreeMap, BTreeSet};

impl Resolver<'_> {
    pub(super) fn agent_tools(&mut self, object: &Object, references: &[String]) -> Vec<AgentTool> {
        let registries: BTreeSet<&str> = references
            .iter()
            .filter_map(|text| Some(text.split_once('/')?.0))
            .collect();
        let mut tools: Vec<AgentTool> = Vec::new();
        let mut seen_by: BTreeMap<String, String> = BTreeMap::new();
        for (index, reference) in references.iter().enumerate() {
            let field = format!("spec.tools[{index}]");
            if tools.iter().any(|tool| tool.tool == *reference) {
                self.problem(
                    object,
                    &field,
                    format!("{} is written twice", quoted(reference)),
                );
                continue;
            }
            let Some(tool) = self.find_tool(object, &field, reference) else {
                continue;
            };
            let prefix = if registries.len() > 1 {
                format!("{}__", tool.registry)
            } else {
                String::new()
            };
            let is_server = matches!(
                tool.kind,
                ToolKind::McpHttp { .. } | ToolKind::McpStdio { .. }
            );
            let exposed = if is_server {
                prefix.clone()
            } else {
                format!("{prefix}{}", tool.name)
            };
            let names: Vec<String> = match (&tool.allow, is_server) {
                (Some(allow), true) => allow.iter().map(|name| model_name(&prefix, name)).collect(),
                (None, true) => Vec::new(),
                _ => vec![exposed.clone()],
            };
            for name in names {
                self.exposed_name(object, &field, reference, name, &mut seen_by);
            }
            tools.push(AgentTool {
                tool: reference.clone(),
                exposed,
            });
        }
        tools
    }

    fn exposed_name(
        &mut self,
        object: &Object,
        field: &str,
        reference: &str,
        name: String,
        seen_by: &mut BTreeMap<String, String>,
    ) {
        if !is_tool_name(&name) {
            let message = format!(
                "the model would see {} of {}, which is {} characters long; models take at most 64",
                quoted(&name),
                quoted(reference),
                name.chars().count()
            );
            self.hinted(
                object,
                field,
                message,
                "shorten the name of the registry or of the tool",
            );
        }
        if let Some(other) = seen_by.get(&name) {
            let what = match other == reference {
                true => format!("two tools that {} allows", quoted(reference)),
                false => format!("{} and {}", quoted(other), quoted(reference)),
            };
            let message = format!("{what} would both be {} to the model", quoted(&name));
            self.problem(object, field, message);
        }
        seen_by.entry(name).or_insert_with(|| reference.to_owned());
    }

    fn find_tool(&mut self, object: &Object, field: &str, reference: &str) -> Option<Tool> {
        let Some((registry, name)) = reference.split_once('/') else {
            let hint = self.tools_of(reference).first().map_or_else(
                || "write registry/tool".to_owned(),
                |tool| format!("write `{reference}/{tool}`"),
            );
            self.hinted(
                object,
                field,
                format!("{} is not of the form registry/tool", quoted(reference)),
                hint,
            );
            return None;
        };
        if let Some(tool) = self.fleet.tools.get(reference) {
            return Some(tool.clone());
        }
        if !self.objects.contains_key(&(Kind::ToolRegistry, registry)) {
            self.missing(object, field, Kind::ToolRegistry, registry);
            return None;
        }
        if self
            .broken
            .contains(&(Kind::ToolRegistry, registry.to_owned()))
        {
            return None;
        }
        let tools = self.tools_of(registry);
        let names = || tools.iter().map(String::as_str);
        let hint =
            did_you_mean(name, names()).unwrap_or_else(|| format!("it has {}", listed(names())));
        let message = format!(
            "ToolRegistry {} has no tool {}",
            quoted(registry),
            quoted(name)
        );
        self.hinted(object, field, message, hint);
        None
    }

    fn tools_of(&self, registry: &str) -> Vec<String> {
        let tools = self
            .fleet
            .tools
            .values()
            .filter(|tool| tool.registry == registry);
        tools.map(|tool| tool.name.clone()).collect()
    }
}
