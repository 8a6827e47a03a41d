//! kubectl, as the testbed itself uses it: our own build, with a named kubeconfig and without
//! anything of the caller's environment.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::layout::Layout;
use super::process::{plain, quiet};

/// A cluster to talk to.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The cluster of a state.
    pub fn of(layout: &Layout) -> Self {
        Self::with(layout, layout.kubeconfig())
    }

    /// Any cluster.
    pub fn with(layout: &Layout, kubeconfig: PathBuf) -> Self {
        Self {
            program: layout.program("kubernetes"),
            kubeconfig,
        }
    }

    pub fn read(&self, arguments: &[&str]) -> Result<String> {
        let shown = arguments.join(" ");
        quiet(self.command().args(arguments)).with_context(|| format!("kubectl {shown} failed"))
    }

    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.read(&[arguments, &["--output=json"]].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Gives an object, or a List of them, to `kubectl apply` or another command that reads a file.
    pub fn give(&self, arguments: &[&str], document: &Value) -> Result<()> {
        let mut child = plain(self.command().args(arguments).args(["--filename", "-"]))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start kubectl")?;
        if let Some(mut input) = child.stdin.take() {
            // If it ended early, its complaint says more than our broken pipe.
            let _ = input.write_all(&serde_json::to_vec(document)?);
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}", arguments.join(" "), complaint.trim());
        }
        Ok(())
    }

    /// Whether the API server says of itself, or of a part, that it's well.
    pub fn is_healthy(&self, path: &str) -> bool {
        quiet(self.command().args(["get", "--raw", path])).is_ok()
    }

    /// The same of another component, by its port on this machine.
    pub fn is_component_healthy(&self, port: u16) -> bool {
        let server = format!("--server=https://127.0.0.1:{port}");
        let mut command = self.command();
        // Its certificate is signed by itself; it's our process on our loopback.
        command.args([
            &server,
            "--insecure-skip-tls-verify",
            "get",
            "--raw",
            "/healthz",
        ]);
        quiet(&mut command).is_ok()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--request-timeout=20s");
        command
    }
}
