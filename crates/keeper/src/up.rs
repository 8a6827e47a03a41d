//! `mainstay up`: one hub and one shim per instance, from the first bind to the last reaped child.
//!
//! One thread, one epoll. Starting: lock, manifests, old hub, listeners, old shims, new hub. Then
//! whatever comes: the hub's messages, ends of processes, changed files, signals. Ending: the hub
//! finishes, the shims end their agents, nothing is left behind.

mod apply;
mod credentials;
mod doors;
mod hub_link;
mod options;
mod pursue;
mod reconcile;
mod stop;
mod tidy;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use contract::keeper::ListenerPurpose;
use sandbox::process::Reaped;
use sandbox::signals::SignalFd;

use crate::allocation::Allocation;
use crate::generation::Generation;
use crate::hub::{self, AfterDeath, Hub};
use crate::instance::{self, Adopted, Running};
use crate::listener::Listener;
use crate::manifest::Set;
use crate::reactor::{Event, Reactor};
use crate::state::State;
use crate::users::Users;
use doors::{announcement, door};
use watch::{Seen, WATCH_EVERY, warn};

pub use options::{Ended, Options, Ready, UpError};

/// Without a ready hub for this long, connections are refused instead of waiting.
const REFUSE_AFTER: Duration = Duration::from_secs(5);
/// How long the hub of a killed keeper may take to finish.
const OLD_HUB_PATIENCE: Duration = Duration::from_secs(20);
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

struct Keeper {
    options: Options,
    state: State,
    key: Vec<u8>,
    landlock: bool,
    reactor: Reactor,
    signals: SignalFd,
    hub: Hub,
    facade: Listener,
    control: Listener,
    metrics: Option<Listener>,
    refusing: bool,
    allocation: Allocation,
    running: BTreeMap<String, Running>,
    /// Shims of an earlier keeper, until the first reconciliation.
    adopted: Vec<Adopted>,
    /// Gateways of instances between two shims.
    spare: BTreeMap<String, Listener>,
    /// The one workspace of this state.
    workspace: String,
    /// What should run; `None`: what the hub's current generation says.
    desired: Option<Set>,
    proposed: Vec<Generation>,
    /// Changes by `apply` and `delete` that the hub has not taken yet.
    unanswered: Vec<apply::Unanswered>,
    active: Option<Generation>,
    pins: Vec<u64>,
    stopped: BTreeSet<String>,
    reconcile_at: Option<Instant>,
    /// Proposing failed (a full disk); it is tried again then.
    pursue_at: Option<Instant>,
    seen: Seen,
    /// Files that the given manifests name as credentials.
    credential_files: Vec<String>,
    /// The last look at the manifests found a problem.
    save_is_broken: bool,
    watch_at: Instant,
    announced: bool,
    /// Warnings about what runs that the person has seen.
    told: BTreeSet<String>,
    stopping: Option<stop::Stopping>,
}

/// Runs until it is told to end. The process must have one thread.
pub fn up(options: Options) -> Result<Ended, UpError> {
    // Modes are set where they matter; the caller's mask must not take the hub's group out of them.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut keeper = Keeper::start(options)?;
    let ended = keeper.run();
    if ended.is_err() {
        keeper.abandon();
    }
    ended
}

/// A line for the person at the terminal; one that is gone is no reason to stop.
fn say(text: &str) {
    let _terminal_gone = writeln!(io::stderr(), "{text}");
}

impl Keeper {
    fn start(options: Options) -> Result<Self, UpError> {
        sandbox::process::hide_memory()?;
        sandbox::process::become_subreaper()?;
        let users = Users::detect();
        let state = State::open(&options.state, users)?;
        for warning in &state.warnings {
            say(&format!("warning: {warning}"));
        }
        let key = state.key()?;
        let (desired, seen) = Self::read_desired(&options, &state);
        let desired = desired.map_err(UpError::Manifests)?;
        if let Some(set) = &desired {
            warn(set, &options.manifests);
        }
        let wanted = desired.as_ref().map(|set| set.fleet.workspace.as_str());
        let workspace = state.choose_workspace(wanted)?;
        hub::wait_for_old(&state, OLD_HUB_PATIENCE)?;
        let facade = door(ListenerPurpose::Facade, options.listen, "--listen")?;
        let metrics = options
            .metrics
            .map(|address| door(ListenerPurpose::Metrics, address, "--metrics"))
            .transpose()?;
        let control = Listener::control(&state)?;
        let signals = SignalFd::new(&[SIGCHLD, SIGTERM, SIGINT])?;
        let reactor = Reactor::new()?;
        reactor.add(&signals)?;
        let landlock = !users.separate && sandbox::confine::ruleset(&[], &[])?.is_some();
        let mut keeper = Self {
            adopted: instance::adopt_all(&state),
            allocation: Allocation::open(&state)?,
            hub: Hub::new(options.hub.clone()),
            seen: Seen::default(),
            credential_files: Vec::new(),
            save_is_broken: false,
            options,
            state,
            key,
            workspace,
            landlock,
            reactor,
            signals,
            facade,
            control,
            metrics,
            refusing: false,
            running: BTreeMap::new(),
            spare: BTreeMap::new(),
            desired,
            proposed: Vec::new(),
            unanswered: Vec::new(),
            active: None,
            pins: Vec::new(),
            stopped: BTreeSet::new(),
            reconcile_at: None,
            pursue_at: None,
            watch_at: Instant::now() + WATCH_EVERY,
            announced: false,
            told: BTreeSet::new(),
            stopping: None,
        };
        keeper.look_for_credentials();
        keeper.has_seen(seen);
        Ok(keeper)
    }

    fn run(&mut self) -> Result<Ended, UpError> {
        loop {
            for event in self.reactor.wait(Some(self.deadline()))? {
                self.handle(event)?;
            }
            if let Some(ended) = self.tick()? {
                return Ok(ended);
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), UpError> {
        if event.fd == self.signals.as_fd().as_raw_fd() {
            return self.take_signals();
        }
        if Some(event.fd) == self.hub.link_fd() {
            for message in self.hub.receive() {
                self.take_from_hub(message)?;
            }
            return Ok(());
        }
        let by_link = |running: &Running| running.link_fd() == Some(event.fd);
        let by_pidfd = |running: &Running| running.pidfd.as_raw_fd() == event.fd;
        let found = self
            .running
            .iter()
            .find(|(_, running)| by_link(running) || by_pidfd(running))
            .map(|(name, running)| (name.clone(), by_pidfd(running)));
        match found {
            Some((name, true)) => self.shim_died(&name),
            Some((name, false)) => self.shim_speaks(&name),
            None => {}
        }
        Ok(())
    }

    fn shim_speaks(&mut self, name: &str) {
        let Some(running) = self.running.get_mut(name) else {
            return;
        };
        let changed = running.receive();
        for sentence in std::mem::take(&mut running.out_of_reach) {
            let text = format!("warning: {}: {sentence}", running.planned.owner);
            // Once for all its instances, and for each generation that says the same.
            if self.told.insert(text.clone()) {
                say(&text);
            }
        }
        if changed {
            self.send_instances();
        }
    }

    fn take_signals(&mut self) -> Result<(), UpError> {
        while let Some((signal, _)) = self.signals.take()? {
            match signal {
                SIGTERM => self.stop(Ended::Stopped),
                SIGINT => self.stop(Ended::Interrupted),
                _ => self.reap()?,
            }
        }
        Ok(())
    }

    /// Reaps the hub, shims (their pidfds tell the rest) and orphans of dead shims.
    fn reap(&mut self) -> Result<(), UpError> {
        while let Reaped::Child(pid, ended) = sandbox::process::reap_any()? {
            let is_hub = self.hub.process.as_ref().is_some_and(|hub| hub.pid == pid);
            if !is_hub {
                continue;
            }
            if let Some(process) = &self.hub.process {
                self.reactor.remove(&process.link);
            }
            let after = self.hub.died(ended);
            self.forget_requests();
            if self.stopping.is_some() {
                self.hub.start_at = None;
                continue;
            }
            let how = hub::words(ended);
            match after {
                AfterDeath::Restart => say(&format!(
                    "mainstay: the hub ended {how} and is started again"
                )),
                AfterDeath::Rest => say(&format!(
                    "mainstay: the hub ended {how} each time it was started; what it said stands above. It is tried once a minute, and the agents that run go on"
                )),
                AfterDeath::GiveUp(code) => {
                    say(&format!("mainstay: the hub ended {how}"));
                    return Err(UpError::Hub { code });
                }
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<Option<Ended>, UpError> {
        let now = Instant::now();
        if self.stopping.is_some() {
            return Ok(self.tick_stop(now));
        }
        if self.hub.start_at.is_some_and(|at| at <= now) {
            self.start_hub()?;
        }
        if self.reconcile_at.is_some_and(|at| at <= now) {
            self.reconcile()?;
        }
        if self.pursue_at.is_some_and(|at| at <= now) {
            self.pursue_if_possible();
        }
        let refuse_at = self.hub.not_ready_since.map(|since| since + REFUSE_AFTER);
        if !self.refusing && refuse_at.is_some_and(|at| at <= now) {
            self.refuse();
        }
        if self.watch_at <= now {
            self.watch();
        }
        self.flush_links();
        Ok(None)
    }

    fn deadline(&self) -> Instant {
        if let Some(stopping) = &self.stopping {
            return stopping.deadline();
        }
        let refuse = self.hub.not_ready_since.map(|since| since + REFUSE_AFTER);
        let times = [
            self.hub.start_at,
            self.reconcile_at,
            self.pursue_at,
            refuse.filter(|_| !self.refusing),
            self.unsent()
                .then(|| Instant::now() + Duration::from_millis(5)),
        ];
        times
            .into_iter()
            .flatten()
            .fold(self.watch_at, Instant::min)
    }

    /// Whether a peer's socket was full; it is tried again soon.
    fn unsent(&self) -> bool {
        let links = self
            .running
            .values()
            .filter_map(|running| running.link.as_ref());
        let hub = self.hub.process.as_ref().map(|hub| &hub.link);
        links.chain(hub).any(|link| link.unsent() > 0)
    }

    fn flush_links(&mut self) {
        let links = self
            .running
            .values_mut()
            .filter_map(|running| running.link.as_mut());
        let hub = self.hub.process.as_mut().map(|hub| &mut hub.link);
        for link in links.chain(hub) {
            // A broken link shows as readable and is handled there.
            let _broken = link.flush();
        }
    }
}
