//! A place for one test: a directory, a state in it, and perhaps a `mainstay up` that runs it.
//!
//! Everything that a test starts ends with it, by process id.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Generous: two cores, a debug build, tests beside each other.
pub const SOON: Duration = Duration::from_secs(60);

pub struct House {
    dir: tempfile::TempDir,
    keeper: Option<Child>,
    environment: Vec<(String, String)>,
    pub link: String,
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

impl House {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // As root agents have users of their own, who must get through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(dir.path(), open).unwrap();
        Self {
            dir,
            keeper: None,
            environment: Vec::new(),
            link: String::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Every command of this house has this variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The binary, in this house and nowhere else.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        for name in [
            "MAINSTAY_URL",
            "MAINSTAY_TOKEN",
            "MAINSTAY_CONTEXT",
            "XDG_CONFIG_HOME",
            "XDG_STATE_HOME",
        ] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.dir.path())
            .env("MAINSTAY_STATE", self.state())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(arguments).output().unwrap())
    }

    /// With this on standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command may end without reading it.
        let _closed = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ran::of(&child.wait_with_output().unwrap())
    }

    /// Starts `up` and waits until it says that it is ready.
    pub fn up(&mut self, manifests: &[&Path]) {
        self.up_with(&[], manifests);
    }

    /// The same with more options.
    pub fn up_with(&mut self, options: &[&str], manifests: &[&Path]) {
        let paths: Vec<String> = manifests
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let mut arguments = vec!["up", "--listen", "127.0.0.1:0"];
        arguments.extend(options);
        arguments.extend(paths.iter().map(String::as_str));
        let errors = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("up.err"))
            .unwrap();
        let mut command = self.command(&arguments);
        let mut keeper = command
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.keeper = Some(keeper);
        self.link = line
            .trim()
            .strip_prefix("ready: ")
            .unwrap_or_else(|| panic!("{line:?}: {}", self.said()))
            .to_owned();
    }

    /// What `up` wrote to standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.path("up.err")).unwrap_or_default()
    }

    pub fn keeper_pid(&self) -> u32 {
        self.keeper.as_ref().unwrap().id()
    }

    /// Takes over waiting for a keeper that was killed.
    pub fn keeper_is_gone(&mut self) {
        self.keeper.take().unwrap().wait().unwrap();
    }

    pub fn hub_pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.state().join("run/hub.pid")).unwrap();
        text.trim().parse().unwrap()
    }

    /// The process that works for this agent, once there is one other than `not`.
    pub fn agent_pid(&self, agent: &str, not: Option<u32>) -> u32 {
        wait_for(&format!("a process of {agent}"), || {
            let list = self.run(&["get", "instances", "-o", "json"]);
            let list: Value = serde_json::from_str(&list.out).ok()?;
            let mine = list["items"]
                .as_array()?
                .iter()
                .find(|instance| instance["agent"] == agent)?
                .clone();
            let pid = u32::try_from(mine["pid"].as_u64()?).ok()?;
            (Some(pid) != not).then_some(pid)
        })
    }

    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            signal(keeper.id(), "TERM");
            let until = Instant::now() + SOON;
            while keeper.try_wait().unwrap().is_none() {
                assert!(Instant::now() < until, "up does not end: {}", self.said());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            signal(keeper.id(), "TERM");
            let until = Instant::now() + Duration::from_secs(20);
            while keeper.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ended = keeper.kill();
            let _reaped = keeper.wait();
        }
    }
}

/// Sends a signal to one process that the test started, or that its `up` did.
pub fn signal(pid: u32, name: &str) {
    let _gone = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Looks until there is something, within bounds.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}
