//! The demo's directory, its manifests, and the `mainstay up` that runs them.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::place::absolute;

const TERM: i32 = 15;
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Which registry and tool the server is started for, as its instance is named.
const SERVER: &str = "desk-machine-0";

/// The demo's own fleet.
pub(super) struct Fleet {
    dir: PathBuf,
    pub(super) state: PathBuf,
    program: PathBuf,
    keeper: Option<Child>,
}

impl Fleet {
    /// Writes the manifests into a fresh directory that stays; the state is there, too, unless
    /// somebody says where.
    pub(super) fn prepare(state: Option<&Path>) -> Result<Self, Failure> {
        let state = state.map(unused).transpose()?;
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Failed, "failed to prepare the demo's directory").because(error)
        };
        let program = std::env::current_exe().map_err(failed)?;
        let dir =
            std::env::temp_dir().join(format!("mainstay-demo-{}", uuid::Uuid::now_v7().simple()));
        // Made by us or not at all: names in a shared directory can be guessed.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(failed)?;
        // As root agents have users of their own, who must get through to what is theirs.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
        let fleet = Self {
            state: state.unwrap_or_else(|| dir.join("state")),
            dir,
            program,
            keeper: None,
        };
        std::fs::create_dir(fleet.manifests()).map_err(failed)?;
        let quoted = serde_json::Value::from(fleet.program.display().to_string()).to_string();
        let manifest = include_str!("fleet.yaml").replace("PROGRAM", &quoted);
        std::fs::write(fleet.manifests().join("fleet.yaml"), manifest).map_err(failed)?;
        std::fs::write(
            fleet.manifests().join("script.yaml"),
            include_str!("script.yaml"),
        )
        .map_err(failed)?;
        Ok(fleet)
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.dir.join("fleet")
    }

    /// What `save_report` wrote.
    pub(super) fn reports(&self) -> PathBuf {
        self.state
            .join("run/home")
            .join(SERVER)
            .join("home/reports.txt")
    }

    fn keeper_log(&self) -> PathBuf {
        self.dir.join("up.log")
    }

    /// Starts `mainstay up` and returns its ready link.
    pub(super) fn start(&mut self) -> Result<String, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Failed, "failed to start `mainstay up`").because(error)
        };
        let errors = std::fs::File::create(self.keeper_log()).map_err(failed)?;
        let mut keeper = Command::new(&self.program)
            .arg("up")
            .arg(self.manifests())
            .arg("--state")
            .arg(&self.state)
            .args(["--listen", "127.0.0.1:0"])
            .env_remove("MAINSTAY_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        let output = keeper.stdout.take();
        self.keeper = Some(keeper);
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(failed)?;
        }
        match line.trim().strip_prefix("ready: ") {
            Some(link) => Ok(link.to_owned()),
            None => Err(self.failed("`mainstay up` did not get ready")),
        }
    }

    /// Ends it in good order.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut keeper) = self.keeper.take() else {
            return Ok(());
        };
        let ended = sandbox::process::open(keeper.id()).and_then(|pidfd| {
            sandbox::process::signal(pidfd.as_fd(), TERM)?;
            sandbox::process::wait_ended(pidfd.as_fd(), ENDS_WITHIN)
        });
        match ended {
            Ok(true) => keeper
                .wait()
                .map(drop)
                .map_err(|error| self.failed("`mainstay up` is gone").because(error)),
            _ => {
                self.keeper = Some(keeper);
                Err(self.failed("`mainstay up` does not end"))
            }
        }
    }

    /// A failure that says where more can be read.
    pub(super) fn failed(&self, message: &str) -> Failure {
        Failure::new(Exit::Failed, message)
            .with_hint(format!("see {}", self.keeper_log().display()))
    }
}

/// A directory that holds nothing yet. A state in use would get the demo's fleet instead of its own.
fn unused(state: &Path) -> Result<PathBuf, Failure> {
    let state = absolute(state)?;
    let shown = state.display();
    match std::fs::read_dir(&state).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(state),
        Ok(false) => Err(Failure::usage(format!(
            "{shown} is not empty, and the demo needs a state of its own"
        ))
        .with_hint("give --state a new directory, or leave it and MAINSTAY_STATE out")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(state),
        Err(error) => Err(Failure::usage(format!("{shown} can't hold a state")).because(error)),
    }
}

impl Drop for Fleet {
    /// Whatever went wrong, nothing of the demo goes on running.
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let pidfd = sandbox::process::open(keeper.id());
            if let Ok(pidfd) = pidfd {
                let _gone = sandbox::process::signal(pidfd.as_fd(), TERM);
                let _ended = sandbox::process::wait_ended(pidfd.as_fd(), ENDS_WITHIN);
            }
            let _ended = keeper.kill();
            let _reaped = keeper.wait();
        }
    }
}
