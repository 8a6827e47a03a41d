//! `mainstay up`: one hub and one shim per instance, from the first bind to the last reaped child.
//!
//! One thread, one epoll. Starting: lock, manifests, old hub, listeners, old shims, new hub. Then
//! whatever comes: the hub's messages, ends of processes, changed files, signals. Ending: the hub
//! finishes, the shims end their agents, nothing is left behind.

mod apply;
mod reconcile;
mod stop;
mod tidy;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::Problems;
use contract::Versions;
use contract::keeper::{GenerationRef, ListenerPurpose, ToHub, ToKeeper};
use sandbox::process::Reaped;
use sandbox::signals::SignalFd;

use crate::allocation::Allocation;
use crate::generation::{self, Generation};
use crate::hub::{self, AfterDeath, Hub, HubCommand};
use crate::instance::{self, Adopted, Running};
use crate::listener::Listener;
use crate::manifest::{self, Knowledge, Set};
use crate::reactor::{Event, Reactor};
use crate::state::{State, StateError};
use crate::users::Users;

/// Without a ready hub for this long, connections are refused instead of waiting.
const REFUSE_AFTER: Duration = Duration::from_secs(5);
/// How long the hub of a killed keeper may take to finish.
const OLD_HUB_PATIENCE: Duration = Duration::from_secs(20);
const PURSUE_AGAIN: Duration = Duration::from_secs(5);
const WATCH_EVERY: Duration = Duration::from_millis(500);
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// Everything `up` is told.
pub struct Options {
    pub state: PathBuf,
    /// Files and directories; may be empty, then what was applied or ran before runs.
    pub manifests: Vec<PathBuf>,
    pub listen: SocketAddr,
    /// Where metrics are read without a token, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Our own binary: runs as `PROGRAM runtime` for built-in agents.
    pub program: PathBuf,
    pub hub: HubCommand,
    pub knowledge: Knowledge,
    /// Called once, when the first hub is ready.
    pub on_ready: Box<dyn FnMut(&Ready)>,
}

/// What a person wants to know when the fleet is up.
#[derive(Clone, Debug)]
pub struct Ready {
    pub state: PathBuf,
    pub address: String,
    /// Monitors' own port, if there is one.
    pub metrics: Option<String>,
    pub isolation: String,
}

/// How `up` ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM.
    Stopped,
    /// SIGINT.
    Interrupted,
}

impl Ended {
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Interrupted => 130,
        }
    }
}

/// Why `up` ended otherwise.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error("{0}")]
    Manifests(Problems),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "cannot listen on {address}: something else does; stop it, or choose another address with {option}"
    )]
    Busy {
        address: SocketAddr,
        option: &'static str,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the hub cannot start; what it said stands above")]
    Hub { code: i32 },
    #[error("the kernel refuses what the keeper needs")]
    Kernel(#[from] io::Error),
}

impl UpError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Manifests(_) => 3,
            Self::Hub { code } => u8::try_from(*code).unwrap_or(1),
            Self::State(_) | Self::Busy { .. } | Self::Listen { .. } | Self::Kernel(_) => 1,
        }
    }
}

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
    active: Option<Generation>,
    pins: Vec<u64>,
    stopped: BTreeSet<String>,
    reconcile_at: Option<Instant>,
    /// Proposing failed (a full disk); it is tried again then.
    pursue_at: Option<Instant>,
    watched: String,
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
        let mut desired = Self::resolve_desired(&options, &state).map_err(UpError::Manifests)?;
        if let Some(set) = &mut desired {
            warn(set);
            generation::store_sources(&state, set).map_err(UpError::Manifests)?;
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
            watched: String::new(),
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
        keeper.watched = keeper.signature();
        Ok(keeper)
    }

    /// What should run: the given manifests with what was applied; `None` if there is neither.
    fn resolve_desired(options: &Options, state: &State) -> Result<Option<Set>, Problems> {
        let mut documents = manifest::collect(&options.manifests, &state.root)?;
        documents.extend(apply::stored(state, &documents));
        if documents.is_empty() && options.manifests.is_empty() {
            return Ok(None);
        }
        manifest::resolve(documents, &options.knowledge).map(Some)
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
            if self.stopping.is_some() {
                self.hub.start_at = None;
                continue;
            }
            say(&format!(
                "mainstay: the hub ended ({ended:?}) and is started again"
            ));
            if let AfterDeath::GiveUp(code) = after {
                return Err(UpError::Hub { code });
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

    fn start_hub(&mut self) -> Result<(), UpError> {
        let isolation = instance::isolation(self.state.users.separate, self.landlock);
        if let Err(error) = self
            .hub
            .start(&self.state, &self.key, &isolation, &self.workspace)
        {
            let mut text = format!("mainstay: cannot start the hub: {error}");
            if let Some(cause) = std::error::Error::source(&error) {
                text.push_str(&format!(": {cause}"));
            }
            say(&text);
            if let AfterDeath::GiveUp(code) = self.hub.died(sandbox::process::Ended::Code(1)) {
                return Err(UpError::Hub { code });
            }
            return Ok(());
        }
        if let Some(process) = &self.hub.process {
            self.reactor.add(&process.link)?;
        }
        Ok(())
    }

    fn take_from_hub(&mut self, message: ToKeeper) -> Result<(), UpError> {
        match message {
            ToKeeper::Hello {
                versions,
                current_generation,
                ..
            } => self.hub_says_hello(versions, current_generation),
            ToKeeper::Ready => {
                self.hub_is_ready();
                Ok(())
            }
            ToKeeper::GenerationCommitted { number } => self.generation_committed(number),
            ToKeeper::GenerationRefused { number, problems } => {
                self.proposed.retain(|other| other.number != number);
                for problem in problems {
                    say(&format!("error: {problem}"));
                }
                say("mainstay: what runs keeps running");
                self.announce_ready();
                Ok(())
            }
            ToKeeper::Pins { generations } => {
                self.pins = generations;
                self.reconcile()?;
                self.tidy();
                Ok(())
            }
            ToKeeper::Stopped { agents } => {
                self.stopped = agents.into_iter().collect();
                self.reconcile()
            }
            ToKeeper::Restart { instance } => {
                if let Some(running) = self.running.get_mut(&instance) {
                    let grace = Duration::from_millis(running.planned.grace_ms());
                    running.stop(grace, true);
                }
                Ok(())
            }
            ToKeeper::Apply {
                request,
                documents,
                dry_run,
            } => self.apply(request, documents, dry_run),
            ToKeeper::Delete {
                request,
                objects,
                dry_run,
            } => self.delete(request, objects, dry_run),
        }
    }

    fn hub_says_hello(
        &mut self,
        versions: Versions,
        current: Option<GenerationRef>,
    ) -> Result<(), UpError> {
        if versions.agree(Versions::OURS).is_none() {
            say(
                "mainstay: the hub speaks other versions than this keeper: they are of different builds",
            );
            self.hub.kill();
            return Ok(());
        }
        if let Some(process) = &mut self.hub.process {
            process.current = Some(current);
        }
        if !self.refusing {
            self.announce_listeners();
        }
        self.pursue_if_possible();
        Ok(())
    }

    /// Compares what should run with what the hub says is current, and proposes or reconciles.
    fn pursue(&mut self, current: Option<GenerationRef>) -> Result<(), UpError> {
        let number = current.as_ref().map_or(0, |current| current.number);
        let wanted = self.desired.as_ref().map(|set| set.fleet.hash());
        let settled = match (&wanted, &current) {
            (Some(wanted), Some(current)) => *wanted == current.hash,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if settled {
            self.proposed.clear();
            let desired = self.desired.as_ref().zip(wanted);
            self.active = generation::load(&self.state, number).or_else(|| {
                desired.map(|(set, hash)| Generation {
                    number,
                    hash,
                    fleet: set.fleet.clone(),
                })
            });
            if self.active.is_none() && number > 0 {
                say(&format!(
                    "mainstay: generation {number} is not in the state any more; apply the manifests again"
                ));
            }
            return self.reconcile();
        }
        if let Some(set) = &self.desired {
            let written = generation::write(&self.state, set, number)?;
            self.hub.send(
                &ToHub::GenerationProposed {
                    number: written.number,
                    hash: written.hash.clone(),
                },
                Vec::new(),
            );
            self.proposed.retain(|other| other.number != written.number);
            self.proposed.push(written);
        }
        Ok(())
    }

    fn generation_committed(&mut self, number: u64) -> Result<(), UpError> {
        let Some(index) = self
            .proposed
            .iter()
            .position(|other| other.number == number)
        else {
            tracing::warn!(number, "hub committed a generation that was not proposed");
            return Ok(());
        };
        let committed = self.proposed.remove(index);
        self.proposed.retain(|other| other.number > number);
        if let Some(process) = &mut self.hub.process {
            process.current = Some(Some(GenerationRef {
                number,
                hash: committed.hash.clone(),
            }));
        }
        self.active = Some(committed);
        self.reconcile()?;
        self.announce_ready();
        Ok(())
    }

    fn hub_is_ready(&mut self) {
        self.hub.became_ready();
        if self.refusing {
            self.refusing = false;
            self.accept_again();
            self.announce_listeners();
        }
        self.announce_ready();
    }

    /// Says once that the fleet is up: a hub is ready, and has these manifests.
    fn announce_ready(&mut self) {
        if !self.announced && self.hub.not_ready_since.is_none() && self.proposed.is_empty() {
            self.announced = true;
            let ready = Ready {
                state: self.state.root.clone(),
                address: self.facade.address.clone(),
                metrics: self.metrics.as_ref().map(|own| own.address.clone()),
                isolation: instance::isolation(self.state.users.separate, self.landlock),
            };
            (self.options.on_ready)(&ready);
        }
    }

    fn listeners_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        let gateways = self
            .running
            .values_mut()
            .map(|running| &mut running.listener);
        [&mut self.facade, &mut self.control]
            .into_iter()
            .chain(&mut self.metrics)
            .chain(gateways)
            .chain(self.spare.values_mut())
    }

    fn refuse(&mut self) {
        self.refusing = true;
        for listener in self.listeners_mut() {
            listener.refuse();
        }
        // A Unix listener can't come back after a shutdown: its path goes instead.
        let _gone = std::fs::remove_file(self.state.run("control.sock"));
    }

    fn accept_again(&mut self) {
        match Listener::control(&self.state) {
            Ok(control) => self.control = control,
            Err(error) => say(&format!(
                "mainstay: cannot open the control socket: {error}"
            )),
        }
        for listener in self.listeners_mut() {
            if let Err(error) = listener.accept_again() {
                say(&format!(
                    "mainstay: cannot listen on {} again: {error}",
                    listener.address
                ));
            }
        }
    }

    fn announce_listeners(&mut self) {
        let announcements: Vec<_> = self
            .listeners_mut()
            .filter_map(|listener| Some((announcement(listener), listener.share().ok()?)))
            .collect();
        for (message, socket) in announcements {
            self.hub.send(&message, vec![socket]);
        }
    }

    fn signature(&self) -> String {
        let sources: Vec<PathBuf> = self.desired.iter().flat_map(sources).collect();
        manifest::signature(&self.options.manifests, &sources, &self.state.root)
    }

    /// Follows saved files; a broken save keeps what runs.
    fn watch(&mut self) {
        let before = Instant::now();
        let signature = self.signature();
        let cost = before.elapsed();
        self.watch_at = Instant::now() + WATCH_EVERY.max(cost * 50);
        if signature == self.watched {
            return;
        }
        let resolved = Self::resolve_desired(&self.options, &self.state).and_then(|mut desired| {
            if let Some(set) = &mut desired {
                generation::store_sources(&self.state, set)?;
            }
            Ok(desired)
        });
        match resolved {
            Ok(desired) => {
                desired.iter().for_each(warn);
                if std::mem::take(&mut self.save_is_broken) {
                    say("mainstay: the manifests are right again");
                }
                self.desired = desired;
                self.watched = self.signature();
                self.pursue_if_possible();
            }
            Err(problems) => {
                self.watched = signature;
                self.save_is_broken = true;
                say(&format!("{problems}\nmainstay: what runs keeps running"));
            }
        }
    }

    /// Pursues the desired set with a hub that is past its hello; else its hello does.
    fn pursue_if_possible(&mut self) {
        let Some(current) = self.hub.current().cloned() else {
            return;
        };
        self.pursue_at = None;
        if let Err(error) = self.pursue(current) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_default();
            say(&format!(
                "mainstay: what should run can't be put into effect: {error} {cause}"
            ));
            self.pursue_at = Some(Instant::now() + PURSUE_AGAIN);
        }
    }
}

/// A listener, or which option chooses another address.
fn door(
    purpose: ListenerPurpose,
    address: SocketAddr,
    option: &'static str,
) -> Result<Listener, UpError> {
    Listener::door(purpose, address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => UpError::Busy { address, option },
        _ => UpError::Listen { address, source },
    })
}

fn announcement(listener: &Listener) -> ToHub {
    ToHub::Listener {
        purpose: listener.purpose.clone(),
        address: listener.address.clone(),
    }
}

fn sources(set: &Set) -> Vec<PathBuf> {
    let agents = set.fleet.agents.values();
    agents
        .filter_map(|agent| agent.source.as_ref())
        .map(|source| PathBuf::from(&source.path))
        .collect()
}

fn warn(set: &Set) {
    for warning in &set.warnings {
        say(&format!("warning: {warning}"));
    }
}
