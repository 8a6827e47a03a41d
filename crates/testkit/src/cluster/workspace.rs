//! A workspace of one test: the object, its namespace, its hub as a client sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Cluster, OPERATOR, PATIENCE, Pod};
use crate::http::{Endpoint, Request};
use crate::processes::{self, AgentProcess};
use crate::{Client, until};

const HUB: &str = "mainstay-hub";

/// A workspace that is there until it's dropped.
pub struct Workspace {
    pub cluster: &'static Cluster,
    name: String,
}

impl Workspace {
    /// A new one with nothing in it, once its hub answers.
    #[must_use]
    pub fn start(cluster: &'static Cluster, label: &str) -> Self {
        let workspace = Self::unmade(cluster, label);
        workspace.again();
        workspace
    }

    /// Its object once more, after it went; returns once the hub answers.
    pub fn again(&self) {
        self.apply_json(&json!({
            "apiVersion": "mainstay.dev/v1alpha1",
            "kind": "Workspace",
            "metadata": { "name": self.name },
            "spec": { "description": "a test" },
        }));
        self.wait_hub();
    }

    /// One that a test makes itself; it is removed in the same way.
    #[must_use]
    pub fn unmade(cluster: &'static Cluster, label: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{label}-{:x}-{number}", std::process::id());
        Self { cluster, name }
    }

    /// The name of the workspace and of its namespace; also what marks its agents' processes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the hub takes tasks.
    pub fn wait_hub(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.is_hub_ready() {
            assert!(
                std::time::Instant::now() < deadline,
                "the hub of {} is not ready after {PATIENCE:?}\n{}",
                self.name,
                self.describe()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn is_hub_ready(&self) -> bool {
        let Some(endpoint) = self.endpoint() else {
            return false;
        };
        let asked = Request::to(endpoint, "GET", "/readyz").timeout(Duration::from_secs(2));
        asked.send().is_ok_and(|answer| answer.status == 200)
    }

    /// The hub's Service with the authority that its certificate comes from.
    fn endpoint(&self) -> Option<Endpoint> {
        let service = self.get(&["service", HUB])?;
        let authority = self.get(&["configmap", "mainstay-hub-ca"])?;
        let address = service["spec"]["clusterIP"].as_str()?.parse().ok()?;
        let name = format!("{HUB}.{}.svc", self.name);
        let authority = authority["data"]["ca.crt"].as_str()?;
        Some(Endpoint::over_tls(
            SocketAddr::new(address, 7080),
            &name,
            authority,
        ))
    }

    /// The owner as a client of the hub's Service.
    #[must_use]
    pub fn client(&self) -> Client {
        self.owner(self.endpoint().unwrap())
    }

    /// The owner as a client of that pod of the hub.
    #[must_use]
    pub fn client_at(&self, pod: &Pod) -> Client {
        let endpoint = self.endpoint().unwrap();
        self.owner(endpoint.elsewhere(pod.address.parse().unwrap()))
    }

    /// By the command line, for which the kubeconfig's rights are Mainstay's.
    fn owner(&self, endpoint: Endpoint) -> Client {
        // After a node was lost an API server may reach its kubelet by a dead connection at first.
        let token = until("the owner's token", PATIENCE, || {
            let output = self.cluster.mainstay(&["--namespace", &self.name, "token"]);
            assert!([0, 6].contains(&output.code), "{output:?}");
            (output.code == 0).then(|| output.stdout.trim().to_owned())
        });
        Client { endpoint, token }
    }

    /// Applies manifests to the namespace, as `kubectl apply` does.
    pub fn apply(&self, manifests: &str) {
        let namespace = format!("--namespace={}", self.name);
        let arguments = ["apply", "--filename=-", &namespace];
        let _ = self.cluster.kubectl(&arguments, manifests).expect_code(0);
    }

    fn apply_json(&self, object: &Value) {
        let arguments = ["apply", "--filename=-"];
        let text = object.to_string();
        let _ = self.cluster.kubectl(&arguments, &text).expect_code(0);
    }

    /// kubectl in the namespace, which must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = format!("--namespace={}", self.name);
        self.cluster.run(&[arguments, &[&namespace]].concat())
    }

    /// An object of the namespace, or nothing.
    #[must_use]
    pub fn get(&self, arguments: &[&str]) -> Option<Value> {
        let namespace = format!("--namespace={}", self.name);
        self.cluster.get(&[arguments, &[&namespace]].concat())
    }

    /// The pods of an agent that aren't ending.
    #[must_use]
    pub fn pods(&self, agent: &str) -> Vec<Pod> {
        self.pods_with(&format!("mainstay.dev/agent={agent}"))
    }

    /// The hub's pod.
    #[must_use]
    pub fn hub_pod(&self) -> Pod {
        let found = self.get(&["pod", &format!("{HUB}-0")]);
        Pod::read(&found.unwrap()).unwrap()
    }

    /// The hub's process, if one runs. The container's first process starts it again; the last
    /// one is the hub.
    #[must_use]
    pub fn hub_process(&self) -> Option<i32> {
        let found = self.get(&["pod", &format!("{HUB}-0")])?;
        Pod::read(&found)?.processes("bin/mainstay").pop()
    }

    /// The pods with these labels that aren't ending.
    #[must_use]
    pub fn pods_with(&self, selector: &str) -> Vec<Pod> {
        let list = self.get(&["pods", "--selector", selector]);
        let items = list.and_then(|list| list["items"].as_array().cloned());
        items
            .unwrap_or_default()
            .iter()
            .filter_map(Pod::read)
            .collect()
    }

    /// Waits until so many pods of an agent are ready.
    #[must_use]
    pub fn wait_pods(&self, agent: &str, number: usize) -> Vec<Pod> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let pods = self.pods(agent);
            if pods.len() == number && pods.iter().all(|pod| pod.ready) {
                return pods;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{number} pods of {agent} are not ready after {PATIENCE:?}: {pods:?}\n{}",
                self.describe()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The processes of its agents, in whatever pod: the nodes are this machine's.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentProcess> {
        processes::agents(&self.name)
    }

    /// The process that works on a task, once there is one.
    #[must_use]
    pub fn agent_of(&self, task: &str) -> AgentProcess {
        until("the task's process", PATIENCE, || {
            let agents = self.agents().into_iter();
            agents
                .into_iter()
                .find(|agent| agent.task.as_deref() == Some(task))
        })
    }

    /// What a person would look at to see what is wrong.
    #[must_use]
    pub fn describe(&self) -> String {
        let namespace = format!("--namespace={}", self.name);
        let kinds = "workspaces,agents,providers,pods,statefulsets,deployments";
        let mut text = String::new();
        for arguments in [
            &["get", kinds, "--output=wide", &namespace][..],
            &["get", "events", "--sort-by=.lastTimestamp", &namespace],
            &["describe", "pods", &namespace],
            &["logs", "statefulset/mainstay-hub", "--tail=40", &namespace],
            &[
                "logs",
                "deployment/mainstay-operator",
                "--tail=40",
                OPERATOR,
            ],
        ] {
            let output = self.cluster.kubectl(arguments, "");
            text += &format!(
                "--- kubectl {}\n{}{}\n",
                arguments.join(" "),
                output.stdout,
                output.stderr
            );
        }
        text
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
            if std::env::var_os("MAINSTAY_TEST_KEEP").is_some() {
                return;
            }
        }
        // It goes while the next test begins.
        let arguments = ["delete", "workspace", &self.name, "--wait=false"];
        let _ = self.cluster.kubectl(&arguments, "");
    }
}
