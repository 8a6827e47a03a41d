//! Circles of agents that are each other's tools.
//!
//! Providers may back each other up: a call tries its own provider's list and no further.

use super::Resolver;
use crate::fleet::ToolKind;
use crate::manifest::{Kind, Object};
use std::collections::{BTreeMap, BTreeSet};

impl Resolver<'_> {
    /// Reports agents that can call themselves by way of tools. A task of such an agent could wait for itself.
    pub(super) fn circles(&mut self) {
        for object in self.of_kind(Kind::Agent) {
            self.agent_circle(object);
        }
    }

    fn agent_circle(&mut self, object: &Object) {
        let next = |name: &str| {
            self.called_by(name)
                .into_iter()
                .map(|(_, agent)| agent)
                .collect()
        };
        let Some(circle) = circle(object.name(), &next) else {
            return;
        };
        let tool = self
            .called_by(object.name())
            .into_iter()
            .find(|(_, agent)| Some(agent) == circle.get(1));
        let field = format!("spec.tools[{}]", tool.map_or(0, |(index, _)| index));
        let message = format!(
            "the agents call each other in a circle: {}",
            circle.join(" → ")
        );
        self.problem(object, &field, message);
    }

    /// The agents that are an agent's tools, each with its position in `spec.tools`.
    pub(super) fn called_by(&self, agent: &str) -> Vec<(usize, String)> {
        let Some(agent) = self.fleet.agents.get(agent) else {
            return Vec::new();
        };
        let Some(object) = self.objects.get(&(Kind::Agent, agent.name.as_str())) else {
            return Vec::new();
        };
        let crate::manifest::Spec::Agent(spec) = &object.spec else {
            return Vec::new();
        };
        let each = spec.tools.iter().enumerate();
        each.filter_map(|(index, tool)| match &self.fleet.tools.get(tool)?.kind {
            ToolKind::Agent { agent } => Some((index, agent.clone())),
            _ => None,
        })
        .collect()
    }
}

/// The shortest way from a node back to itself, if the node is the first by name on it; so each circle is found once.
fn circle(start: &str, next: &dyn Fn(&str) -> Vec<String>) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<String, String> = BTreeMap::new();
    let mut level = BTreeSet::from([start.to_owned()]);
    while !level.is_empty() {
        let mut further = BTreeSet::new();
        for node in &level {
            for name in next(node) {
                if name == start {
                    return Some(way_back(start, node, &came_from));
                }
                // Circles through a smaller name are that one's to report.
                if name.as_str() > start && !came_from.contains_key(&name) {
                    came_from.insert(name.clone(), node.clone());
                    further.insert(name);
                }
            }
        }
        level = further;
    }
    None
}

fn way_back(start: &str, last: &str, came_from: &BTreeMap<String, String>) -> Vec<String> {
    let mut way = vec![start.to_owned()];
    let mut node = last;
    while node != start {
        way.push(node.to_owned());
        match came_from.get(node) {
            Some(before) => node = before,
            None => break,
        }
    }
    way.push(start.to_owned());
    way.reverse();
    way
}
