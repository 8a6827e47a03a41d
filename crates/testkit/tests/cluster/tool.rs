//! A stdio MCP server with an image is a pod of its own: called through the gateway, and there again
//! when its process or its pod is killed.

use std::time::Duration;

use serde_json::json;
use testkit::cluster::{Cluster, PATIENCE, Pod, Workspace};
use testkit::provider::Reply;
use testkit::{Provider, processes, until};

use crate::world::{completed, submit};

const CALLER: &str = "caller";
const SERVERS: &str = "app.kubernetes.io/component=tool";
/// How many model calls a task makes; each but the last calls the tool.
const TURNS: u32 = 6;

struct Scene {
    workspace: Workspace,
    provider: Provider,
}

impl Scene {
    fn new(cluster: &'static Cluster) -> Self {
        let provider = Provider::start_on(cluster.address, |call| {
            if call.turn + 1 >= TURNS {
                return Reply::text(&format!("done: {}", call.conversation));
            }
            let pace = Duration::from_millis(300);
            Reply::tool(&call.tool_named("memory"), json!({})).after(pace)
        });
        let workspace = Workspace::start(cluster, "tool");
        workspace.apply(&format!(
            "apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec: {{type: openai, baseUrl: {provider}, models: [{{name: fake-1}}]}}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {{name: machine}}
spec:
  tools:
    - name: tools
      mcp: {{command: [/bin/mainstay, demo-tools], image: {image}}}
      effects: {{memory: pure}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: {CALLER}}}
spec: {{models: [fake/fake-1], instructions: Look., tools: [machine/tools]}}
",
            provider = provider.openai_url(),
            image = cluster.image,
        ));
        let scene = Self {
            workspace,
            provider,
        };
        let _ = scene.workspace.wait_pods(CALLER, 1);
        scene
    }

    /// The server's one pod, ready.
    fn server(&self) -> Pod {
        until("the server's pod", PATIENCE, || {
            match &self.workspace.pods_with(SERVERS)[..] {
                [pod] if pod.ready => Some(pod.clone()),
                _ => None,
            }
        })
    }

    /// The server's own process, which only the pod's shim has around it.
    fn process(&self, pod: &Pod) -> i32 {
        let is_server = |pid: &i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.windows(10).any(|part| part == b"demo-tools")
        };
        until("the server's process", PATIENCE, || {
            pod.processes("bin/mainstay").into_iter().find(is_server)
        })
    }

    /// A task whose server is harmed in its middle.
    fn task(&self, input: &str, harm: impl FnOnce()) {
        let client = self.workspace.client();
        let id = submit(&client, CALLER, input);
        until("the task to get that far", PATIENCE, || {
            (self.provider.calls_of(input).len() >= 3).then_some(())
        });
        harm();
        let task = completed(&client, &id, input);
        assert_eq!(task["attempts"], 1, "{task}");
    }
}

#[test]
fn a_stdio_server_is_a_pod_and_outlives_its_process_and_its_pod() {
    let Some(cluster) = Cluster::find("a tool's pod") else {
        return;
    };
    let scene = Scene::new(cluster);
    let pod = scene.server();
    scene.task("undisturbed", || {});
    scene.task("without its process", || {
        assert!(processes::kill(scene.process(&pod)));
    });
    assert_eq!(scene.server(), pod, "the pod was not to notice");
    scene.task("without its pod", || {
        let delete = ["delete", "pod", &pod.name, "--grace-period=0", "--force"];
        scene.workspace.kubectl(&delete);
    });
    assert_ne!(scene.server().name, pod.name);
    let status = until(
        "the registry says that its server is there",
        PATIENCE,
        || {
            let registry = scene.workspace.get(&["toolregistry", "machine"])?;
            let tool = &registry["status"]["tools"][0];
            (tool["healthy"] == true).then(|| registry["status"].clone())
        },
    );
    assert_eq!(status["toolCount"], 1, "{status}");
}
