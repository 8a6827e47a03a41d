//! The small parent of one instance: starts, reaps, restarts, drains, keeps what happened.
//!
//! Forked from the keeper without exec. One thread, one epoll. It outlives keeper and hub: facts
//! lie in its spool until a hub's log has them, and without a keeper it goes on for 60 s. It takes
//! work and tokens from the hub but commands, paths and users only from the keeper.

mod bridge;
mod connection;
mod log_file;
mod mirror;
mod output;
mod prepared;
mod process;
mod service;
mod spool;
mod standby;
mod task;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use contract::keeper::InstanceKind;
use contract::shim::{Fact, FromShim};
use sandbox::memory_events::OomWatch;
use sandbox::process::{Ended, Reaped};
use sandbox::signals::SignalFd;

use crate::reactor::Reactor;
use connection::Connection;
use log_file::LogFile;
use mirror::Mirror;
use output::Drained;
use prepared::Prepared;
use spool::Spool;

/// The name of every shim's process. What descends from one is an agent's, whoever it says it is.
pub const PROCESS_NAME: &std::ffi::CStr = c"mainstay-shim";

/// How long a shim waits for a new keeper before it ends its agents.
const KEEPER_WAIT: Duration = Duration::from_secs(60);
/// How long a shim that has ended everything waits for the hub to take its last facts.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Facts about a restarting service wait this long for the ready byte, to be flushed together.
const FLUSH_DELAY: Duration = Duration::from_millis(5);
/// The generation whose spec stands for all that have none of their own.
pub(crate) const ANY_GENERATION: u64 = 0;
const SIGCHLD: i32 = 17;

/// What the keeper gives a new shim.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) instance: String,
    pub(crate) kind: InstanceKind,
    pub(crate) socket: PathBuf,
    pub(crate) spool: PathBuf,
    pub(crate) log_dir: PathBuf,
    /// Bound but not listening: the shim listens itself, so that its peers see its pid.
    pub(crate) listener: OwnedFd,
    pub(crate) gateway: OwnedFd,
    /// The first connection, already the keeper's.
    pub(crate) keeper: OwnedFd,
    pub(crate) keeper_uid: u32,
    pub(crate) hub_uid: u32,
    /// Where its child's standard output and error go besides the log files.
    pub(crate) mirrors: Option<[OwnedFd; 2]>,
    /// Lets go of the pages that only its start needs: where no other shim shares them.
    pub(crate) is_alone: bool,
}

struct Shim {
    setup: Setup,
    reactor: Reactor,
    signals: SignalFd,
    connections: BTreeMap<RawFd, Connection>,
    specs: BTreeMap<u64, Prepared>,
    /// Why a generation's spec can't be used, in words.
    unusable: BTreeMap<u64, String>,
    spool: Spool,
    flush_at: Option<Instant>,
    stdout_log: LogFile,
    stderr_log: LogFile,
    tasks: task::Tasks,
    service: service::Service,
    bridge: bridge::Bridge,
    memory: OomWatch,
    /// Processes of ours that clean up; never a part of an agent's tree.
    helpers: BTreeSet<u32>,
    /// Children that ended while a tree was being killed.
    reaped: VecDeque<(u32, Ended)>,
    keeper_gone_since: Option<Instant>,
    stopping: bool,
    /// Everything has ended; facts may wait until then for the hub.
    leave_by: Option<Instant>,
    /// Hub: start nothing.
    hold: bool,
    /// Hub: no task waits for the service.
    idle: bool,
    reported: Option<(bool, bool)>,
    /// The keeper was told of a false start, and of nothing of use since.
    false_start: bool,
}

/// Whether the spool at this path holds nothing that a hub doesn't have; one that isn't there does
/// not count as one.
pub(crate) fn is_settled(spool: &std::path::Path) -> io::Result<bool> {
    Ok(spool.exists() && Spool::open(spool)?.is_settled())
}

/// The whole life of a shim, in the forked child. Returns the process's exit code.
pub(crate) fn run(setup: Setup) -> i32 {
    match Shim::start(setup).and_then(|mut shim| shim.run()) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "shim ends");
            1
        }
    }
}

impl Shim {
    fn start(mut setup: Setup) -> io::Result<Self> {
        let own = [&setup.listener, &setup.gateway, &setup.keeper];
        let own = own.into_iter().chain(setup.mirrors.iter().flatten());
        let own: Vec<RawFd> = own.map(AsRawFd::as_raw_fd).collect();
        sandbox::descriptors::close_all_but(&own);
        sandbox::signals::unblock_all();
        let signals = SignalFd::new(&[SIGCHLD, process::libc_signal::TERM])?;
        let _leads_already = rustix::process::setsid();
        sandbox::process::set_name(PROCESS_NAME)?;
        sandbox::process::become_subreaper()?;
        sandbox::process::hide_memory()?;
        redirect_standard_streams(&setup)?;
        let (stdout, stderr) = mirrors(setup.mirrors.take())?;
        rustix::net::listen(&setup.listener, 64)?;
        rustix::io::ioctl_fionbio(&setup.listener, true)?;
        let reactor = Reactor::new()?;
        reactor.add(&signals)?;
        reactor.add(&setup.listener)?;
        let spool = Spool::open(&setup.spool)?;
        let mut shim = Self {
            tasks: task::Tasks::resume(&spool),
            service: service::Service::resume(&spool),
            bridge: bridge::Bridge::default(),
            stdout_log: LogFile::open(&setup.log_dir.join("stdout.log")).mirrored(stdout),
            stderr_log: LogFile::open(&setup.log_dir.join("stderr.log")).mirrored(stderr),
            reactor,
            signals,
            connections: BTreeMap::new(),
            specs: BTreeMap::new(),
            unusable: BTreeMap::new(),
            spool,
            flush_at: None,
            memory: OomWatch::open(),
            helpers: BTreeSet::new(),
            reaped: VecDeque::new(),
            keeper_gone_since: None,
            stopping: false,
            leave_by: None,
            hold: false,
            idle: false,
            reported: None,
            false_start: false,
            setup,
        };
        shim.report_lost_processes()?;
        let keeper = rustix::io::fcntl_dupfd_cloexec(&shim.setup.keeper, 3)?;
        shim.add_connection(keeper, shim.setup.keeper_uid)?;
        if shim.setup.is_alone {
            // Nothing but memory is lost without it.
            let _kept = sandbox::pages::let_go_of_program();
        }
        Ok(shim)
    }

    /// What a dead shim of this instance left running was killed with it; say so.
    fn report_lost_processes(&mut self) -> io::Result<()> {
        let lost = task::lost(&self.spool).chain(service::lost(&self.spool));
        for fact in lost.collect::<Vec<_>>() {
            self.record(fact, Duration::ZERO)?;
        }
        self.spool.flush()
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            for event in self.reactor.wait(self.deadline())? {
                self.handle(event.fd, event.readable, event.writable)?;
            }
            self.tick()?;
            if self.stopping && self.is_idle() && self.may_leave() {
                return self.leave();
            }
        }
    }

    fn handle(&mut self, fd: RawFd, readable: bool, writable: bool) -> io::Result<()> {
        if fd == self.signals.as_fd().as_raw_fd() {
            self.take_signals()
        } else if fd == self.setup.listener.as_raw_fd() {
            self.accept()
        } else if self.connections.contains_key(&fd) {
            self.serve_connection(fd, readable)
        } else if self.bridge.owns(fd) {
            self.serve_bridge(fd, readable, writable)
        } else if self.service.ready_fd() == Some(fd) {
            self.service_ready_byte()
        } else {
            self.drain_output(fd);
            Ok(())
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        let mut child_ended = false;
        while let Some((signal, _)) = self.signals.take()? {
            child_ended |= signal == SIGCHLD;
            if signal == process::libc_signal::TERM {
                self.stop(None);
            }
        }
        if child_ended { self.reap() } else { Ok(()) }
    }

    /// Handles every child that has ended; orphans of the agents are just reaped.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (found, alone) = self.next_reaped()?;
            let Some((pid, ended)) = found else {
                return Ok(());
            };
            if self.helpers.remove(&pid) {
                continue;
            }
            if self.tasks.owns(pid) {
                self.attempt_ended(pid, ended, alone)?;
            } else if self.service.owns(pid) {
                self.service_ended(ended, alone)?;
            }
        }
    }

    /// One ended child, and whether there is certainly no other child: then nothing of a tree is
    /// left (orphans come to us before their parent's end is seen), and `/proc` needs no walk.
    fn next_reaped(&mut self) -> io::Result<(Option<(u32, Ended)>, bool)> {
        if let Some(found) = self.reaped.pop_front() {
            return Ok((Some(found), false));
        }
        let Reaped::Child(pid, ended) = sandbox::process::reap_any()? else {
            return Ok((None, false));
        };
        match sandbox::process::reap_any()? {
            Reaped::NoChildren => Ok((Some((pid, ended)), true)),
            Reaped::Running => Ok((Some((pid, ended)), false)),
            Reaped::Child(other, other_ended) => {
                self.reaped.push_back((other, other_ended));
                Ok((Some((pid, ended)), false))
            }
        }
    }

    fn drain_output(&mut self, fd: RawFd) {
        let Self {
            tasks,
            service,
            stdout_log,
            stderr_log,
            reactor,
            ..
        } = self;
        let mut too_much = false;
        for process in tasks.processes_mut().chain(service.process_mut()) {
            let outputs = process
                .stdout
                .as_mut()
                .map(|output| (output, &mut *stdout_log));
            let outputs = outputs
                .into_iter()
                .chain([(&mut process.stderr, &mut *stderr_log)]);
            for (output, log) in outputs {
                let ours = output.fd().is_some_and(|own| own.as_raw_fd() == fd);
                if !ours {
                    continue;
                }
                match output.drain(log) {
                    Drained::Open => {}
                    Drained::Overflowing => too_much = true,
                    Drained::Ended => {
                        if let Some(pipe) = output.fd() {
                            reactor.remove(pipe);
                        }
                        output.close();
                    }
                }
            }
            // An answer without end would otherwise be written, and read, for ever.
            if std::mem::take(&mut too_much) {
                process.kill();
            }
        }
    }

    /// What became due, then facts to disk, then to the hub.
    fn tick(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.tick_tasks(now)?;
        self.tick_service(now)?;
        if self
            .keeper_gone_since
            .is_some_and(|since| since + KEEPER_WAIT <= now)
        {
            self.stop(None);
        }
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        self.collect_trash();
        self.report_enforced();
        self.pump_connections();
        self.pump_bridge()
    }

    fn flush(&mut self) {
        self.flush_at = None;
        // Here because every start is followed by a flush, and nothing waits for this one.
        for process in self.tasks.processes_mut().chain(self.service.process_mut()) {
            process.note_memory(&mut self.memory);
        }
        self.prepare_service();
        if let Err(error) = self.spool.flush() {
            tracing::warn!(%error, "cannot write facts to disk; telling them all the same");
            self.flush_at = Some(Instant::now() + Duration::from_secs(1));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let keeper = self.keeper_gone_since.map(|since| since + KEEPER_WAIT);
        let keeper = keeper.filter(|_| !self.stopping);
        [
            self.tasks.deadline(),
            self.service.deadline(self),
            self.flush_at,
            self.leave_by,
            keeper,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Notes a fact; it goes to disk within `wait`, then to the hub.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place where a record gets its time"
    )]
    fn record(&mut self, fact: Fact, wait: Duration) -> io::Result<()> {
        let at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        self.spool.record(at_ms, fact)?;
        let at = Instant::now() + wait;
        self.flush_at = Some(self.flush_at.map_or(at, |earlier| earlier.min(at)));
        Ok(())
    }

    /// Ends everything; without a grace the specs' own.
    fn stop(&mut self, grace: Option<Duration>) {
        self.stopping = true;
        let grace = grace.unwrap_or_else(|| {
            let longest = self
                .specs
                .values()
                .map(|prepared| prepared.spec.grace_ms)
                .max();
            Duration::from_millis(longest.unwrap_or(0))
        });
        let now = Instant::now();
        self.tasks.end_all(grace, now);
        self.service.end(grace, now, false);
    }

    /// A hub that is there gets a moment to take the last facts into its log.
    fn may_leave(&mut self) -> bool {
        let until = *self
            .leave_by
            .get_or_insert_with(|| Instant::now() + LEAVE_WAIT);
        self.spool.is_settled() || !self.has_hub() || until <= Instant::now()
    }

    fn is_idle(&self) -> bool {
        self.tasks.is_idle() && !self.service.is_running()
    }

    fn leave(&mut self) -> io::Result<()> {
        let own = std::process::id();
        let reap = || while let Ok(Reaped::Child(..)) = sandbox::process::reap_any() {};
        let select = || {
            let left = sandbox::tree::descendants(own);
            left.into_iter().map(|stat| stat.identity).collect()
        };
        sandbox::tree::kill_until_none(select, reap, Duration::from_secs(5));
        self.spool.flush()?;
        self.pump_connections();
        let _gone = std::fs::remove_file(&self.setup.socket);
        Ok(())
    }

    /// Removes what attempts left in their scratch directories, in a process of its own: an agent
    /// may have left a million files.
    fn collect_trash(&mut self) {
        let trash: Vec<PathBuf> = self
            .specs
            .values_mut()
            .flat_map(Prepared::take_trash)
            .collect();
        if trash.is_empty() {
            return;
        }
        let forked = sandbox::fork::fork(|| {
            sandbox::descriptors::close_all_but(&[]);
            for directory in trash {
                let _left_for_the_next_start = std::fs::remove_dir_all(directory);
            }
            0
        });
        if let Ok(forked) = forked {
            self.helpers.insert(forked.pid);
        }
    }

    /// Tells the keeper of a process that never came to anything.
    fn tell_false_start(&mut self, reason: &str) {
        self.false_start = true;
        self.tell_keeper(&FromShim::FalseStart {
            reason: reason.to_owned(),
        });
    }

    /// Tells the keeper that the false starts before this are over.
    fn tell_of_use(&mut self) {
        if std::mem::take(&mut self.false_start) {
            self.tell_keeper(&FromShim::OfUse);
        }
    }

    fn report_enforced(&mut self) {
        let enforced = self
            .specs
            .values()
            .filter_map(|prepared| prepared.enforced)
            .next_back();
        if let Some((user, landlock)) = enforced
            && self.reported != enforced
        {
            self.reported = enforced;
            self.tell_keeper(&FromShim::Enforced { user, landlock });
        }
    }
}

/// The spec of a generation: its own, or the one that stands for all.
fn spec_for(specs: &mut BTreeMap<u64, Prepared>, generation: u64) -> Option<&mut Prepared> {
    let number = [generation, ANY_GENERATION]
        .into_iter()
        .find(|number| specs.contains_key(number))?;
    specs.get_mut(&number)
}

fn mirrors(outputs: Option<[OwnedFd; 2]>) -> io::Result<(Option<Mirror>, Option<Mirror>)> {
    let Some([stdout, stderr]) = outputs else {
        return Ok((None, None));
    };
    // Both end in one place: once is enough for what starts and why it doesn't.
    Ok((
        Some(Mirror::new(stdout, false)?),
        Some(Mirror::new(stderr, true)?),
    ))
}

/// Standard error goes to a file of the instance's: the keeper's may be a pipe that breaks. In a
/// pod it is the container's.
fn redirect_standard_streams(setup: &Setup) -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    if let Some([_, stderr]) = &setup.mirrors {
        return Ok(rustix::stdio::dup2_stderr(stderr)?);
    }
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(setup.log_dir.join("shim.log"))
        .unwrap_or(null);
    Ok(rustix::stdio::dup2_stderr(&log)?)
}
