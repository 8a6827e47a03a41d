//! A long-running child: an agent that serves, or a stdio MCP server. One process at a time.
//!
//! Fast path: after a crash the next process is started before anything is written; the facts
//! about end, start and readiness then go to disk in one flush.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use contract::keeper::InstanceKind;
use contract::shim::{Exit, Fact, FromShim, ServiceState, ServiceToken, Spec};
use mainstay_core::restart::{Backoff, Evidence, Kind, decide};
use sandbox::process::Ended;

use super::process::{Ends, Process, StartFailure, Who, libc_signal, never_started};
use super::spool::Spool;
use super::standby::Standby;
use super::task::{killed_with_the_shim, watch};
use super::{ANY_GENERATION, FLUSH_DELAY, Shim, spec_for};

const PROBE_FIRST: Duration = Duration::from_millis(2);
const PROBE_MOST: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_millis(50);
/// An MCP server says nothing of its readiness: one that ran for less came to nothing.
const SERVER_OF_USE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Service {
    tokens: VecDeque<ServiceToken>,
    generation: Option<u64>,
    running: Option<Running>,
    /// The next start is due then (and happens once there is a token and no hold).
    due: Option<Instant>,
    /// Started again after an end that was asked for.
    again: bool,
    backoff: Backoff,
    last_incarnation: u32,
    ended_at: Option<Instant>,
    /// Made for the next start.
    pub(super) standby: Option<Standby>,
}

#[derive(Debug)]
struct Running {
    incarnation: u32,
    process: Process,
    /// What it was started by.
    spec: Box<Spec>,
    since: Instant,
    ready: bool,
    ready_pipe: Option<OwnedFd>,
    probe: Option<(Instant, Duration)>,
}

impl Service {
    pub(super) fn resume(spool: &Spool) -> Self {
        let mut service = Self::default();
        for fact in spool.unacknowledged().chain(spool.running()) {
            if let Fact::ServiceStarted { incarnation, .. } = fact {
                service.last_incarnation = service.last_incarnation.max(*incarnation);
            }
        }
        service
    }

    pub(super) fn owns(&self, pid: u32) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.process.pid == pid)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn process_mut(&mut self) -> Option<&mut Process> {
        self.running.as_mut().map(|running| &mut running.process)
    }

    pub(super) fn ready_fd(&self) -> Option<RawFd> {
        let pipe = self.running.as_ref()?.ready_pipe.as_ref()?;
        Some(pipe.as_raw_fd())
    }

    pub(super) fn forget_crashes(&mut self) {
        self.backoff = Backoff::default();
    }

    /// Somebody waits for it now: the wait for the next start is over.
    pub(super) fn is_awaited(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// Ends the process; `again`: and starts the next one.
    pub(super) fn end(&mut self, grace: Duration, now: Instant, again: bool) {
        self.again = again;
        match &mut self.running {
            Some(running) => running.process.end(grace, now),
            None if again => self.due = Some(now),
            None => self.due = None,
        }
    }

    /// When something is to be done; what waits for a token or for a lifted hold has no time.
    pub(super) fn deadline(&self, shim: &Shim) -> Option<Instant> {
        let running = self.running.as_ref();
        [
            self.due.filter(|_| shim.service_can_start()),
            running.and_then(|running| running.process.deadline()),
            running.and_then(|running| running.probe.map(|(at, _)| at)),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Facts for a process that a dead shim had running.
pub(super) fn lost(spool: &Spool) -> impl Iterator<Item = Fact> {
    spool.running().filter_map(|fact| match fact {
        Fact::ServiceStarted { incarnation, .. } => Some(Fact::ServiceEnded {
            incarnation: *incarnation,
            exit: killed_with_the_shim(),
            delay_ms: 0,
        }),
        _ => None,
    })
}

impl Shim {
    fn is_mcp(&self) -> bool {
        self.setup.kind == InstanceKind::Mcp
    }

    /// What runs, and whether it is what the newest generation would run.
    pub(super) fn service_state(&self) -> Option<ServiceState> {
        let running = self.service.running.as_ref()?;
        let known = self.specs.keys().chain(self.unusable.keys());
        let newest = self.specs.values().next_back();
        Some(ServiceState {
            incarnation: running.incarnation,
            pid: running.process.pid,
            ready: running.ready,
            generation: known.max().copied().unwrap_or(0),
            outdated: newest.is_some_and(|newest| !newest.spec.starts_the_same(&running.spec)),
            port: running.spec.service_port,
        })
    }

    pub(super) fn service_tokens(
        &mut self,
        generation: u64,
        tokens: Vec<ServiceToken>,
    ) -> io::Result<()> {
        let service = &mut self.service;
        let used = service.last_incarnation;
        // The variables are of today for every token, those of the stock too.
        if let Some(newest) = tokens.last() {
            let stock = service.tokens.iter_mut();
            stock.for_each(|token| token.env.clone_from(&newest.env));
        }
        let unused = tokens
            .into_iter()
            .filter(|token| token.incarnation > used)
            .collect::<VecDeque<_>>();
        // A hub that knows of no process of this service counts from the first one, and may give
        // nothing but used tokens. What is left of the stock still counts.
        if !unused.is_empty() {
            service.tokens = unused;
        }
        service.generation = Some(generation);
        service.standby = None;
        if service.running.is_none() && service.due.is_none() {
            service.due = Some(Instant::now());
        }
        if service.running.is_some() {
            // Its successor's pipes and scratch are made anew with the next flush.
            self.flush_at.get_or_insert(Instant::now() + FLUSH_DELAY);
        }
        self.tick_service(Instant::now())
    }

    /// A service's process that the new spec wouldn't start is replaced once the hub, which knows
    /// what works on it, says so. A stdio MCP server runs by its spec alone.
    pub(super) fn service_spec_changed(&mut self, generation: u64) -> io::Result<()> {
        if self.setup.kind == InstanceKind::Exec {
            return Ok(());
        }
        self.service.standby = None;
        if self.is_mcp() {
            return self.server_spec_changed(generation);
        }
        let now = Instant::now();
        let service = &mut self.service;
        // What starts next is the newest: the spec of an older one may be gone by then. What
        // kept crashing may have been repaired, so the wait is over.
        if service.generation.is_some_and(|known| known < generation) {
            service.generation = Some(generation);
            service.forget_crashes();
            service.is_awaited(now);
        }
        self.tell_service_state();
        self.tick_service(now)
    }

    /// What runs goes on: the hub waits for word of each generation.
    pub(super) fn service_spec_unusable(&mut self) {
        if self.setup.kind == InstanceKind::Service {
            self.tell_service_state();
        }
    }

    fn server_spec_changed(&mut self, generation: u64) -> io::Result<()> {
        let spec = |number: u64| self.specs.get(&number).map(|prepared| &prepared.spec);
        let before = self.service.generation;
        // One that an open task pins comes anew with a new shim, and doesn't count.
        if before.is_some_and(|before| before > generation) {
            return Ok(());
        }
        let running = self.service.running.as_ref().map(|running| &*running.spec);
        let known = running.or_else(|| before.and_then(spec));
        let same = known
            .zip(spec(generation))
            .is_some_and(|(known, new)| known.starts_the_same(new));
        let grace = Duration::from_millis(spec(generation).map_or(0, |spec| spec.grace_ms));
        self.service.generation = Some(generation);
        if same {
            return Ok(());
        }
        self.service.forget_crashes();
        self.service.end(grace, Instant::now(), true);
        self.tick_service(Instant::now())
    }

    pub(super) fn service_can_start(&self) -> bool {
        let service = &self.service;
        service.running.is_none()
            && !self.hold
            && !self.stopping
            && (self.is_mcp() || !service.tokens.is_empty())
            && service.generation.is_some_and(|generation| {
                let known = [generation, ANY_GENERATION];
                known.iter().any(|number| self.specs.contains_key(number))
            })
    }

    pub(super) fn tick_service(&mut self, now: Instant) -> io::Result<()> {
        if let Some(process) = self.service.process_mut() {
            process.kill_if_due(now);
        }
        if self.service.due.is_some_and(|due| due <= now) && self.service_can_start() {
            let facts = self.launch_service()?;
            self.service_started(facts)?;
        }
        self.probe_service(now)
    }

    /// Starts the next process; returns the fact to write and, if it failed, why.
    fn launch_service(&mut self) -> io::Result<Fact> {
        self.service.due = None;
        let mcp = self.is_mcp();
        let token = if mcp {
            None
        } else {
            self.service.tokens.pop_front()
        };
        let incarnation = token
            .as_ref()
            .map_or(self.service.last_incarnation + 1, |token| token.incarnation);
        self.service.last_incarnation = incarnation;
        let bridged = if mcp {
            Some(self.bridge.pipes()?)
        } else {
            None
        };
        let prepared = self
            .service
            .generation
            .and_then(|generation| spec_for(&mut self.specs, generation));
        let Some(prepared) = prepared else {
            return Err(io::Error::other("a service was started without a spec"));
        };
        let (no_env, port) = (BTreeMap::new(), prepared.spec.service_port);
        let who = Who {
            token: token.as_ref().map(|token| token.token.as_str()),
            hub_env: token.as_ref().map_or(&no_env, |token| &token.env),
            slot: 0,
            says_ready: !mcp,
        };
        let standby = self.service.standby.take();
        let standby = match standby.filter(|standby| standby.incarnation == incarnation) {
            Some(standby) => Ok(standby),
            None => Standby::make(prepared, incarnation, &who, !mcp),
        };
        let started = standby.and_then(|standby| {
            let ends = Ends {
                stdin: bridged
                    .as_ref()
                    .map_or(standby.null.as_fd(), |(stdin, _)| stdin.as_fd()),
                stdout: bridged.as_ref().map(|(_, stdout)| stdout.as_fd()),
                ready: (!mcp).then_some(standby.ready_writer.as_fd()),
            };
            let process = Process::start(prepared, standby.made, &ends)?;
            Ok((process, standby.ready_reader, prepared.spec.clone()))
        });
        match started {
            Ok((process, ready_reader, spec)) => {
                let pid = process.pid;
                let probe = port.map(|_| (Instant::now() + PROBE_FIRST, PROBE_FIRST));
                self.service.running = Some(Running {
                    incarnation,
                    process,
                    spec: Box::new(spec),
                    since: Instant::now(),
                    ready: false,
                    ready_pipe: (!mcp).then_some(ready_reader),
                    probe,
                });
                Ok(Fact::ServiceStarted { incarnation, pid })
            }
            Err(StartFailure(reason)) => Ok(self.service_failed(incarnation, reason)),
        }
    }

    /// Makes what the next start will need. An MCP server's pipes belong to its bridge.
    pub(super) fn prepare_service(&mut self) {
        let service = &mut self.service;
        if service.standby.is_some() || service.running.is_none() {
            return;
        }
        let prepared = service
            .generation
            .and_then(|generation| spec_for(&mut self.specs, generation));
        if let Some((prepared, next)) = prepared.zip(service.tokens.front()) {
            let who = Who {
                token: Some(&next.token),
                hub_env: &next.env,
                slot: 0,
                says_ready: true,
            };
            // What can't be made now is tried again, and told, when it is needed.
            service.standby = Standby::make(prepared, next.incarnation, &who, true).ok();
        }
    }

    fn service_failed(&mut self, incarnation: u32, reason: String) -> Fact {
        self.bridge.server_ended();
        let delay_ms = self.service_backoff(&Evidence::default());
        self.stderr_log
            .header(&format!("process {incarnation}: {reason}"));
        self.tell_false_start(&reason);
        Fact::ServiceEnded {
            incarnation,
            exit: never_started(reason),
            delay_ms,
        }
    }

    /// Sets when the next process is due; returns the delay.
    fn service_backoff(&mut self, evidence: &Evidence) -> u64 {
        let decision = decide(Kind::Service, evidence, self.service.backoff, !self.idle);
        self.service.backoff = decision.backoff;
        let again = std::mem::take(&mut self.service.again);
        let restarts = decision.restart || again;
        let delay = Duration::from_millis(decision.delay_ms);
        self.service.due = (restarts && !self.stopping).then(|| Instant::now() + delay);
        decision.delay_ms
    }

    fn service_started(&mut self, fact: Fact) -> io::Result<()> {
        let started = matches!(fact, Fact::ServiceStarted { .. });
        if let Fact::ServiceStarted { incarnation, .. } = fact {
            let header = format!("process {incarnation}");
            self.stdout_log.header(&header);
            self.stderr_log.header(&header);
        }
        self.record(fact, FLUSH_DELAY)?;
        if !started {
            return Ok(());
        }
        let mcp = self.is_mcp();
        if let Some(running) = &mut self.service.running {
            watch(&self.reactor, &running.process)?;
            if let Some(pipe) = &running.ready_pipe {
                self.reactor.add(pipe)?;
            }
        }
        if mcp {
            self.bridge.server_started(&self.reactor)?;
            return self.service_is_ready();
        }
        self.tell_service_state();
        Ok(())
    }

    fn tell_service_state(&mut self) {
        let state = self.service_state();
        self.tell_hubs(&FromShim::Service { state });
    }

    /// The child wrote to the ready descriptor, or closed it.
    pub(super) fn service_ready_byte(&mut self) -> io::Result<()> {
        let Some(running) = &mut self.service.running else {
            return Ok(());
        };
        let Some(pipe) = &running.ready_pipe else {
            return Ok(());
        };
        let mut buffer = [0; 64];
        let read = rustix::io::read(pipe, &mut buffer);
        if read == Err(rustix::io::Errno::AGAIN) {
            return Ok(());
        }
        self.reactor.remove(pipe);
        running.ready_pipe = None;
        match read {
            Ok(count) if count > 0 => self.service_is_ready(),
            // Closed unwritten: its port decides, if it has one.
            _ => Ok(()),
        }
    }

    fn service_is_ready(&mut self) -> io::Result<()> {
        let Some(running) = self
            .service
            .running
            .as_mut()
            .filter(|running| !running.ready)
        else {
            return Ok(());
        };
        running.ready = true;
        running.probe = None;
        let incarnation = running.incarnation;
        let since = self.service.ended_at.take();
        if !self.is_mcp() {
            self.tell_of_use();
        }
        let fact = Fact::ServiceReady {
            incarnation,
            recovery_ms: since.map(|since| since.elapsed().as_secs_f64() * 1000.0),
        };
        self.tell_service_state();
        self.record(fact, Duration::ZERO)
    }

    fn probe_service(&mut self, now: Instant) -> io::Result<()> {
        let Some(running) = self.service.running.as_mut() else {
            return Ok(());
        };
        let Some(port) = running.spec.service_port else {
            return Ok(());
        };
        let Some((_, wait)) = running.probe.filter(|(at, _)| *at <= now) else {
            return Ok(());
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok() {
            return self.service_is_ready();
        }
        let wait = (wait * 2).min(PROBE_MOST);
        running.probe = Some((Instant::now() + wait, wait));
        Ok(())
    }

    /// Tells the keeper whether a process that has ended had been of use. One that was asked to end
    /// or killed from outside says nothing.
    fn tell_use(&mut self, running: &Running, exit: &Exit) {
        let of_use = match self.is_mcp() {
            true => running.since.elapsed() >= SERVER_OF_USE,
            false => running.ready,
        };
        if of_use {
            self.tell_of_use();
        } else if !exit.asked && (exit.oom || exit.signal != Some(libc_signal::KILL)) {
            let program = running.spec.command.first().map_or("", String::as_str);
            self.tell_false_start(&came_to_nothing(program, exit));
        }
    }

    /// The service's first process has ended. `alone`: nothing else of it can be left.
    pub(super) fn service_ended(&mut self, ended: Ended, alone: bool) -> io::Result<()> {
        let Some(mut running) = self.service.running.take() else {
            return Ok(());
        };
        self.service.ended_at = Some(Instant::now());
        if !alone {
            let helpers: Vec<u32> = self.helpers.iter().copied().collect();
            self.reaped.extend(running.process.end_tree(&[], &helpers));
        }
        if let Some(pipe) = &running.ready_pipe {
            self.reactor.remove(pipe);
        }
        self.end_bridge_session()?;
        let mut exit = running.process.exit(ended, &mut self.memory);
        let evidence = Evidence {
            code: exit.code,
            signal: exit.signal,
            oom: exit.oom,
            asked: exit.asked,
            cut_off: false,
            ready: running.ready,
        };
        let delay_ms = self.service_backoff(&evidence);
        let next = if delay_ms == 0 && self.service.due.is_some() && self.service_can_start() {
            Some(self.launch_service()?)
        } else {
            None
        };
        self.finish_output(&mut running.process);
        exit.stderr_tail
            .push_str(&running.process.stderr.take_tail());
        (exit.stdout, exit.stdout_truncated) = (String::new(), false);
        self.tell_use(&running, &exit);
        let fact = Fact::ServiceEnded {
            incarnation: running.incarnation,
            exit,
            delay_ms,
        };
        self.record(fact, FLUSH_DELAY)?;
        match next {
            Some(next) => self.service_started(next),
            None => {
                self.tell_service_state();
                Ok(())
            }
        }
    }
}

/// A false start in words: how it ended, and the last thing it said.
fn came_to_nothing(program: &str, exit: &Exit) -> String {
    let how = match (exit.code, exit.signal) {
        _ if exit.oom => "for want of memory".to_owned(),
        (Some(code), _) => format!("with exit code {code}"),
        (None, signal) => format!("by signal {}", signal.unwrap_or(0)),
    };
    let last = exit
        .stderr_tail
        .lines()
        .rfind(|line| !line.trim().is_empty());
    let last = last.map_or_else(String::new, |line| format!(": {}", line.trim()));
    format!("{program} ended {how} before it was ready{last}")
}
