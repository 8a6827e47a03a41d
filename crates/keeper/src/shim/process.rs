//! One child of the shim: started from a spec, marked by its token, ended with its whole tree.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use contract::shim::Exit;
use sandbox::memory_events::{OomCounters, OomWatch};
use sandbox::process::{Ended, Identity, Reaped};
use sandbox::spawn::{SpawnError, Start, Step};

use super::output::Output;
use super::prepared::Prepared;

/// A tree that is still there after this long of killing is given up on (processes stuck in the
/// kernel); the next walk tries again.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Output,
    /// `NAME=value` that all its descendants were started with unless they took it off.
    marker: String,
    oom_before: Option<OomCounters>,
    /// When TERM was sent because somebody asked, and when KILL follows.
    ending: Option<Instant>,
    killed: bool,
}

/// Whose process it is: what its environment says besides the spec's.
pub(crate) struct Who<'a> {
    pub(crate) token: Option<&'a str>,
    pub(crate) hub_env: &'a BTreeMap<String, String>,
    pub(crate) slot: u32,
    /// It gets descriptor 3, named by `MAINSTAY_READY_FD`.
    pub(crate) says_ready: bool,
}

/// What a start needs and a crash needn't wait for.
#[derive(Debug)]
pub(crate) struct Made {
    environment: Vec<CString>,
    marker: String,
    stdout: Option<(Output, OwnedFd)>,
    stderr: (Output, OwnedFd),
}

/// The child's own ends.
pub(crate) struct Ends<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    /// Its standard output; the pipe that was made if `None`.
    pub(crate) stdout: Option<BorrowedFd<'a>>,
    pub(crate) ready: Option<BorrowedFd<'a>>,
}

/// A start that failed, in words for a person.
#[derive(Debug)]
pub(crate) struct StartFailure(pub(crate) String);

impl Process {
    pub(crate) fn start(
        prepared: &mut Prepared,
        made: Made,
        ends: &Ends<'_>,
    ) -> Result<Self, StartFailure> {
        let spawned = spawn(prepared, &made, ends).map_err(|error| explain(prepared, &error))?;
        prepared.enforced(spawned.user_changed, spawned.landlocked);
        Ok(Self {
            pid: spawned.pid,
            stdout: made.stdout.map(|(output, _)| output),
            stderr: made.stderr.0,
            marker: made.marker,
            oom_before: None,
            ending: None,
            killed: false,
        })
    }

    /// Reads the memory counters that tell a later SIGKILL's cause, once and not at the start,
    /// which should be quick.
    pub(crate) fn note_memory(&mut self, memory: &mut OomWatch) {
        self.oom_before.get_or_insert_with(|| memory.read());
    }

    /// Asks it to end: TERM now, KILL to everything of it after the grace.
    pub(crate) fn end(&mut self, grace: Duration, now: Instant) {
        if self.ending.is_none() {
            sandbox::process::signal_group(self.pid, libc_signal::TERM);
        }
        let kill_at = now + grace;
        self.ending = Some(self.ending.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    pub(crate) fn asked_to_end(&self) -> bool {
        self.ending.is_some()
    }

    /// When [`Process::kill_if_due`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ending.filter(|_| !self.killed)
    }

    pub(crate) fn kill_if_due(&mut self, now: Instant) {
        if self.deadline().is_some_and(|kill_at| kill_at <= now) {
            self.kill();
        }
    }

    /// Kills the first process; the rest of the tree follows when it has been reaped.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        sandbox::process::signal_group(self.pid, libc_signal::KILL);
    }

    /// Kills what is left of the tree after the first process was reaped. `others` are this
    /// shim's other living processes. Returns the children reaped meanwhile.
    pub(crate) fn end_tree(&self, others: &[Family], helpers: &[u32]) -> Vec<(u32, Ended)> {
        let reaped = std::cell::RefCell::new(Vec::new());
        let own = std::process::id();
        let ours = self.family();
        let gone = sandbox::tree::kill_until_none(
            || select(own, &ours, others, helpers),
            || {
                while let Ok(Reaped::Child(pid, ended)) = sandbox::process::reap_any() {
                    reaped.borrow_mut().push((pid, ended));
                }
            },
            KILL_TIMEOUT,
        );
        if !gone {
            tracing::warn!(
                pid = self.pid,
                "some processes of the agent can't be killed"
            );
        }
        reaped.into_inner()
    }

    pub(crate) fn family(&self) -> Family {
        Family {
            leader: self.pid,
            marker: self.marker.clone(),
        }
    }

    /// What to report about this end.
    pub(crate) fn exit(&mut self, ended: Ended, memory: &mut OomWatch) -> Exit {
        let (code, signal) = match ended {
            Ended::Code(code) => (Some(code), None),
            Ended::Signal(signal) => (None, Some(signal)),
        };
        let oom = signal == Some(libc_signal::KILL)
            && !self.killed
            && self
                .oom_before
                .is_some_and(|before| memory.read().rose_since(before));
        let (stdout, stdout_truncated) = self
            .stdout
            .as_mut()
            .map(Output::take_kept)
            .unwrap_or_default();
        Exit {
            code,
            signal,
            oom,
            asked: self.asked_to_end(),
            spawn_error: None,
            stdout,
            stdout_truncated,
            stderr_tail: self.stderr.take_tail(),
        }
    }
}

/// Signal numbers on every Linux.
pub(crate) mod libc_signal {
    pub(crate) const KILL: i32 = 9;
    pub(crate) const TERM: i32 = 15;
}

/// The report about a process that could not be started.
pub(crate) fn never_started(reason: String) -> Exit {
    Exit {
        code: None,
        signal: None,
        oom: false,
        asked: false,
        spawn_error: Some(reason),
        stdout: String::new(),
        stdout_truncated: false,
        stderr_tail: String::new(),
    }
}

/// How to recognise a process's descendants.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    leader: u32,
    marker: String,
}

impl Family {
    fn owns(&self, stat: &sandbox::process::Stat) -> bool {
        stat.identity.pid == self.leader
            || stat.session == self.leader
            || sandbox::tree::has_environment(stat.identity.pid, &self.marker)
    }
}

/// The shim's descendants that belong to `ours`. One that left its session and took the marker off
/// can't be told apart: it is ours once no other process of this shim runs.
fn select(shim: u32, ours: &Family, others: &[Family], helpers: &[u32]) -> Vec<Identity> {
    let all = sandbox::tree::descendants(shim);
    let mut spared: Vec<u32> = helpers.to_vec();
    let mut victims = Vec::new();
    for stat in all {
        let spare = spared.contains(&stat.parent)
            || spared.contains(&stat.identity.pid)
            || others.iter().any(|other| other.owns(&stat));
        if spare && !ours.owns(&stat) {
            spared.push(stat.identity.pid);
        } else if others.is_empty() || ours.owns(&stat) {
            victims.push(stat.identity);
        }
    }
    victims
}

impl Made {
    /// Makes home, pipes and environment. `own_stdout`: its standard output is a pipe to us.
    pub(crate) fn new(
        prepared: &mut Prepared,
        who: &Who<'_>,
        own_stdout: bool,
    ) -> Result<Self, StartFailure> {
        prepared.fresh_scratch(who.slot).map_err(|error| {
            StartFailure(format!(
                "cannot make the agent's home and temporary directory: {error}"
            ))
        })?;
        let marker = who.token.map_or_else(
            || prepared.home_entry(who.slot),
            |token| format!("MAINSTAY_TOKEN={token}"),
        );
        let environment = prepared
            .environment(who)
            .map_err(|error| broken("environment", &error))?;
        let pipe = |max| Output::pipe(max).map_err(|error| broken("output", &error));
        let stdout = own_stdout.then(|| pipe(prepared.spec.answer_max_bytes));
        Ok(Self {
            environment,
            marker,
            stdout: stdout.transpose()?,
            stderr: pipe(0)?,
        })
    }
}

fn spawn(
    prepared: &Prepared,
    made: &Made,
    ends: &Ends<'_>,
) -> Result<sandbox::spawn::Spawned, SpawnError> {
    let own = made.stdout.as_ref().map(|(_, writer)| writer.as_fd());
    let stdout = ends.stdout.or(own).unwrap_or(ends.stdin);
    let mut descriptors = vec![ends.stdin, stdout, made.stderr.1.as_fd()];
    descriptors.extend(ends.ready);
    let start = Start {
        environment: &made.environment,
        descriptors: &descriptors,
    };
    sandbox::spawn::spawn(&prepared.launch, &start)
}

fn broken(what: &str, error: &io::Error) -> StartFailure {
    StartFailure(format!("{what} cannot be passed on: {error}"))
}

/// Says what to do about a program that doesn't start.
fn explain(prepared: &Prepared, error: &SpawnError) -> StartFailure {
    if matches!(error.step, Step::Execute | Step::Directory)
        && let Some(sentence) = prepared.out_of_reach.first()
    {
        return StartFailure(sentence.clone());
    }
    let spec = &prepared.spec;
    let program = spec.command.first().map_or("", String::as_str);
    let directory = &spec.current_dir;
    let kind = error.source.kind();
    let text = match (error.step, kind) {
        (Step::Execute, io::ErrorKind::NotFound) if program.contains('/') => format!(
            "program {program} is not there (looked from {directory}), or the interpreter its first line names is missing: put it into the agent's source, or correct the command"
        ),
        (Step::Execute, io::ErrorKind::NotFound) => format!(
            "program {program} is in no directory of PATH: install it, or give its full path in the command"
        ),
        (Step::Execute, io::ErrorKind::PermissionDenied) => format!(
            "program {program} may not be run by the agent's user: it needs execute permission (chmod +x), and so do all directories above it"
        ),
        (Step::Directory, _) => {
            format!("directory {directory} can't be entered by the agent's user")
        }
        (step, _) => format!("{program} can't be started: {} ({step:?})", error.source),
    };
    StartFailure(text)
}
