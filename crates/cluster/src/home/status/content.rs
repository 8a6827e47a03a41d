//! What the status of each object says, from the fleet and from what runs.

use std::collections::{BTreeMap, BTreeSet};

use api::fleet::{Agent, Tool, ToolKind};
use api::kubernetes::agent_template;
use api::{Fleet, Kind};
use hub::tally::Tally;
use hub::view::AgentView;
use serde_json::{Value, json};

use super::Written;
use crate::home::keys::providers_of;

/// More tools of a registry are counted, and not listed.
const MAX_TOOLS: usize = 256;
/// A description is shortened to this.
const MAX_TEXT: usize = 256;

/// What there is to tell.
pub(super) struct Seen<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) agents: &'a [AgentView],
    pub(super) tally: &'a Tally,
    /// By owner, what its pods run.
    pub(super) pods: &'a BTreeMap<String, BTreeSet<String>>,
}

/// The status of every object of the fleet.
pub(super) fn statuses(seen: &Seen<'_>) -> Written {
    let fleet = seen.fleet;
    let mut statuses = Written::new();
    for agent in seen.agents {
        if let Some(known) = fleet.agents.get(&agent.name) {
            statuses.insert(
                (Kind::Agent, agent.name.clone()),
                of_agent(seen, agent, known),
            );
        }
    }
    for name in fleet.providers.keys() {
        let uses = |agent: &Agent| providers_of(agent).contains(name.as_str());
        let status = json!({"agents": names(fleet, uses)});
        statuses.insert((Kind::Provider, name.clone()), status);
    }
    for (name, pack) in &fleet.prompt_packs {
        let status = json!({"version": pack.version, "agents": readers(fleet, name)});
        statuses.insert((Kind::PromptPack, name.clone()), status);
    }
    let registries: BTreeSet<&str> = fleet
        .tools
        .values()
        .map(|tool| tool.registry.as_str())
        .collect();
    for name in registries {
        statuses.insert(
            (Kind::ToolRegistry, name.to_owned()),
            of_registry(seen, name),
        );
    }
    statuses
}

fn of_agent(seen: &Seen<'_>, agent: &AgentView, known: &Agent) -> Value {
    let runs = seen.pods.get(&agent.name).cloned();
    let runs = runs.unwrap_or_else(|| BTreeSet::from([agent_template(known)]));
    let mut status = json!({
        "tasks": {
            "waiting": agent.queued, "working": agent.working,
            "open": agent.queued + agent.working,
        },
        "version": runs.into_iter().collect::<Vec<_>>().join(", "),
    });
    // Unknown is left out, and is not 0.
    if let Some(usd) = seen.tally.usd(&agent.name) {
        status["costToday"] = format!("{usd:.2}").into();
    }
    status
}

fn of_registry(seen: &Seen<'_>, name: &str) -> Value {
    let fleet = seen.fleet;
    let tools: Vec<&Tool> = fleet
        .tools
        .values()
        .filter(|tool| tool.registry == name)
        .collect();
    let listed: Vec<Value> = tools
        .iter()
        .take(MAX_TOOLS)
        .map(|tool| of_tool(seen, tool))
        .collect();
    let uses = |agent: &Agent| {
        let mut used = agent
            .tools
            .iter()
            .filter_map(|tool| tool.tool.split_once('/'));
        used.any(|(registry, _)| registry == name)
    };
    json!({"toolCount": tools.len(), "tools": listed, "agents": names(fleet, uses)})
}

fn of_tool(seen: &Seen<'_>, tool: &Tool) -> Value {
    let description: String = tool.description.chars().take(MAX_TEXT).collect();
    let mut status = json!({"name": tool.name, "effect": tool.effect, "description": description});
    if matches!(tool.kind, ToolKind::McpStdio { .. }) {
        let is_there = seen
            .pods
            .contains_key(&format!("{}/{}", tool.registry, tool.name));
        status["healthy"] = is_there.into();
        if !is_there {
            status["message"] = "its pod is not connected".into();
        }
    }
    status
}

fn names(fleet: &Fleet, uses: impl Fn(&Agent) -> bool) -> Vec<Value> {
    let agents = fleet.agents.values().filter(|agent| uses(agent));
    agents.map(|agent| json!({"name": agent.name})).collect()
}

/// The agents of a pack, each with the version that it reads.
fn readers(fleet: &Fleet, pack: &str) -> Vec<Value> {
    let agents = fleet.agents.values().filter_map(|agent| {
        let prompt = agent.prompt.as_ref().filter(|prompt| prompt.pack == pack)?;
        let today = fleet.prompt_packs.get(pack)?.version.clone();
        let version = prompt.version.clone().unwrap_or(today);
        Some(json!({"name": agent.name, "version": version}))
    });
    agents.collect()
}

#[cfg(test)]
mod tests {
    use api::fleet::{Effect, PromptPack, PromptRef};

    use super::*;

    #[test]
    fn every_object_says_who_uses_it_and_what_runs() {
        let mut fleet = crate::token::tests::fleet_with_models();
        let pack = PromptPack {
            version: "3".into(),
            prompts: BTreeMap::new(),
        };
        fleet.prompt_packs.insert("words".into(), pack);
        fleet.agents.get_mut("helper").unwrap().prompt = Some(PromptRef {
            pack: "words".into(),
            name: "hello".into(),
            version: None,
        });
        let tool = Tool {
            registry: "desk".into(),
            name: "files".into(),
            kind: ToolKind::McpStdio {
                command: vec!["files".into()],
                env: BTreeMap::new(),
                image: None,
            },
            description: String::new(),
            input_schema: None,
            effect: Effect::Opaque,
            key: None,
            timeout_ms: 1,
            result_bytes: 1,
            allow: None,
            effects: BTreeMap::new(),
        };
        fleet.tools.insert("desk/files".into(), tool);
        let agent = AgentView {
            name: "helper".into(),
            runtime: "exec",
            state: "running",
            models: Vec::new(),
            scripted: false,
            tools: Vec::new(),
            replicas: 1,
            ready: 1,
            queued: 2,
            working: 1,
            generation: Some(7),
            exposed_secrets: Vec::new(),
        };
        let told = statuses(&Seen {
            fleet: &fleet,
            agents: &[agent],
            tally: &Tally::default(),
            pods: &BTreeMap::from([("helper".to_owned(), BTreeSet::from(["t".to_owned()]))]),
        });
        let of = |kind, name: &str| {
            told.get(&(kind, name.to_owned()))
                .cloned()
                .unwrap_or_default()
        };
        assert_eq!(
            of(Kind::Agent, "helper"),
            json!({
                "tasks": {"waiting": 2, "working": 1, "open": 3}, "version": "t",
                "costToday": "0.00",
            })
        );
        assert_eq!(
            of(Kind::PromptPack, "words"),
            json!({"version": "3", "agents": [{"name": "helper", "version": "3"}]})
        );
        for provider in ["one", "two"] {
            let agents = json!({"agents": [{"name": "helper"}]});
            assert_eq!(of(Kind::Provider, provider), agents, "{provider}");
        }
        assert_eq!(of(Kind::Provider, "idle"), json!({"agents": []}));
        let registry = of(Kind::ToolRegistry, "desk");
        assert_eq!(
            (&registry["toolCount"], &registry["tools"][0]["healthy"]),
            (&json!(1), &json!(false))
        );
    }
}
