//! A keeper under test in a directory of its own, and the hub's side of its shims' sockets.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use contract::Versions;
use contract::frame::{Decoder, encode};
use contract::keeper::{Instance, ToHub, ToKeeper};
use contract::shim::{Exit, Fact, FromShim, Role, Running, ServiceState, ToShim};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn exec_agent(name: &str, script: &str) -> String {
    agent(name, script, "exec: {command: [sh, -c, SCRIPT]}")
}

pub(crate) fn service_agent(name: &str, script: &str) -> String {
    agent(name, script, "service: {command: [sh, -c, SCRIPT]}")
}

fn agent(name: &str, script: &str, runtime: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    let runtime = runtime.replace("SCRIPT", &script);
    format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec: {{restart: {{grace: 2s}}, runtime: {{{runtime}}}}}\n"
    )
}

pub(crate) fn with_stdio_server(script: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: ToolRegistry\nmetadata: {{name: desk}}\nspec: {{tools: [{{name: files, mcp: {{command: [sh, -c, {script}]}}}}]}}\n---\n{}",
        exec_agent("a", "exit 0").replace("spec: {", "spec: {tools: [desk/files], ")
    )
}

/// Waits until something is so, within reason.
pub(crate) fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn is_alive(pid: u32) -> bool {
    sandbox::process::identity(pid).is_some()
}

pub(crate) fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Who to run as: this user, and an ordinary one if this is root.
pub(crate) fn users() -> Vec<Option<u32>> {
    if rustix::process::geteuid().is_root() {
        vec![None, Some(65_534)]
    } else {
        vec![Some(rustix::process::geteuid().as_raw())]
    }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/keeper_up")
}

/// Puts the program where any user may run it: built files often lie below a home that only its
/// owner may enter. Another process writes the copy, so that no fork of a neighbouring test can
/// hold it open for writing while it is started.
fn copy_program(directory: &Path) -> PathBuf {
    let copy = directory.join("keeper_up");
    let copied = Command::new("cp").arg(program()).arg(&copy).status();
    assert!(copied.unwrap().success(), "copying the program");
    copy
}

pub(crate) struct Fleet {
    directory: tempfile::TempDir,
    keeper: Option<Child>,
    pub(crate) address: String,
    uid: Option<u32>,
    program: PathBuf,
}

impl Fleet {
    pub(crate) fn up(manifest: &str) -> Self {
        Self::up_as(manifest, None)
    }

    pub(crate) fn up_as(manifest: &str, uid: Option<u32>) -> Self {
        let mut fleet = Self {
            directory: tempfile::tempdir().unwrap(),
            keeper: None,
            address: "127.0.0.1:0".to_owned(),
            uid,
            program: program(),
        };
        if uid.is_some() {
            std::os::unix::fs::chown(fleet.directory(), uid, uid).unwrap();
            fleet.program = copy_program(fleet.directory());
        }
        fleet.write("fleet.yaml", manifest);
        fleet.start();
        fleet
    }

    pub(crate) fn start(&mut self) {
        let errors = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.directory().join("errors"))
            .unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg("up")
            .arg(self.state())
            .arg(&self.address)
            .arg(self.directory().join("fleet.yaml"));
        command
            .stdout(Stdio::piped())
            .stderr(errors)
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.keeper = Some(child);
        let address = line.split_whitespace().nth(1);
        self.address = address
            .unwrap_or_else(|| panic!("not ready: {}", self.errors()))
            .to_owned();
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory().canonicalize().unwrap().join("state")
    }

    /// The user of this state's first agent.
    pub(crate) fn first_agent(&self) -> u64 {
        let text = std::fs::read(self.state().join("users.json")).unwrap();
        let block: serde_json::Value = serde_json::from_slice(&text).unwrap();
        block["base"].as_u64().unwrap() + 100
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.directory().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::rename(new, self.directory().join(name)).unwrap();
    }

    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.directory().join("errors")).unwrap_or_default()
    }

    pub(crate) fn keeper_pid(&self) -> u32 {
        self.keeper.as_ref().unwrap().id()
    }

    /// The processes that this keeper started, all generations.
    pub(crate) fn family(&self) -> Vec<u32> {
        let family = sandbox::tree::descendants(self.keeper_pid());
        family.into_iter().map(|stat| stat.identity.pid).collect()
    }

    /// Kills one of this fleet's processes.
    pub(crate) fn kill(&self, pid: u32) {
        let process = sandbox::process::identity(pid).unwrap();
        sandbox::process::signal_identity(process, 9);
    }

    pub(crate) fn kill_keeper(&mut self) {
        let mut child = self.keeper.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn terminate(&mut self, signal: i32) -> Option<i32> {
        let mut child = self.keeper.take().unwrap();
        sandbox::process::signal_identity(sandbox::process::identity(child.id()).unwrap(), signal);
        child.wait().unwrap().code()
    }

    /// Another keeper over the same manifests: how it ends and what it says.
    pub(crate) fn another(&self, state: &Path, listen: &str) -> (Option<i32>, String) {
        let output = Command::new(program())
            .arg("up")
            .arg(state)
            .arg(listen)
            .arg(self.directory().join("fleet.yaml"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    pub(crate) fn instances(&self) -> Vec<Instance> {
        let text = std::fs::read(self.state().join("system/instances.json"));
        text.ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// The instance, once the hub was told of it and its shim lives.
    pub(crate) fn instance(&self, name: &str) -> Instance {
        wait_for(name, || {
            self.instances()
                .into_iter()
                .find(|instance| instance.name == name && is_alive(instance.shim_pid))
        })
    }

    pub(crate) fn hub(&self, instance: &str) -> Hub {
        Hub::connect(&self.instance(instance).socket, Role::Hub)
    }

    /// Connects as a client: the pid of the hub that serves it.
    pub(crate) fn client(&self) -> u32 {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim()
            .strip_prefix("hub ")
            .unwrap_or_else(|| panic!("{line}"))
            .parse()
            .unwrap()
    }

    /// Has the hub send something.
    pub(crate) fn tell(&self, message: &ToKeeper) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        writeln!(stream, "send {}", serde_json::to_string(message).unwrap()).unwrap();
        // Closed with its greeting unread, the connection would be reset, and the line with it.
        BufReader::new(stream)
            .read_line(&mut String::new())
            .unwrap();
    }

    /// Has the hub send something; waits for its `Applied`: problems, summary, generation.
    pub(crate) fn ask(
        &self,
        message: &ToKeeper,
        number: u64,
    ) -> (Vec<String>, Vec<String>, Option<u64>) {
        self.tell(message);
        wait_for("the keeper's answer", || {
            let text = std::fs::read_to_string(self.state().join("system/applied.jsonl")).ok()?;
            text.lines()
                .find_map(|line| match serde_json::from_str(line).ok()? {
                    ToHub::Applied {
                        request,
                        problems,
                        summary,
                        generation,
                    } if request == number => Some((problems, summary, generation)),
                    _ => None,
                })
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(child) = &mut self.keeper {
            if let Some(process) = sandbox::process::identity(child.id()) {
                sandbox::process::signal_identity(process, 15);
                sandbox::process::signal_identity(process, 15);
            }
            let deadline = Instant::now() + PATIENCE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("what the keeper said:\n{}", self.errors());
        }
    }
}

pub(crate) fn up_with_broken_hub(code: i32) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(program())
        .arg("up")
        .arg(directory.path().join("state"))
        .arg("127.0.0.1:0")
        .env("STAND_IN_EXIT", code.to_string())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// The hub's end of a shim's socket.
pub(crate) struct Hub {
    stream: UnixStream,
    decoder: Decoder,
    hello: FromShim,
    records: Vec<(u64, Fact)>,
    /// Passed over while a message of another kind was waited for.
    passed: VecDeque<FromShim>,
}

impl Hub {
    pub(crate) fn connect(socket: &str, role: Role) -> Self {
        let stream = wait_for("the shim", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hub = Self {
            stream,
            decoder: Decoder::default(),
            hello: FromShim::Listener,
            records: Vec::new(),
            passed: VecDeque::new(),
        };
        hub.send(&ToShim::Hello {
            versions: Versions::OURS,
            role,
        });
        hub.hello = hub.next();
        assert!(matches!(hub.hello, FromShim::Hello { .. }));
        hub
    }

    pub(crate) fn hello(&self) -> FromShim {
        self.hello.clone()
    }

    pub(crate) fn send(&mut self, message: &ToShim) {
        self.stream.write_all(&encode(message).unwrap()).unwrap();
    }

    fn next(&mut self) -> FromShim {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return message;
            }
            let mut buffer = [0; 64 * 1024];
            let count = self
                .stream
                .read(&mut buffer)
                .expect("the shim says something");
            assert!(count > 0, "the shim hung up");
            self.decoder.push(&buffer[..count]);
        }
    }

    fn next_of(&mut self, wanted: impl Fn(&FromShim) -> bool) -> FromShim {
        if let Some(at) = self.passed.iter().position(&wanted) {
            return self.passed.remove(at).unwrap();
        }
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
            self.passed.push_back(message);
        }
    }

    /// The next fact of a kind; others before it are passed over.
    pub(crate) fn fact<T>(&mut self, select: impl Fn(&Fact) -> Option<T>) -> T {
        loop {
            let wanted = |message: &FromShim| matches!(message, FromShim::Record { .. });
            if let FromShim::Record { record, fact, .. } = self.next_of(wanted) {
                let selected = select(&fact);
                self.records.push((record, fact));
                if let Some(selected) = selected {
                    return selected;
                }
            }
        }
    }

    /// What is told of the service's process once it is so.
    pub(crate) fn service(&mut self, is_so: impl Fn(&ServiceState) -> bool) -> ServiceState {
        loop {
            let wanted = |message: &FromShim| matches!(message, FromShim::Service { .. });
            if let FromShim::Service { state: Some(state) } = self.next_of(wanted)
                && is_so(&state)
            {
                return state;
            }
        }
    }

    pub(crate) fn started(&mut self, id: &str, number: u32) -> u32 {
        self.fact(|fact| match fact {
            Fact::AttemptStarted { task, attempt, pid } if task == id && *attempt == number => {
                Some(*pid)
            }
            _ => None,
        })
    }

    pub(crate) fn ended(&mut self, id: &str, number: u32) -> (Exit, bool, u64) {
        self.fact(|fact| match fact {
            Fact::AttemptEnded {
                task,
                attempt,
                exit,
                will_restart,
                delay_ms,
            } if task == id && *attempt == number => Some((exit.clone(), *will_restart, *delay_ms)),
            _ => None,
        })
    }

    /// What the newest facts say is running.
    pub(crate) fn running(&self) -> Vec<Running> {
        let last = self.records.iter().rev().find_map(|(_, fact)| match fact {
            Fact::AttemptStarted { task, attempt, pid } => Some(Running {
                task: task.clone(),
                attempt: *attempt,
                pid: *pid,
            }),
            _ => None,
        });
        last.into_iter().collect()
    }

    pub(crate) fn acknowledge_all(&mut self) {
        for (record, _) in std::mem::take(&mut self.records) {
            self.send(&ToShim::Acknowledge { record });
        }
    }

    /// Acknowledges the newest fact.
    pub(crate) fn acknowledge_last(&mut self) {
        let (record, _) = self.records.pop().unwrap();
        self.send(&ToShim::Acknowledge { record });
    }

    pub(crate) fn into_lines(self) -> Lines {
        assert!(self.decoder.into_rest().is_empty());
        Lines {
            reader: BufReader::new(self.stream),
        }
    }
}

/// A bridge after the hellos.
pub(crate) struct Lines {
    reader: BufReader<UnixStream>,
}

impl Lines {
    pub(crate) fn write(&mut self, text: &str) {
        let _hung_up = self.reader.get_mut().write_all(text.as_bytes());
    }

    /// Sends a line and reads one; `None` if the bridge is closed.
    pub(crate) fn ask(&mut self, line: &str) -> Option<String> {
        self.write(&format!("{line}\n"));
        let mut answer = String::new();
        let count = self.reader.read_line(&mut answer).unwrap_or(0);
        (count > 0).then(|| answer.trim_end().to_owned())
    }
}
