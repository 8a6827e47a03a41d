//! LiteLLM's proxy beside the gateway: the same provider behind it, one worker, its own access key.
//!
//! It runs on loopback without its price map's download, update checks or telemetry, and without a
//! database: it forwards and counts in memory, where the gateway also journals.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::http::Request;
use testkit::{Provider, until};

use crate::peers::{Running, find};

/// It imports for half a minute on a small machine.
const BOUND: Duration = Duration::from_secs(180);

/// A running proxy. It is ended with `stop`.
pub(crate) struct Proxy {
    running: Running,
    _folder: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) version: String,
}

impl Proxy {
    /// What it asks of callers.
    pub(crate) const KEY: &str = "sk-measured-on-loopback-only-0123456789";

    /// Starts it in front of the provider; says why not where it doesn't install or start.
    pub(crate) fn start(provider: &Provider) -> Result<Self, &'static str> {
        let program = find("litellm").ok_or("not installed here")?;
        let folder = tempfile::tempdir().unwrap();
        let config = configuration(folder.path(), provider);
        let port = free_port();
        let child = command(&program, folder.path(), &config, port).spawn();
        let mut running = Running::of(child.map_err(|_| "did not start here")?);
        let started = Instant::now();
        let answer = until("the proxy to answer or end", BOUND * 2, || {
            if running.has_ended() || started.elapsed() > BOUND {
                return Some(None);
            }
            ask(port).map(Some)
        });
        let Some(version) = answer else {
            running.stop();
            return Err("did not start here");
        };
        Ok(Self {
            running,
            _folder: folder,
            port,
            version,
        })
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.running.stop();
    }
}

fn configuration(folder: &Path, provider: &Provider) -> PathBuf {
    let model = json!({
        "model_name": "fake-1",
        "litellm_params": {"model": "openai/fake-1", "api_base": provider.openai_url(), "api_key": "none"},
    });
    let path = folder.join("litellm.yaml");
    // JSON is YAML.
    std::fs::write(&path, json!({"model_list": [model]}).to_string()).unwrap();
    path
}

fn command(program: &Path, home: &Path, config: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--num_workers", "1", "--telemetry", "False"]);
    command.env_clear().env("HOME", home).current_dir(home);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("LITELLM_MASTER_KEY", Proxy::KEY);
    // Nothing may leave the machine: no price map, no catalogues, no reports.
    command.env("LITELLM_OFFLINE_MODE", "true");
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    command.env("LITELLM_TELEMETRY", "False");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// One call through it; its version when it was answered.
fn ask(port: u16) -> Option<String> {
    let body = json!({"model": "fake-1", "messages": [{"role": "user", "content": "first"}]});
    let request = Request::new("POST", port, "/v1/chat/completions")
        .header("authorization", &format!("Bearer {}", Proxy::KEY))
        .json(&body);
    let answer = request.send().ok().filter(|answer| answer.status == 200)?;
    Some(
        answer
            .header("x-litellm-version")
            .unwrap_or("of an unknown version")
            .to_owned(),
    )
}

/// Free a moment ago, which is enough on a machine that measures.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
