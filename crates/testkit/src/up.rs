//! A real `mainstay up`: started, watched, killed by parts, started again.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::cli::{self, Output};
use crate::http::{Answer, Endpoint, Request};
use crate::processes::{self, AgentProcess};
use crate::{Client, Fleet, until};

/// How long `up` may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// A running fleet.
pub struct Up {
    fleet: Fleet,
    port: u16,
    environment: Vec<(String, String)>,
    keeper: Option<Child>,
    token: Mutex<Option<String>>,
}

impl Up {
    /// Starts `mainstay up` on this fleet and waits until tasks are accepted.
    #[must_use]
    pub fn start(fleet: Fleet) -> Self {
        Self::start_with(fleet, &[])
    }

    /// The same with variables in the keeper's environment (a provider's key, say).
    #[must_use]
    pub fn start_with(fleet: Fleet, environment: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut up = Self {
            fleet,
            port: free_port(),
            environment: environment.iter().map(own).collect(),
            keeper: None,
            token: Mutex::new(None),
        };
        up.restart();
        up
    }

    /// A new `up` on the same state, after the keeper is gone; waits until it is ready.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// A new `up` without waiting for it.
    pub fn spawn(&mut self) {
        assert!(self.keeper.is_none(), "the keeper still runs");
        let log = self.fleet.folder().join("up.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = cli::command(&self.fleet.state());
        command.arg("up").arg(self.fleet.manifests());
        command.arg("--state").arg(self.fleet.state());
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.envs(self.environment.iter().cloned());
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap());
        command.stdout(log);
        self.keeper = Some(command.spawn().unwrap());
    }

    /// Waits until tasks are accepted; shows what `up` said if they never are.
    pub fn wait_ready(&mut self) {
        let deadline = std::time::Instant::now() + READY;
        loop {
            if self.is_ready() {
                return;
            }
            let keeper = self.keeper.as_mut();
            if let Some(status) = keeper.and_then(|keeper| keeper.try_wait().unwrap()) {
                panic!("mainstay up ended ({status}): {}", self.log());
            }
            assert!(
                std::time::Instant::now() < deadline,
                "mainstay up is not ready after {READY:?}: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether `/readyz` says so now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let asked = Request::new("GET", self.port, "/readyz").timeout(Duration::from_secs(2));
        asked.send().is_ok_and(|answer| answer.status == 200)
    }

    /// What `up` printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.fleet.folder().join("up.log")).unwrap_or_default()
    }

    /// The fleet it runs.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The facade's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The keeper's process id.
    #[must_use]
    pub fn keeper_pid(&self) -> i32 {
        let keeper = self.keeper.as_ref().map(Child::id);
        keeper.and_then(|pid| pid.try_into().ok()).unwrap_or(0)
    }

    /// The hub's process id, from `run/hub.pid`.
    #[must_use]
    pub fn hub_pid(&self) -> Option<i32> {
        let path = self.fleet.state().join("run/hub.pid");
        let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
        processes::is_alive(pid).then_some(pid)
    }

    /// The processes of its agents.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentProcess> {
        processes::agents(self.fleet.mark())
    }

    /// SIGKILL to the hub. The keeper starts another; returns the pid that was killed.
    pub fn kill_hub(&self) -> i32 {
        let pid = until("a hub to kill", READY, || self.hub_pid());
        processes::kill(pid);
        until("the hub's death", READY, || {
            (!processes::is_alive(pid)).then_some(())
        });
        pid
    }

    /// SIGKILL to the keeper. Nothing starts another: call [`Up::restart`].
    pub fn kill_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.kill().unwrap();
            keeper.wait().unwrap();
        }
    }

    /// SIGTERM, as a person's Ctrl-C; returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut keeper = self.keeper.take()?;
        processes::terminate(keeper.id().try_into().unwrap());
        cli::wait(&mut keeper, Duration::from_secs(60))
    }

    /// Runs the command line against this state.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        cli::run(&self.fleet.state(), arguments, "")
    }

    /// The owner's token.
    #[must_use]
    pub fn token(&self) -> String {
        let mut token = self.token.lock().unwrap();
        let read = || self.cli(&["token"]).expect_code(0).stdout.trim().to_owned();
        token.get_or_insert_with(read).clone()
    }

    /// The owner as a client of this fleet.
    #[must_use]
    pub fn client(&self) -> Client {
        Client {
            endpoint: Endpoint::loopback(self.port),
            token: self.token(),
        }
    }

    /// A request with the owner's token.
    #[must_use]
    pub fn request(&self, method: &str, path: &str) -> Request {
        self.client().request(method, path)
    }

    /// A GET of the API; fails the test unless it is a 200.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        self.client().get(path)
    }

    /// The same, or nothing while no hub answers.
    #[must_use]
    pub fn try_get(&self, path: &str) -> Option<Value> {
        self.client().try_get(path)
    }

    /// A POST of the API.
    pub fn post(&self, path: &str, body: &Value) -> std::io::Result<Answer> {
        self.request("POST", path).json(body).send()
    }

    /// Submits a task, again and again with the same key until a hub takes it; returns its id.
    #[must_use]
    pub fn submit(&self, agent: &str, input: &str) -> String {
        let key = format!("{}-{input}", self.fleet.mark());
        self.client().submit(agent, input, &key)
    }

    /// The task now, or nothing while no hub answers.
    #[must_use]
    pub fn task(&self, id: &str) -> Option<Value> {
        self.client().task(id)
    }

    /// Its steps now, in order.
    #[must_use]
    pub fn steps(&self, id: &str) -> Vec<Value> {
        self.client().steps(id)
    }

    /// Waits until the task is in one of these states.
    #[must_use]
    pub fn wait_state(&self, id: &str, states: &[&str], bound: Duration) -> Value {
        let reached = self.client().reached(id, states, bound);
        reached.unwrap_or_else(|why| panic!("{why}\n{}", self.tail()))
    }

    /// The last lines of what `up` printed.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let hub = self.hub_pid();
        if self.keeper.is_some() {
            self.stop();
        }
        // What a killed keeper left: its hub, and agents whose shims wait for a new keeper.
        if let Some(hub) = hub.filter(|pid| processes::is_alive(*pid)) {
            processes::kill(hub);
        }
        for shim in processes::ours_on(&self.fleet.state()) {
            for pid in processes::tree(shim) {
                processes::kill(pid);
            }
        }
        for agent in self.agents() {
            processes::kill(agent.pid);
        }
        if std::thread::panicking() {
            eprintln!("--- up.log ---\n{}", self.tail());
        }
    }
}

/// A port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
