//! The first process of an agent's pod: it plays the keeper for the one instance that runs there.
//!
//! It forks the same shim as on a server, gives it the one spec of the pod's life, starts the relay
//! that carries bytes between this pod and the hub, and starts either again when it dies. One thread
//! and no network: the relay has TLS, this process only the sockets it hands on. It ends the
//! container with a reason only when nothing that is started comes to anything.

mod again;
mod copy;
mod layout;
mod memory;
mod program;
mod relay;
mod restart;
mod shim;
mod spec;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::pod::{Pod, ToRelay};
use contract::shim::Spec;
use sandbox::process::{Ended, Reaped};
use sandbox::signals::SignalFd;

use crate::hub::words;
use crate::instance::isolation;
use crate::reactor::Reactor;
pub use again::again;
pub use copy::copy_program;
use layout::Layout;
use memory::Memory;
use relay::Relay;
pub use relay::Sockets;
use restart::{FalseStarts, Restart};
use shim::{Said, Shim};

/// How long the relay may take to pass on what was said last.
const RELAY_LEAVE: Duration = Duration::from_secs(2);
const BACKLOG: i32 = 1024;
/// Kubernetes shows so much of a termination message.
const TERMINATION_BYTES: usize = 4096;

mod signal {
    pub(super) const INT: i32 = 2;
    pub(super) const TERM: i32 = 15;
    pub(super) const CHLD: i32 = 17;
}

/// What the process was told by whoever started the container.
#[derive(Clone, Debug)]
pub struct Options {
    pub pod: Pod,
    /// The pod's name.
    pub instance: String,
    /// Below it lies everything of ours ([`contract::pod::ROOT`]).
    pub root: PathBuf,
    /// This program, for the built-in loop.
    pub program: PathBuf,
    /// The container's own variables, the image's among them.
    pub environment: BTreeMap<String, String>,
    /// Where the kubelet's probes are answered.
    pub probes: SocketAddr,
    /// Is the relay, in a process of its own; gives the code that it ends with.
    pub relay: fn(&Pod, &Path, Sockets) -> i32,
    /// Where Kubernetes looks for the reason of an end; left alone if it isn't there.
    pub termination_log: PathBuf,
}

/// Why the container ends.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    #[error("cannot {operation}")]
    Io {
        operation: &'static str,
        source: io::Error,
    },
    #[error(
        "the image has no program {program} that its user may run (looked {place}): correct the agent's command or its image"
    )]
    NoProgram { program: String, place: String },
    #[error("nothing that is started comes to anything, {count} times in a row: {reason}")]
    NothingRuns { count: usize, reason: String },
}

pub(crate) fn at(operation: &'static str) -> impl FnOnce(io::Error) -> PodError {
    move |source| PodError::Io { operation, source }
}

/// Runs the pod until it is told to end. An error's text lies in the termination log too.
pub fn run(options: Options) -> Result<(), PodError> {
    let termination_log = options.termination_log.clone();
    let ended = Supervisor::start(options).and_then(|mut supervisor| {
        let ended = supervisor.watch();
        supervisor.end_relay();
        ended
    });
    if let Err(error) = &ended {
        leave_reason(&termination_log, &crate::generation::chain(error));
    }
    ended
}

struct Supervisor {
    options: Options,
    layout: Layout,
    reactor: Reactor,
    signals: SignalFd,
    gateway: OwnedFd,
    probes: OwnedFd,
    spec: Spec,
    shim: Option<Shim>,
    shim_restart: Restart,
    relay: Option<Relay>,
    relay_restart: Restart,
    /// What the relay's offers say.
    offered: ToRelay,
    memory: Memory,
    false_starts: FalseStarts,
    /// Children that ended while a dead shim's leftovers were being killed.
    reaped: VecDeque<(u32, Ended)>,
    /// Told to end, or giving up.
    stopping: bool,
    /// Everything was started once, and what only that needs of the program is let go.
    settled: bool,
    given_up: Option<PodError>,
}

impl Supervisor {
    fn start(options: Options) -> Result<Self, PodError> {
        let kernel = "ask the kernel for what a supervisor needs";
        sandbox::process::hide_memory().map_err(at(kernel))?;
        sandbox::process::become_subreaper().map_err(at(kernel))?;
        let signals = SignalFd::new(&[signal::CHLD, signal::TERM, signal::INT]);
        let signals = signals.map_err(at(kernel))?;
        let reactor = Reactor::new().map_err(at(kernel))?;
        reactor.add(&signals).map_err(at(kernel))?;
        let layout = Layout::prepare(&options.root)?;
        let (gateway, gateway_address) = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let (probes, _) = bind(options.probes)?;
        let landlock = sandbox::confine::ruleset(&[], &[]).map_err(at(kernel))?;
        let landlock = landlock.is_some();
        let service_port = service_port(&options.pod)?;
        let spec = spec::spec(
            &options,
            &layout,
            &spec::Ports {
                gateway: gateway_address.port(),
                service: service_port,
            },
            landlock,
        )
        .map_err(at("find the container's working directory"))?;
        program::check(&spec)?;
        Ok(Self {
            layout,
            reactor,
            signals,
            gateway,
            probes,
            spec,
            shim: None,
            shim_restart: Restart::default(),
            relay: None,
            relay_restart: Restart::default(),
            offered: ToRelay {
                isolation: isolation(false, landlock),
                service_port,
                draining: false,
                memory_percent: None,
            },
            memory: Memory::new(Instant::now()),
            false_starts: FalseStarts::default(),
            reaped: VecDeque::new(),
            stopping: false,
            settled: false,
            given_up: None,
            options,
        })
    }

    /// Until the shim has ended because it was told to.
    fn watch(&mut self) -> Result<(), PodError> {
        loop {
            let now = Instant::now();
            self.start_due(now);
            self.settle();
            if let Some(percent) = self.memory.news(now) {
                self.offer(|offered| offered.memory_percent = Some(percent));
            }
            if self.stopping && self.shim.is_none() {
                return self.given_up.take().map_or(Ok(()), Err);
            }
            let events = self.reactor.wait(self.deadline());
            for event in events.map_err(at("wait for what happens"))? {
                if event.fd == self.signals.as_fd().as_raw_fd() {
                    self.take_signals()?;
                } else if self.shim.as_ref().and_then(Shim::link_fd) == Some(event.fd) {
                    self.hear_shim();
                }
            }
            if let Some(shim) = &self.shim {
                shim.kill_if_due(Instant::now());
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let shim = self.shim.as_ref();
        [
            shim.and_then(Shim::deadline),
            self.shim_restart.due().filter(|_| shim.is_none()),
            self.relay_restart.due().filter(|_| self.relay.is_none()),
            Some(self.memory.due()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn start_due(&mut self, now: Instant) {
        if self.relay.is_none() && self.relay_restart.is_due(now) {
            self.start_relay(now);
        }
        if self.shim.is_none() && !self.stopping && self.shim_restart.is_due(now) {
            self.start_shim(now);
        }
    }

    fn start_relay(&mut self, now: Instant) {
        let (gateway, probes) = (self.gateway.as_fd(), self.probes.as_fd());
        match Relay::fork(&self.options, gateway, probes, &self.offered) {
            Ok(relay) => {
                self.relay = Some(relay);
                self.relay_restart.started(now);
            }
            Err(error) => {
                tracing::warn!(%error, "the relay can't be started");
                self.relay_restart.died(now);
            }
        }
    }

    fn start_shim(&mut self, now: Instant) {
        let started = Shim::fork(&self.options, &self.layout, &self.gateway, &self.spec);
        let watched = started.and_then(|shim| {
            let link = shim.link();
            link.map_or(Ok(()), |link| self.reactor.add(link))?;
            Ok(shim)
        });
        match watched {
            Ok(shim) => {
                self.shim = Some(shim);
                self.shim_restart.started(now);
            }
            Err(error) => {
                self.shim_restart.died(now);
                self.false_start(&format!("the shim can't be started: {error}"));
            }
        }
    }

    fn take_signals(&mut self) -> Result<(), PodError> {
        let mut asked = false;
        while let Some((number, _)) = self.signals.take().map_err(at("read signals"))? {
            asked |= number != signal::CHLD;
        }
        self.reap()?;
        if asked {
            // Who asks again doesn't want to wait.
            let grace_ms = if self.stopping {
                0
            } else {
                self.options.pod.grace_ms
            };
            self.stop(grace_ms);
        }
        Ok(())
    }

    /// No more work, then no more processes.
    fn stop(&mut self, grace_ms: u64) {
        self.stopping = true;
        self.offer(|offered| offered.draining = true);
        if let Some(shim) = &mut self.shim {
            shim.stop(Duration::from_millis(grace_ms));
        }
    }

    fn offer(&mut self, change: impl FnOnce(&mut ToRelay)) {
        let before = self.offered.clone();
        change(&mut self.offered);
        if self.offered != before
            && let Some(relay) = &mut self.relay
        {
            relay.tell(&self.offered);
        }
    }

    fn hear_shim(&mut self) {
        let Some(shim) = &mut self.shim else { return };
        for said in shim.receive() {
            match said {
                Said::Enforced(words) => self.offer(|offered| offered.isolation = words),
                Said::OfUse => self.false_starts.forget(),
                Said::FalseStart(reason) => self.false_start(&reason),
            }
        }
    }

    /// Once: a start needs many pages of the program that the rest of a life doesn't.
    fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true)
            && let Err(error) = sandbox::pages::let_go_of_program()
        {
            tracing::debug!(%error, "the pages of the start stay");
        }
    }

    /// One more that came to nothing; too many in a row are for a person to look at.
    fn false_start(&mut self, reason: &str) {
        let Some(count) = self.false_starts.note(Instant::now()) else {
            return;
        };
        if self.given_up.is_none() && !self.stopping {
            let reason = reason.to_owned();
            self.given_up = Some(PodError::NothingRuns { count, reason });
            self.stop(0);
        }
    }

    /// Reaps every child that has ended: the shim, the relay, and whatever a shim left.
    fn reap(&mut self) -> Result<(), PodError> {
        loop {
            let next = match self.reaped.pop_front() {
                Some(found) => found,
                None => match sandbox::process::reap_any().map_err(at("reap a child"))? {
                    Reaped::Child(pid, ended) => (pid, ended),
                    Reaped::Running | Reaped::NoChildren => return Ok(()),
                },
            };
            self.ended(next.0, next.1);
        }
    }

    fn ended(&mut self, pid: u32, ended: Ended) {
        let now = Instant::now();
        if self.relay.as_ref().is_some_and(|relay| relay.pid == pid) {
            self.relay = None;
            self.relay_restart.died(now);
            tracing::warn!("the relay ended {}; the next one starts", words(ended));
        } else if self.shim.as_ref().is_some_and(|shim| shim.pid == pid) {
            self.shim = None;
            self.end_leftovers();
            self.shim_restart.died(now);
            if !self.stopping {
                tracing::warn!("the shim ended {}; the next one starts", words(ended));
                if let Ended::Code(1..) = ended {
                    self.false_start(&format!("the shim ended {}", words(ended)));
                }
            }
        }
    }

    /// Kills what a dead shim left: everything here but this process and its relay.
    fn end_leftovers(&mut self) {
        let relay = self.relay.as_ref().map(|relay| relay.pid);
        let own = std::process::id();
        let reaped = std::cell::RefCell::new(std::mem::take(&mut self.reaped));
        let gone = sandbox::tree::kill_until_none(
            || {
                let left = sandbox::tree::descendants(own).into_iter();
                left.map(|stat| stat.identity)
                    .filter(|identity| Some(identity.pid) != relay)
                    .collect()
            },
            || {
                while let Ok(Reaped::Child(pid, ended)) = sandbox::process::reap_any() {
                    reaped.borrow_mut().push_back((pid, ended));
                }
            },
            Duration::from_secs(5),
        );
        if !gone {
            tracing::warn!("some processes of a dead shim can't be killed");
        }
        self.reaped = reaped.into_inner();
    }

    /// The relay goes last: what the shim said at its end is still on its way to the hub.
    fn end_relay(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.end(RELAY_LEAVE);
        }
    }
}

/// A listening socket; the relay serves it and may die meanwhile.
fn bind(address: SocketAddr) -> Result<(OwnedFd, SocketAddr), PodError> {
    let listening = TcpListener::bind(address).and_then(|listener| {
        let bound = listener.local_addr()?;
        let socket = OwnedFd::from(listener);
        rustix::net::listen(&socket, BACKLOG)?;
        Ok((socket, bound))
    });
    listening.map_err(at("listen in the pod"))
}

/// Where a service that listens is told to: where it wants to, or anywhere free.
fn service_port(pod: &Pod) -> Result<Option<u16>, PodError> {
    if !pod.serves {
        return Ok(None);
    }
    if pod.port.is_some() {
        return Ok(pod.port);
    }
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let free = free.map_err(at("find a free port for the service"))?;
    Ok(Some(free.port()))
}

/// For `kubectl describe`. Kubernetes made the file; where there is none nobody looks.
fn leave_reason(path: &Path, reason: &str) {
    use std::io::Write;
    let end = reason.floor_char_boundary(TERMINATION_BYTES);
    let file = std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(path);
    let _nobody_looks = file.and_then(|mut file| file.write_all(&reason.as_bytes()[..end]));
}
