//! A real Kubernetes for tests, as `cargo xtask cluster test` hands it over: by kubectl, an image
//! and the address at which pods reach this machine. With it come Mainstay's definitions and
//! operator, installed once as a platform engineer would.
//!
//! A test gets a workspace of its own and removes it. Where no cluster is handed over, a test says
//! in one line that it's left out.

mod operator;
mod pod;
mod workspace;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::cli::{self, Output};

pub use operator::{OPERATOR, Operators};
pub use pod::Pod;
pub use workspace::Workspace;

/// How long what a controller or a kubelet does may take, on a machine that others use as well.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The cluster and what tests need of it.
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// Mainstay's image, which every node has.
    pub image: String,
    /// An image with `/bin/testkit-steps` and nothing of Mainstay.
    pub agent_image: String,
    /// Where pods reach servers of a test.
    pub address: IpAddr,
    /// What takes something from a node, and mends it; only where the cluster is ours to break.
    xtask: Option<PathBuf>,
}

impl Cluster {
    /// The cluster with Mainstay installed, or nothing with a printed reason.
    pub fn find(test: &str) -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Cluster>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let cluster = Self::from_environment()?;
            cluster.install();
            Some(cluster)
        });
        if found.is_none() {
            eprintln!(
                "{test} is left out: MAINSTAY_TEST_CLUSTER is not set (cargo xtask cluster test sets it)"
            );
        }
        found.as_ref()
    }

    fn from_environment() -> Option<Self> {
        let text = |name: &str| std::env::var(format!("MAINSTAY_TEST_{name}"));
        Some(Self {
            kubeconfig: text("CLUSTER").ok()?.into(),
            kubectl: text("KUBECTL").unwrap().into(),
            image: text("IMAGE").unwrap(),
            agent_image: text("AGENT_IMAGE").unwrap(),
            address: text("ADDRESS").unwrap().parse().unwrap(),
            xtask: text("XTASK").ok().map(PathBuf::from),
        })
    }

    /// What `mainstay kubernetes install` does, and waits until the operator is there.
    pub fn install(&self) {
        let install = ["kubernetes", "install", "--yes", "--no-default-workspace"];
        let image = ["--image", &self.image];
        let _ = self
            .mainstay(&[&install[..], &image].concat())
            .expect_code(0);
        self.run(&[
            "rollout",
            "status",
            "deployment/mainstay-operator",
            OPERATOR,
            "--timeout=120s",
        ]);
    }

    /// Whether the cluster is ours to break; says so where it isn't.
    #[must_use]
    pub fn is_ours(&self, test: &str) -> bool {
        if self.xtask.is_none() {
            eprintln!("{test} is left out: the cluster is not ours to break");
        }
        self.xtask.is_some()
    }

    /// Takes something from a node (`power`, `cable`, `kubelet` or `containerd`) or from
    /// `control-plane` (`api-server`), until what is returned is dropped.
    pub fn fail(&self, node: &str, loss: &str) -> Failed<'_> {
        let failed = Failed(self);
        self.xtask(&["fail", node, "--loss", loss]);
        failed
    }

    fn xtask(&self, arguments: &[&str]) {
        let mut command = Command::new(self.xtask.as_ref().unwrap());
        command.arg("cluster").args(arguments);
        command
            .arg("--state")
            .arg(std::env::var_os("MAINSTAY_TEST_STATE").unwrap());
        let _ = cli::finish(command, "", 2 * PATIENCE).expect_code(0);
    }

    /// The program under test as whoever has the kubeconfig, whatever comes of it.
    #[must_use]
    pub fn mainstay(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(cli::program());
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        cli::finish(command, "", 2 * PATIENCE)
    }

    /// kubectl, whatever comes of it.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        cli::finish(command, stdin, 2 * PATIENCE)
    }

    /// Helm, which lies beside the testbed's kubectl, whatever comes of it.
    #[must_use]
    pub fn helm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.kubectl.with_file_name("helm"));
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        cli::finish(command, "", 2 * PATIENCE)
    }

    /// kubectl, which must succeed; returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.kubectl(arguments, "").expect_code(0).stdout
    }

    /// An object or list as JSON, or nothing where there is none.
    #[must_use]
    pub fn get(&self, arguments: &[&str]) -> Option<Value> {
        let arguments = [&["get", "--output=json"], arguments].concat();
        let output = self.kubectl(&arguments, "");
        (output.code == 0).then(|| output.json())
    }

    /// The manifest of the smallest agent: it answers with Mainstay's version and asks nobody.
    /// `more` is a further line of its spec.
    #[must_use]
    pub fn teller(&self, name: &str, more: &str) -> String {
        format!(
            "apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: {name}}}
spec:
  image: {}
  runtime: {{exec: {{command: [/bin/mainstay, --version]}}}}
  {more}
",
            self.image
        )
    }
}

/// What was taken from the cluster is given back when this is dropped.
#[must_use]
pub struct Failed<'a>(&'a Cluster);

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        self.0.xtask(&["up"]);
    }
}

/// An object's condition of that type, once its status has one.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = object["status"]["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)
}
