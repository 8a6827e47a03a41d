//! The hub's process: started again at once when it dies, given what it needs through its link.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::Versions;
use contract::keeper::{GenerationRef, ToHub, ToKeeper};
use sandbox::process::Ended;
use sandbox::spawn::{Launch, Start};

use crate::link::Link;
use crate::state::State;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// Deaths with a telling exit code, before any hub was ready, after which `up` gives up.
const TELLING_DEATHS: u32 = 3;
/// Deaths of any kind before any hub was ready, after which `up` gives up.
const SILENT_DEATHS: u32 = 10;
/// Deaths in a row with the same telling exit code after which a hub that was ready once rests.
const SAME_DEATHS: u32 = 10;
/// How long it does: agents work on, and a person has something to repair.
const REST: Duration = Duration::from_secs(60);

/// How the hub is started.
#[derive(Clone, Debug)]
pub struct HubCommand {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Its whole environment; credentials by `{env: NAME}` are among it.
    pub environment: Vec<(String, String)>,
}

/// A hub process that runs.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) link: Link,
    /// Said hello, and named this generation.
    #[allow(clippy::option_option, reason = "no hello yet is not no generation")]
    pub(crate) current: Option<Option<GenerationRef>>,
}

#[derive(Debug)]
pub(crate) struct Hub {
    command: HubCommand,
    pub(crate) process: Option<Process>,
    pub(crate) start_at: Option<Instant>,
    ever_ready: bool,
    deaths: u32,
    telling_deaths: u32,
    /// The last telling exit code, and how often in a row it came.
    same_deaths: (i32, u32),
    /// Since when no ready hub is there.
    pub(crate) not_ready_since: Option<Instant>,
}

/// What follows from a hub's death.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AfterDeath {
    Restart,
    /// It was ready once, and can't start for a reason that stays: it is tried once a minute.
    Rest,
    /// It can't start: `up` ends with this code.
    GiveUp(i32),
}

impl Hub {
    pub(crate) fn new(command: HubCommand) -> Self {
        Self {
            command,
            process: None,
            start_at: Some(Instant::now()),
            ever_ready: false,
            deaths: 0,
            telling_deaths: 0,
            same_deaths: (0, 0),
            not_ready_since: Some(Instant::now()),
        }
    }

    pub(crate) fn link_fd(&self) -> Option<RawFd> {
        self.process
            .as_ref()
            .map(|process| process.link.as_fd().as_raw_fd())
    }

    /// Whether it is past its hello, and the generation it named.
    pub(crate) fn current(&self) -> Option<&Option<GenerationRef>> {
        self.process.as_ref()?.current.as_ref()
    }

    /// Starts the process and says hello with the state key.
    pub(crate) fn start(
        &mut self,
        state: &State,
        key: &[u8],
        isolation: &str,
        workspace: &str,
    ) -> io::Result<()> {
        self.start_at = None;
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let launch = launch(&self.command, state)?;
        let environment: Vec<CString> = self
            .command
            .environment
            .iter()
            .map(|(name, value)| Ok(CString::new(format!("{name}={value}"))?))
            .collect::<io::Result<_>>()?;
        let null = std::fs::File::open("/dev/null")?;
        let out = std::fs::File::options().write(true).open("/dev/null")?;
        let (errors, theirs_fd) = (rustix::stdio::stderr(), theirs.as_fd());
        let descriptors = [null.as_fd(), out.as_fd(), errors, theirs_fd];
        let start = Start {
            environment: &environment,
            descriptors: &descriptors,
        };
        let spawned = sandbox::spawn::spawn(&launch, &start).map_err(io::Error::other)?;
        state
            .write_process("hub.pid", spawned.pid)
            .map_err(io::Error::other)?;
        let mut link = Link::new(ours);
        let hello = ToHub::Hello {
            versions: Versions::OURS,
            boot_id: state.boot_id.clone(),
            state_dir: state.root.display().to_string(),
            isolation: isolation.to_owned(),
            workspace: workspace.to_owned(),
        };
        let key = sandbox::descriptors::sealed_memfd("state-key", key)?;
        link.send(&hello, vec![key]).map_err(io::Error::other)?;
        self.process = Some(Process {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            link,
            current: None,
        });
        Ok(())
    }

    /// Sends a message if a hub runs; one that doesn't take it is ended.
    pub(crate) fn send(&mut self, message: &ToHub, descriptors: Vec<OwnedFd>) {
        let Some(process) = &mut self.process else {
            return;
        };
        if let Err(error) = process.link.send(message, descriptors) {
            tracing::warn!(%error, "hub doesn't take messages and is ended");
            self.kill();
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(process) = &self.process {
            let _gone = sandbox::process::signal(process.pidfd.as_fd(), KILL);
        }
    }

    /// Reads what has arrived. A hub that breaks the protocol is killed.
    pub(crate) fn receive(&mut self) -> Vec<ToKeeper> {
        let Some(process) = &mut self.process else {
            return Vec::new();
        };
        let filled = process.link.fill();
        let mut messages = Vec::new();
        let broken = loop {
            match process.link.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break filled.is_err(),
                Err(error) => {
                    tracing::warn!(%error, "hub breaks the protocol and is ended");
                    break true;
                }
            }
        };
        if broken {
            self.kill();
        }
        messages
    }

    pub(crate) fn became_ready(&mut self) {
        self.ever_ready = true;
        self.deaths = 0;
        self.same_deaths = (0, 0);
        self.not_ready_since = None;
    }

    /// Its process has ended: when does the next start, if at all?
    pub(crate) fn died(&mut self, ended: Ended) -> AfterDeath {
        self.process = None;
        let now = Instant::now();
        self.not_ready_since.get_or_insert(now);
        let delay = match self.deaths {
            0 => Duration::ZERO,
            n => BACKOFF_MOST.min(BACKOFF_FIRST * 2u32.pow((n - 1).min(10))),
        };
        self.deaths += 1;
        self.start_at = Some(now + delay);
        let telling = match ended {
            Ended::Code(code) if (1..=6).contains(&code) => Some(code),
            _ => None,
        };
        self.same_deaths = match (telling, self.same_deaths) {
            (Some(code), (last, count)) if code == last => (code, count + 1),
            (code, _) => (code.unwrap_or(0), u32::from(code.is_some())),
        };
        if self.ever_ready {
            if self.same_deaths.1 < SAME_DEATHS {
                return AfterDeath::Restart;
            }
            self.start_at = Some(now + REST);
            return AfterDeath::Rest;
        }
        self.telling_deaths += u32::from(telling.is_some());
        match telling {
            Some(code) if self.telling_deaths >= TELLING_DEATHS => AfterDeath::GiveUp(code),
            _ if self.deaths >= SILENT_DEATHS => AfterDeath::GiveUp(1),
            _ => AfterDeath::Restart,
        }
    }
}

const KILL: i32 = 9;

/// How a process ended, to stand behind "ended".
pub(crate) fn words(ended: Ended) -> String {
    let name = match ended {
        Ended::Code(code) => return format!("with exit code {code}"),
        Ended::Signal(signal) => match signal {
            2 => "SIGINT",
            6 => "SIGABRT",
            7 => "SIGBUS",
            9 => "SIGKILL",
            11 => "SIGSEGV",
            15 => "SIGTERM",
            31 => "SIGSYS",
            other => return format!("by signal {other}"),
        },
    };
    format!("by {name}")
}

fn launch(command: &HubCommand, state: &State) -> io::Result<Launch> {
    let text = |path: &Path| -> io::Result<CString> {
        use std::os::unix::ffi::OsStrExt;
        Ok(CString::new(path.as_os_str().as_bytes())?)
    };
    let user = state
        .users
        .separate
        .then_some((state.users.hub, state.users.hub));
    let mounts = user.map_or(Ok(None), |user| view(command, state, user))?;
    let mut arguments = vec![text(&command.program)?];
    for argument in &command.arguments {
        arguments.push(CString::new(argument.as_str())?);
    }
    Ok(Launch {
        programs: vec![text(&command.program)?],
        arguments,
        current_dir: text(&state.root)?,
        user,
        ruleset: None,
        mounts,
        no_new_privileges: true,
        umask: 0o077,
    })
}

/// What the hub's user has to reach although root's own directories may be above it.
fn view(command: &HubCommand, state: &State, user: (u32, u32)) -> io::Result<Option<OwnedFd>> {
    let wanted = [state.root.clone(), command.program.clone()];
    sandbox::reach::view(&wanted, user).map_err(|error| {
        let closed = wanted.iter().find_map(|path| sandbox::reach::first_closed(path, user));
        let closed = closed.unwrap_or_default();
        let closed = closed.display();
        io::Error::other(format!(
            "the hub's user {} can't enter {closed}, and the kernel refuses a view in which it can ({error}): keep the state and this program outside of it, or open it (chmod o+x {closed})",
            user.0
        ))
    })
}

/// Waits for a hub that an earlier keeper left: it sees its link's end, commits and exits.
pub(crate) fn wait_for_old(state: &State, patience: Duration) -> io::Result<()> {
    let Some(old) = state.living_process("hub.pid") else {
        return Ok(());
    };
    let Ok(pidfd) = sandbox::process::open_identity(old) else {
        return Ok(());
    };
    if !sandbox::process::wait_ended(pidfd.as_fd(), patience)? {
        tracing::warn!(
            pid = old.pid,
            "the hub of an earlier keeper doesn't end and is killed"
        );
        sandbox::process::signal(pidfd.as_fd(), KILL)?;
        sandbox::process::wait_ended(pidfd.as_fd(), patience)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Hub {
        Hub::new(HubCommand {
            program: PathBuf::from("/bin/false"),
            arguments: Vec::new(),
            environment: Vec::new(),
        })
    }

    #[test]
    fn a_hub_that_says_why_it_cannot_start_is_believed_the_third_time() {
        let mut hub = hub();
        assert_eq!(hub.died(Ended::Code(3)), AfterDeath::Restart);
        assert_eq!(hub.died(Ended::Code(3)), AfterDeath::Restart);
        assert_eq!(hub.died(Ended::Code(3)), AfterDeath::GiveUp(3));
    }

    #[test]
    fn a_hub_that_was_ready_once_and_always_says_the_same_is_tried_once_a_minute() {
        let mut hub = hub();
        hub.became_ready();
        for _ in 1..SAME_DEATHS {
            assert_eq!(hub.died(Ended::Code(1)), AfterDeath::Restart);
        }
        assert_eq!(hub.died(Ended::Code(1)), AfterDeath::Rest);
        assert!(hub.start_at.unwrap() > Instant::now() + REST / 2);
        hub.became_ready();
        assert_eq!(hub.died(Ended::Code(1)), AfterDeath::Restart);
    }

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(words(Ended::Code(1)), "with exit code 1");
        assert_eq!(words(Ended::Signal(9)), "by SIGKILL");
        assert_eq!(words(Ended::Signal(40)), "by signal 40");
    }

    #[test]
    fn a_hub_that_was_ready_once_is_always_started_again() {
        let mut hub = hub();
        hub.became_ready();
        for n in 0..50 {
            let ended = [Ended::Signal(9), Ended::Code(3), Ended::Code(1)][n % 3];
            assert_eq!(hub.died(ended), AfterDeath::Restart);
        }
        let wait = hub
            .start_at
            .unwrap()
            .saturating_duration_since(Instant::now());
        assert!(wait <= BACKOFF_MOST && wait > BACKOFF_MOST / 2);
    }
}
