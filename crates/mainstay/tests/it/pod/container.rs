//! `mainstay shim` as the first process of a container that is none, and what a hub sees of it.
//!
//! Alone it is a process of this machine; as root it can also be the first one of a pid namespace,
//! with the user and the missing rights of a restricted pod.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use contract::Versions;
use contract::pod::{CA_FILE, PROGRAM, Pod, Purpose, TOKEN_FILE, Target, ToPod, below};
use contract::shim::{Attempt, Exit, Fact, FromShim, Role, Running, ServiceToken, ToShim};
use testkit::pod_door::{Caller, PodDoor};

use crate::house::SOON;

const USER: u32 = 65532;

pub struct Container {
    pub door: PodDoor,
    directory: tempfile::TempDir,
    probes: SocketAddr,
    child: Child,
    /// The supervisor's pid as this machine sees it.
    pub supervisor: u32,
}

/// How the container is started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum As {
    Process,
    /// The first of its namespace, and nobody.
    First,
}

impl Container {
    pub fn start(how: As, pod: serde_json::Value) -> Self {
        let door = PodDoor::open();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (path, text) in [(CA_FILE, &*door.certificate), (TOKEN_FILE, "token\n")] {
            let path = below(root, path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(root.join("termination"), "").unwrap();
        let program = below(root, PROGRAM);
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        let copied = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(["shim", "--copy-to"])
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        let probes = own_address();
        let pod = complete(pod, door.address);
        let file = |name: &str| std::fs::File::create(root.join(name)).unwrap();
        let child = command(how, root, &program)
            .args(["shim", "--root"])
            .arg(root)
            .args(["--probes", &probes.to_string(), "--termination-log"])
            .arg(root.join("termination"))
            .env("MAINSTAY_POD", serde_json::to_string(&pod).unwrap())
            .env("POD_NAME", "echo-x")
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        let supervisor = match how {
            As::Process => child.id(),
            As::First => testkit::until("the first process", SOON, || {
                children(child.id()).first().copied()
            }),
        };
        Self {
            door,
            directory,
            probes,
            child,
            supervisor,
        }
    }

    pub fn said(&self, stream: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(stream)).unwrap()
    }

    pub fn relay(&self) -> Option<u32> {
        self.started("mainstay-relay\n")
    }

    pub fn shim(&self) -> Option<u32> {
        self.started("mainstay-shim\n")
    }

    /// What the supervisor started, by its name.
    fn started(&self, wanted: &str) -> Option<u32> {
        let started = children(self.supervisor).into_iter();
        let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
        let mut started = started.filter(|pid| name(pid).is_ok_and(|name| name == wanted));
        started.next()
    }

    /// What the shim started, as this machine numbers it.
    pub fn agent(&self) -> Option<u32> {
        children(self.shim()?).first().copied()
    }

    /// Links a hub to the shim. One that has just been killed breaks the link, and the next is tried.
    pub fn hub(&mut self) -> Hub {
        testkit::until("a link to the shim", SOON, || self.try_hub())
    }

    fn try_hub(&mut self) -> Option<Hub> {
        let mut caller = self.door.next(Purpose::Offer);
        caller.welcome();
        caller.send(&ToPod::Open {
            target: Target::Shim,
        });
        caller.send(&ToShim::Hello {
            versions: Versions::OURS,
            role: Role::Hub,
        });
        match caller.try_hear().ok()? {
            FromShim::Hello {
                instance, running, ..
            } => Some(Hub {
                caller,
                instance,
                running,
            }),
            other => panic!("no hello: {other:?}"),
        }
    }

    /// What the kubelet is told.
    pub fn ask(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.probes).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A signal to the first process.
    pub fn signal(&self, signal: rustix::process::Signal) {
        kill(self.supervisor, signal);
    }

    /// Waits for the end; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let ended = testkit::until("the container ends", SOON, || {
            self.child.try_wait().unwrap()
        });
        ended.code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            kill(self.supervisor, rustix::process::Signal::TERM);
            let _ended = self.child.wait();
        }
    }
}

/// A hub's link to the shim.
pub struct Hub {
    caller: Caller,
    pub instance: String,
    pub running: Vec<Running>,
}

impl Hub {
    pub fn send(&mut self, message: &ToShim) {
        self.caller.send(message);
    }

    pub fn assign(&mut self, attempts: std::ops::RangeInclusive<u32>) {
        let attempts = attempts.map(|number| Attempt {
            number,
            token: format!("token-{number}"),
            stdin: format!("input {number}"),
            env: [("MAINSTAY_TASK_ID".to_owned(), "t".to_owned())].into(),
        });
        self.send(&ToShim::Assign {
            task: "t".to_owned(),
            // A pod has never heard of it.
            generation: 7,
            attempts: attempts.collect(),
            hold_restart: false,
        });
    }

    /// The next fact and its time, acknowledged.
    pub fn fact(&mut self) -> (u64, Fact) {
        loop {
            if let FromShim::Record {
                record,
                at_ms,
                fact,
            } = self.caller.hear()
            {
                self.send(&ToShim::Acknowledge { record });
                return (at_ms, fact);
            }
        }
    }

    /// Tokens for a service's processes, by a generation that a pod has never heard of.
    pub fn tokens(&mut self, incarnations: std::ops::RangeInclusive<u32>) {
        let tokens = incarnations.map(|incarnation| ServiceToken {
            incarnation,
            token: format!("token-{incarnation}"),
            env: [].into(),
        });
        self.send(&ToShim::ServiceTokens {
            generation: 9,
            tokens: tokens.collect(),
        });
    }

    #[track_caller]
    pub fn started(&mut self, number: u32) -> u64 {
        match self.fact() {
            (at_ms, Fact::AttemptStarted { attempt, .. }) if attempt == number => at_ms,
            other => panic!("attempt {number} should have started: {other:?}"),
        }
    }

    #[track_caller]
    pub fn ended(&mut self, number: u32) -> (u64, Exit) {
        match self.fact() {
            (at_ms, Fact::AttemptEnded { attempt, exit, .. }) if attempt == number => (at_ms, exit),
            other => panic!("attempt {number} should have ended: {other:?}"),
        }
    }
}

/// Whether this test may start the first process of a namespace as somebody else.
pub fn can_be_first() -> bool {
    let mut command = namespace();
    let tried = command.arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "setpriv"]);
    command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string()]);
    command.args([
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
    ]);
    command
}

fn command(how: As, root: &Path, program: &Path) -> Command {
    match how {
        As::Process => Command::new(program),
        As::First => {
            for path in walk(root) {
                std::os::unix::fs::lchown(path, Some(USER), Some(USER)).unwrap();
            }
            let mut command = namespace();
            command.arg(program);
            command
        }
    }
}

fn walk(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path()));
        next += 1;
    }
    all
}

fn complete(mut pod: serde_json::Value, hub: SocketAddr) -> Pod {
    for (name, value) in [
        ("workspace", "w".into()),
        ("owner", "echo".into()),
        ("graceMs", 5000.into()),
        ("hub", hub.to_string().into()),
        ("template", "sha-1".into()),
        ("env", serde_json::json!({})),
    ] {
        let fields = pod.as_object_mut().unwrap();
        fields.entry(name).or_insert(value);
    }
    serde_json::from_value(pod).unwrap()
}

/// Loopback is large: an address of this test's own, with the port that pods have.
fn own_address() -> SocketAddr {
    static COUNT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    SocketAddr::from(([127, high.max(1), low, own], contract::pod::PROBE_PORT))
}

pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split(' ')
        .filter_map(|pid| pid.trim().parse().ok())
        .collect()
}

pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

pub fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let _gone = rustix::process::kill_process(pid, signal);
}

/// How soon something in a pod should be back.
pub const AT_ONCE: Duration = Duration::from_secs(3);

/// A memory cgroup of a test's own, as a container has one; of version 1, where the test machine
/// has that.
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    pub fn of_64_mib() -> Option<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups
            .lines()
            .find_map(|line| line.split_once(":memory:"))?
            .1;
        let parent = PathBuf::from(format!("/sys/fs/cgroup/memory{own}"));
        let group = parent.join(format!("mainstay-test-{}", std::process::id()));
        std::fs::create_dir(&group).ok()?;
        let made = Self(group);
        std::fs::write(made.0.join("memory.limit_in_bytes"), "64M").ok()?;
        Some(made)
    }

    pub fn take(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _in_use_until_the_container_ends = std::fs::remove_dir(&self.0);
    }
}
