//! One fleet for both homes, with its provider and its tool: a built-in agent that uses the tool and
//! an agent of its own image. An input such as `5 of a` makes a task of five model calls.

use std::time::Duration;

use serde_json::Value;
use testkit::cluster::{Cluster, Workspace};
use testkit::provider::{Call, Reply, loop_of};
use testkit::{Client, Fleet, McpServer, Provider, Up, cli};

/// The built-in agent, each of whose turns but the last calls the tool once.
pub(crate) const TALKER: &str = "talker";
/// The agent of its own image, whose turns are model calls alone.
pub(crate) const WORKER: &str = "worker";

/// How long a task may take, on a machine that others use as well.
pub(crate) const BOUND: Duration = Duration::from_secs(120);

/// What the fleet calls, which counts.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) tools: McpServer,
}

impl World {
    /// Servers where both homes reach them; each model call takes `pace`.
    pub(crate) fn start(cluster: &Cluster, pace: Duration) -> Self {
        Self {
            provider: Provider::start_on(cluster.address, move |call| answer(call).after(pace)),
            tools: McpServer::start_on(cluster.address),
        }
    }

    /// The fleet in a workspace of its own, once so many instances of each agent are ready.
    pub(crate) fn in_cluster(&self, workspace: &Workspace, instances: usize) {
        workspace.apply(
            "apiVersion: v1
kind: Secret
metadata: {name: fake}
stringData: {apiKey: sk-testkit}
",
        );
        let image = format!("\n  image: {}", workspace.cluster.agent_image);
        let steps = "/bin/testkit-steps";
        workspace.apply(&self.manifests(workspace.name(), steps, &image, instances));
        for agent in [TALKER, WORKER] {
            let _ = workspace.wait_pods(agent, instances);
        }
    }

    /// The same fleet on this machine.
    pub(crate) fn on_the_box(&self) -> Up {
        let steps = env!("CARGO_BIN_EXE_testkit-steps");
        let fleet = Fleet::new().with("fleet.yaml", &self.manifests("{{mark}}", steps, "", 1));
        let arguments = ["secret", "set", "fake/apiKey"];
        let _ = cli::run(&fleet.state(), &arguments, "sk-testkit").expect_code(0);
        Up::start(fleet)
    }

    fn manifests(&self, mark: &str, steps: &str, image: &str, instances: usize) -> String {
        format!(
            r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec:
  type: openai
  baseUrl: {provider}
  credential: {{secretRef: {{name: fake, key: apiKey}}}}
  models: [{{name: fake-1, price: {{input: 1, output: 10}}}}]
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {{name: desk}}
spec: {{tools: [{{name: notes, mcp: {{url: "{tools}"}}, effects: {{record: keyed}}}}]}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: {TALKER}}}
spec:
  models: [fake/fake-1]
  instructions: Record what you are told.
  tools: [desk/notes]
  env: {{TESTKIT_FLEET: "{mark}"}}
  replicas: {instances}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: {WORKER}}}
spec:
  models: [fake/fake-1]
  runtime: {{exec: {{command: ["{steps}"]}}}}{image}
  env: {{TESTKIT_FLEET: "{mark}"}}
  replicas: {instances}
"#,
            provider = self.provider.openai_url(),
            tools = self.tools.url(),
        )
    }

    /// How often each turn of a task was asked of the provider.
    pub(crate) fn model_calls(&self, input: &str) -> Vec<usize> {
        let counts = self.provider.counts();
        let of = |turn| counts.get(&(input.to_owned(), turn)).copied();
        (0..turns(input))
            .map(|turn| of(turn).unwrap_or(0))
            .collect()
    }

    /// How often each call of the tool arrived for a task.
    pub(crate) fn tool_calls(&self, input: &str) -> Vec<usize> {
        let counts = self.tools.counts();
        let of = |n| counts.get(&(input.to_owned(), n)).copied();
        (1..u64::from(turns(input)))
            .map(|n| of(n).unwrap_or(0))
            .collect()
    }

    /// Waits until the provider has seen that turn of a task.
    pub(crate) fn wait_turn(&self, input: &str, turn: u32) {
        testkit::until("the task to get that far", BOUND, || {
            let counts = self.provider.counts();
            counts.contains_key(&(input.to_owned(), turn)).then_some(())
        });
    }
}

fn answer(call: &Call) -> Reply {
    loop_of(turns(&call.conversation), "record")(call)
}

/// The number that an input begins with.
fn turns(input: &str) -> u32 {
    let word = input.split(' ').next();
    word.and_then(|word| word.parse().ok()).unwrap_or(1)
}

/// Submits a task; its input is its key.
pub(crate) fn submit(client: &Client, agent: &str, input: &str) -> String {
    client.submit(agent, input, &format!("{agent}-{input}"))
}

/// Waits for a task's end, which must be a good one with the answer of its own conversation.
pub(crate) fn completed(client: &Client, id: &str, input: &str) -> Value {
    let ends = [
        "completed",
        "failed",
        "canceled",
        "rejected",
        "input-required",
        "auth-required",
    ];
    let task = client
        .reached(id, &ends, BOUND)
        .unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(task["state"], "completed", "{task}");
    assert_eq!(task["output"], format!("done: {input}"), "{task}");
    task
}
