//! A fleet of one agent with a counting provider and a counting tool, and what must hold of it.

use std::time::Duration;

use serde_json::Value;
use testkit::provider::loop_of;
use testkit::{Fleet, McpServer, Provider, Up, mcp_server};

use crate::agents::{Sdk, Speaks};

/// Model calls of a task; between each two lies one tool call.
pub(crate) const TURNS: u32 = 20;

/// The fleet and what it talks to.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) tools: McpServer,
    pub(crate) up: Up,
}

impl World {
    /// Starts all of it, or nothing where the agent's SDK isn't installed.
    pub(crate) fn start(agent: &Sdk, replicas: u32) -> Option<Self> {
        Self::over(agent, agent.speaks, replicas)
    }

    /// The same with a provider that may speak another dialect than the agent.
    pub(crate) fn over(agent: &Sdk, provided: Speaks, replicas: u32) -> Option<Self> {
        let command = agent.command()?;
        let script = loop_of(TURNS, "record");
        let provider = Provider::start(move |call| script(call).after(Duration::from_millis(10)));
        let tools = McpServer::start();
        tools.set_behaviour(mcp_server::Behaviour::AnswerAfter(Duration::from_millis(
            10,
        )));
        let mut fleet = Fleet::new();
        let mut source = String::new();
        if let Some((name, text)) = agent.source() {
            fleet = fleet.with(&format!("agent/{name}"), &text);
            source = "  source: ./agent\n".to_owned();
        }
        let (kind, url) = match provided {
            Speaks::OpenAi => ("openai", provider.openai_url()),
            Speaks::Anthropic => ("anthropic", provider.anthropic_url()),
        };
        let command = serde_json::to_string(&command).unwrap();
        let fleet = fleet.with(
            "fleet.yaml",
            &format!(
                r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec:
  type: {kind}
  baseUrl: {url}
  credential: {{env: TESTKIT_PROVIDER_KEY}}
  models: [{{name: fake-1, price: {{input: 1, output: 10}}}}]
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {{name: desk}}
spec: {{tools: [{{name: notes, mcp: {{url: "{tools}"}}}}]}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: worker}}
spec:
  models: [fake/fake-1]
  tools: [desk/notes]
  runtime: {{exec: {{command: {command}}}}}
{source}  env: {{TESTKIT_FLEET: "{{{{mark}}}}", STREAM: "{stream}"}}
  replicas: {replicas}
"#,
                tools = tools.url(),
                stream = u8::from(agent.stream),
            ),
        );
        let up = Up::start_with(fleet, &[("TESTKIT_PROVIDER_KEY", "sk-testkit")]);
        Some(Self {
            provider,
            tools,
            up,
        })
    }

    /// Submits that many tasks; each one's input is its conversation's name.
    pub(crate) fn submit(&self, tasks: u32) -> Vec<Submitted> {
        let submit = |number| {
            let input = format!("task-{number}");
            let id = self.up.submit("worker", &input);
            Submitted { id, input }
        };
        (0..tasks).map(submit).collect()
    }

    /// Every effect of this task happened, and happened once.
    pub(crate) fn assert_effects_once(&self, task: &Submitted) {
        let counts = self.tools.counts();
        for n in 1..u64::from(TURNS) {
            let times = counts.get(&(task.input.clone(), n)).copied();
            assert_eq!(times.unwrap_or(0), 1, "effect {n} of {}", task.input);
        }
    }

    /// How often each of its turns was asked of the provider.
    pub(crate) fn model_calls(&self, task: &Submitted) -> Vec<usize> {
        let counts = self.provider.counts();
        let of = |turn| counts.get(&(task.input.clone(), turn)).copied();
        (0..TURNS).map(|turn| of(turn).unwrap_or(0)).collect()
    }

    /// The task ended with the answer of its own conversation.
    pub(crate) fn assert_completed(&self, task: &Submitted) -> Value {
        let shown = self.up.task(&task.id).unwrap();
        assert_eq!(shown["state"], "completed", "{shown}");
        let output = format!("done: {}", task.input);
        assert_eq!(shown["output"], output.as_str(), "{shown}");
        assert_eq!(shown["steps"], 2 * TURNS - 1, "{shown}");
        shown
    }

    /// The log is consistent.
    pub(crate) fn assert_log_verifies(&self) {
        let verified = self.up.cli(&["log", "verify"]);
        assert_eq!(verified.code, 0, "{verified:?}");
    }
}

/// A task of a sweep.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    pub(crate) id: String,
    pub(crate) input: String,
}
