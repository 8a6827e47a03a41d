//! The hub's service: starts on what the home gives, follows the home's events, ends in order.
//!
//! Here every channel of the hub is made, and its bound stands there. The loop hands listeners to
//! the edges, keeps one link per instance as the keeper lists them, and ticks. It never waits for a
//! shim or a client, and decides nothing about tasks: that is the writer's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use api::fleet::Fleet;
use contract::Versions;
use contract::keeper::{GenerationRef, Instance, InstanceKind, ListenerPurpose, ToHub, ToKeeper};
use store::{Place, Trouble};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use crate::ground::{Ground, Machine};
use crate::home::{HomeEvent, HomeLink, Listener};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::readers::Readers;
use crate::secret::SecretStore;
use crate::shared::{Live, Shared, lock, write};
use crate::state::{Clocks, InstanceState, State};
use crate::stream::Streams;
use crate::tx::Tx;
use crate::writer::Writer;
use crate::{Code, Hub, HubError, Outlets, boot, link, projection};

/// How long calls in flight may go on when the hub is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// An attempt on an instance that stays away this long is lost, unless its home says otherwise.
const REATTACH_MS: u64 = 3000;
const TICK: Duration = Duration::from_millis(250);
/// A new state's first fleet comes with its keeper; without one by then there is none.
const FIRST_FLEET: Duration = Duration::from_secs(1);

/// What the hub is started with.
#[derive(Debug)]
pub struct Options {
    pub home: HomeLink,
    /// Names this hub in the log: its process id.
    pub pid: u32,
    /// The 32-byte state key from the keeper.
    pub state_key: [u8; 32],
    pub state_dir: PathBuf,
    /// The workspace's name.
    pub workspace: String,
}

/// Where a hub's two logs lie.
#[derive(Clone, Debug)]
struct Stores {
    log: Place,
    system: Place,
    /// Where others who want the logs find this hub.
    address: Option<String>,
}

impl Stores {
    fn directories(options: &Options) -> Self {
        Self {
            log: Place::Directory(workspace_dir(options)),
            system: Place::Directory(options.state_dir.join("system")),
            address: None,
        }
    }

    fn on_server(
        server: &store::Server,
        address: Option<String>,
        options: &Options,
    ) -> Result<Self, store::ServerError> {
        Ok(Self {
            system: Place::Server {
                server: server.beside("system")?,
                dir: options.state_dir.join("system"),
            },
            log: Place::Server {
                server: server.clone(),
                dir: workspace_dir(options),
            },
            address,
        })
    }

    /// Opens both and reads the state. It blocks, on a server for as long as another hub writes there.
    fn open(
        &self,
        ground: &Arc<dyn Ground>,
        keys: &Keys,
        workspace: &str,
        state_dir: &Path,
    ) -> Result<State, HubError> {
        let address = self.address.as_deref();
        let log = boot::open_log(ground, &self.log, workspace, keys, address)?;
        let system = boot::open_log(ground, &self.system, "system", keys, address)?;
        boot::state(log, system, state_dir, Clocks::read(ground.as_ref()))
    }
}

fn workspace_dir(options: &Options) -> PathBuf {
    let workspaces = options.state_dir.join("workspaces");
    workspaces.join(&options.workspace)
}

/// The running service: what `start` spawned.
struct Service {
    hub: Hub,
    events: mpsc::Receiver<HomeEvent>,
    gateway: mpsc::Sender<(String, std::net::TcpListener)>,
    facade: mpsc::Sender<std::net::TcpListener>,
    control: mpsc::Sender<std::os::unix::net::UnixListener>,
    metrics: mpsc::Sender<std::net::TcpListener>,
    links: HashMap<String, (Instance, AbortHandle)>,
    pid: u32,
}

impl Hub {
    /// Opens the state and serves until the home says stop. The second value ends with the service.
    pub async fn start(
        options: Options,
    ) -> Result<(Self, JoinHandle<Result<(), HubError>>), HubError> {
        Self::start_on(Arc::new(Machine), options).await
    }

    /// The same on another ground than the machine: for sweeps and simulations.
    pub async fn start_on(
        ground: Arc<dyn Ground>,
        options: Options,
    ) -> Result<(Self, JoinHandle<Result<(), HubError>>), HubError> {
        let stores = Stores::directories(&options);
        let keys = Keys::derive(&options.state_key);
        let state = stores.open(&ground, &keys, &options.workspace, &options.state_dir)?;
        Self::serve(ground, options, keys, stores.log, state).await
    }

    /// The same with the logs on a server, where hubs stand by for one another: this waits until no other writes.
    /// `address` is where they find this one.
    pub async fn start_on_server(
        server: &store::Server,
        address: Option<String>,
        options: Options,
    ) -> Result<(Self, JoinHandle<Result<(), HubError>>), HubError> {
        let internal = |error: &dyn std::fmt::Display| {
            HubError::new(Code::Internal, format!("failed to open the logs: {error}"))
        };
        let stores =
            Stores::on_server(server, address, &options).map_err(|error| internal(&error))?;
        let ground: Arc<dyn Ground> = Arc::new(Machine);
        let (on, workspace) = (Arc::clone(&ground), options.workspace.clone());
        let (place, state_dir) = (stores.log.clone(), options.state_dir.clone());
        let state_key = options.state_key;
        let opening = tokio::task::spawn_blocking(move || {
            let keys = Keys::derive(&state_key);
            let state = stores.open(&on, &keys, &workspace, &state_dir)?;
            Ok::<_, HubError>((keys, state))
        });
        let (keys, state) = opening.await.map_err(|error| internal(&error))??;
        Self::serve(ground, options, keys, place, state).await
    }

    async fn serve(
        ground: Arc<dyn Ground>,
        options: Options,
        keys: Keys,
        place: Place,
        state: State,
    ) -> Result<(Self, JoinHandle<Result<(), HubError>>), HubError> {
        let workspace_dir = workspace_dir(&options);
        let size = state.log.size();
        let log_health = [state.log.health(), state.system.health()];
        let (actions, action_queue) = mpsc::unbounded_channel();
        let (service_calls, service_queue) = mpsc::channel(1024);
        let (gateway, gateway_queue) = mpsc::channel(256);
        let (facade, facade_queue) = mpsc::channel(4);
        let (control, control_queue) = mpsc::channel(4);
        let (metrics, metrics_queue) = mpsc::channel(4);
        let current = state
            .generation
            .as_ref()
            .and_then(|current| state.fleets.get(&current.number))
            .cloned();
        let shared = Arc::new(Shared {
            ground,
            keys,
            secrets: SecretStore::new(&workspace_dir),
            state_dir: options.state_dir,
            workspace_dir,
            metrics: Metrics::new(),
            streams: Streams::new(size),
            today: RwLock::new(
                current.unwrap_or_else(|| Arc::new(Fleet::empty(&options.workspace))),
            ),
            callers: RwLock::default(),
            services: RwLock::default(),
            links: Mutex::default(),
            keeper: options.home.commands,
            actions,
            calls: Mutex::default(),
            service_calls,
            spools: Mutex::default(),
            live: Arc::new(Live::default()),
            conversations: Arc::default(),
            waiters: Mutex::default(),
            applies: Mutex::default(),
            log_health,
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            rows_lag: AtomicBool::new(false),
            stop: Notify::new(),
            spawned: AtomicU64::new(0),
            reattach_ms: AtomicU64::new(REATTACH_MS),
            shim_pids: RwLock::default(),
            bridges: RwLock::default(),
        });
        let (writer, written) = Writer::start(state, Arc::clone(&shared)).map_err(|error| {
            HubError::new(
                Code::Internal,
                format!("failed to start the writer: {error}"),
            )
        })?;
        let outlets = Outlets {
            gateway: Mutex::new(Some(gateway_queue)),
            services: Mutex::new(Some(service_queue)),
            facade: Mutex::new(Some(facade_queue)),
            control: Mutex::new(Some(control_queue)),
            metrics: Mutex::new(Some(metrics_queue)),
        };
        let readers = Readers::new(place);
        let hub = Self {
            shared,
            writer,
            outlets: Arc::new(outlets),
            readers: Arc::new(readers),
        };
        let pid = options.pid;
        hub.writer.run(move |tx| boot::take_over(tx, pid)).await?;
        let service = Service {
            hub: hub.clone(),
            events: options.home.events,
            gateway,
            facade,
            control,
            metrics,
            links: HashMap::new(),
            pid,
        };
        let ground = &hub.shared.ground;
        ground.spawn(Box::pin(hub.clone().perform(action_queue)));
        ground.spawn(Box::pin(hub.clone().keep_retention()));
        #[allow(
            clippy::disallowed_methods,
            reason = "its owner waits for this one, which Ground::spawn has no handle for"
        )]
        let running = tokio::spawn(service.run(written));
        Ok((hub, running))
    }
}

impl Service {
    async fn run(mut self, written: oneshot::Receiver<()>) -> Result<(), HubError> {
        self.greet().await?;
        let mut tick = tokio::time::interval(TICK);
        let started = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.end_without_lease();
                    self.set_ready(started.elapsed() > FIRST_FLEET);
                    let settled = started.elapsed() > Duration::from_millis(REATTACH_MS);
                    let now = tokio::time::Instant::now();
                    self.hub.writer.run(move |tx| tx.tick(now, settled)).await?;
                }
                event = self.events.recv() => match event {
                    Some(HomeEvent::Message(ToHub::Stop)) => break,
                    None | Some(HomeEvent::Gone) => {
                        tracing::info!("the keeper is gone: finishing the commit and ending");
                        return self.end(written, Duration::ZERO).await;
                    }
                    Some(event) => self.event(event).await?,
                },
            }
        }
        self.end(written, DRAIN).await
    }

    /// Another hub writes: what this one would do next it may not do any more.
    fn end_without_lease(&self) {
        if self.hub.shared.trouble() == Trouble::Lost {
            tracing::error!("the log's lease is another hub's: this one ends");
            self.hub.shared.ground.end(74);
        }
    }

    /// Says hello, and what the log knows.
    async fn greet(&self) -> Result<(), HubError> {
        let (current, stopped) = self
            .hub
            .writer
            .run(|tx| {
                (
                    tx.state.generation.clone(),
                    tx.state.stopped.iter().cloned().collect(),
                )
            })
            .await?;
        let has_fleet = current.is_some();
        self.send(ToKeeper::Hello {
            versions: Versions::OURS,
            pid: self.pid,
            current_generation: current,
        });
        self.send(ToKeeper::Stopped { agents: stopped });
        self.send_pins().await?;
        self.set_ready(has_fleet);
        self.send(ToKeeper::Ready);
        Ok(())
    }

    /// Clients may come: a task for an agent of the manifests finds it.
    fn set_ready(&self, ready: bool) {
        self.hub.shared.ready.fetch_or(ready, Ordering::SeqCst);
    }

    fn send(&self, message: ToKeeper) {
        let _ = self.hub.shared.keeper.send(message);
    }

    async fn send_pins(&self) -> Result<(), HubError> {
        let generations = self.hub.writer.run(|tx| tx.pins()).await?;
        self.send(ToKeeper::Pins { generations });
        Ok(())
    }

    async fn event(&mut self, event: HomeEvent) -> Result<(), HubError> {
        match event {
            HomeEvent::Listener {
                purpose,
                address,
                listener,
            } => {
                self.listener(purpose, &address, listener).await;
                Ok(())
            }
            HomeEvent::CredentialFile { path, text } => {
                self.hub.shared.secrets.hand(path, text);
                Ok(())
            }
            HomeEvent::Message(message) => self.message(message).await,
            HomeEvent::Gone => Ok(()),
        }
    }

    async fn listener(&self, purpose: ListenerPurpose, address: &str, listener: Listener) {
        tracing::debug!(?purpose, address, "a listener is here");
        match (purpose, listener) {
            (ListenerPurpose::Gateway { instance }, Listener::Tcp(listener)) => {
                let _ = self.gateway.send((instance, listener)).await;
            }
            (ListenerPurpose::Facade, Listener::Tcp(listener)) => {
                let _ = self.facade.send(listener).await;
            }
            (ListenerPurpose::Metrics, Listener::Tcp(listener)) => {
                let _ = self.metrics.send(listener).await;
            }
            (ListenerPurpose::Control, Listener::Unix(listener)) => {
                let _ = self.control.send(listener).await;
            }
            (purpose, _) => tracing::warn!(?purpose, "a listener is of the wrong kind"),
        }
    }

    async fn message(&mut self, message: ToHub) -> Result<(), HubError> {
        match message {
            ToHub::GenerationProposed { number, hash } => {
                let dir = self.hub.shared.state_dir.clone();
                let Some(fleet) = boot::read_fleet(&dir, number) else {
                    return Ok(());
                };
                let taken = self
                    .hub
                    .writer
                    .run(move |tx| tx.generation(number, hash, fleet))
                    .await?;
                match taken {
                    Ok(()) => {
                        self.set_ready(true);
                        self.send(ToKeeper::GenerationCommitted { number });
                    }
                    Err(problems) => self.send(ToKeeper::GenerationRefused { number, problems }),
                }
                self.send_pins().await
            }
            ToHub::Instances { instances } => self.instances(instances).await,
            ToHub::Pods { draining } => self.hub.writer.run(move |tx| tx.pods(draining)).await,
            ToHub::Applied {
                request,
                generation,
                problems,
                summary,
            } => {
                if let Some(reply) = lock(&self.hub.shared.applies).remove(&request) {
                    let _ = reply.send(crate::view::ApplyView {
                        generation,
                        problems,
                        summary,
                    });
                }
                Ok(())
            }
            // Descriptors come as `HomeEvent::Listener`; the hello was read by the wiring.
            ToHub::Hello { .. }
            | ToHub::Listener { .. }
            | ToHub::CredentialFile { .. }
            | ToHub::Stop => Ok(()),
        }
    }

    /// Keeps one link per instance, as the keeper lists them.
    async fn instances(&mut self, instances: Vec<Instance>) -> Result<(), HubError> {
        let names: Vec<String> = instances
            .iter()
            .map(|instance| instance.name.clone())
            .collect();
        self.links.retain(|name, (_, link)| {
            let kept = names.contains(name);
            if !kept {
                link.abort();
            }
            kept
        });
        *write(&self.hub.shared.shim_pids) =
            instances.iter().map(|instance| instance.shim_pid).collect();
        let bridges = instances
            .iter()
            .filter(|instance| instance.kind == InstanceKind::Mcp);
        *write(&self.hub.shared.bridges) = bridges
            .map(|instance| (instance.owner.clone(), PathBuf::from(&instance.socket)))
            .collect();
        let listed = instances.clone();
        self.hub.writer.run(move |tx| tx.instances(listed)).await?;
        for instance in instances {
            let known = self.links.get(&instance.name);
            if known.is_some_and(|(known, _)| {
                known.shim_pid == instance.shim_pid && known.socket == instance.socket
            }) {
                continue;
            }
            if let Some((_, link)) = self.links.remove(&instance.name) {
                link.abort();
            }
            let link = self.hub.shared.ground.spawn(Box::pin(link::keep(
                self.hub.clone(),
                instance.name.clone(),
                instance.socket.clone().into(),
            )));
            self.links.insert(instance.name.clone(), (instance, link));
        }
        Ok(())
    }

    /// Stops accepting, drains, ends the writer, releases the logs.
    async fn end(self, written: oneshot::Receiver<()>, drain: Duration) -> Result<(), HubError> {
        let Self { hub, links, .. } = self;
        hub.shared.stopping.store(true, Ordering::SeqCst);
        hub.shared.stop.notify_waiters();
        hub.drain(drain).await;
        for (_, link) in links.into_values() {
            link.abort();
        }
        // The last job: everything queued before it is committed.
        let _ = hub.writer.run(|tx| tx.stop()).await;
        // Its end drops the sender.
        let _ = written.await;
        Ok(())
    }
}

impl Tx<'_> {
    /// A new generation is the current one from this commit on, unless it would change what is
    /// immutable.
    pub(crate) fn generation(
        &mut self,
        number: u64,
        hash: String,
        mut fleet: Fleet,
    ) -> Result<(), Vec<String>> {
        let ours = self.shared.workspace_dir.file_name().unwrap_or_default();
        if ours != fleet.workspace.as_str() {
            return Err(vec![format!(
                "this state is of workspace {}, and the manifests are of {}: run them with a --state of their own",
                ours.display(),
                fleet.workspace
            )]);
        }
        self.prompts(&mut fleet)?;
        let current = GenerationRef { number, hash };
        let body = projection::encode(&current);
        let row = store::Row::State(store::StateRow {
            kind: "generation".into(),
            key: "current".into(),
            body: body.clone(),
        });
        self.system("generation.applied", &number.to_string(), body, row);
        let fleet = Arc::new(fleet);
        *write(&self.shared.today) = Arc::clone(&fleet);
        self.state.fleets.insert(number, fleet);
        self.state.generation = Some(current);
        let pins = self.pins();
        self.state
            .fleets
            .retain(|known, _| *known == number || pins.contains(known));
        self.adopt_orphans();
        self.renew_tokens();
        self.dispatch();
        Ok(())
    }

    /// What a service's next process is given beside its token is today's, `secretEnv` too.
    fn renew_tokens(&mut self) {
        let services = self.state.instances.values();
        let linked: Vec<String> = services
            .filter(|state| state.linked && state.instance.kind == InstanceKind::Service)
            .map(|state| state.instance.name.clone())
            .collect();
        for name in linked {
            self.service_tokens(&name);
        }
    }

    /// Generations that open tasks pin.
    pub(crate) fn pins(&self) -> Vec<u64> {
        let pinned = self
            .state
            .tasks
            .values()
            .filter_map(|open| open.record.task.generation);
        pinned
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Those of the instances, which are pods, that get no more work.
    pub(crate) fn pods(&mut self, draining: Vec<String>) {
        self.state.pods = Some(draining.into_iter().collect());
        self.dispatch();
    }

    /// The keeper's list of instances.
    pub(crate) fn instances(&mut self, instances: Vec<Instance>) {
        let listed: Vec<String> = instances
            .iter()
            .map(|instance| instance.name.clone())
            .collect();
        for instance in instances {
            match self.state.instances.get_mut(&instance.name) {
                Some(state) => {
                    if state.instance.shim_pid != instance.shim_pid {
                        state.linked = false;
                        state.service = None;
                        state.attached = false;
                        state.idle = false;
                        state.ending.clear();
                        // Counted from now: the new shim may never come to speak.
                        state.gone_since = Some(tokio::time::Instant::now());
                    }
                    state.instance = instance;
                }
                None => {
                    let name = instance.name.clone();
                    self.state.instances.insert(name, new_instance(instance));
                }
            }
        }
        let gone: Vec<String> = self
            .state
            .instances
            .keys()
            .filter(|name| !listed.contains(name))
            .cloned()
            .collect();
        for name in gone {
            self.state.instances.remove(&name);
            self.close_ambient(&name);
            self.instance_lost(&name);
        }
    }

    /// What time alone decides.
    pub(crate) fn tick(&mut self, now: tokio::time::Instant, settled: bool) {
        self.note_jump();
        self.expire();
        // Those of a task that asks for nothing more for a while would die with the hub.
        self.flush_all_marks();
        self.wake(now);
        if !settled {
            return;
        }
        let reattach = Duration::from_millis(self.shared.reattach_ms.load(Ordering::Relaxed));
        let away: Vec<String> = self
            .state
            .instances
            .values()
            .filter(|state| {
                let leased = self.state.leases.get(&state.instance.name);
                !state.linked
                    && leased.is_some_and(|leased| !leased.is_empty())
                    && state
                        .gone_since
                        .is_some_and(|since| since.elapsed() > reattach)
            })
            .map(|state| state.instance.name.clone())
            .collect();
        let orphaned = self.state.leases.iter().filter(|(name, leased)| {
            !leased.is_empty() && !self.state.instances.contains_key(*name)
        });
        let orphaned: Vec<String> = orphaned.map(|(name, _)| name.clone()).collect();
        for name in away.into_iter().chain(orphaned) {
            self.instance_lost(&name);
        }
        self.close_ambient_of_none();
        self.give_up_endings();
        self.mark_idle();
    }

    /// Nothing is accepted after this job. What agents were given is known to the next hub.
    pub(crate) fn stop(&mut self) {
        self.flush_all_marks();
        self.state.ends = true;
    }
}

fn new_instance(instance: Instance) -> InstanceState {
    InstanceState {
        instance,
        linked: false,
        settled: false,
        service: None,
        attached: false,
        idle: false,
        pid: None,
        restarts: 0,
        last_exit: None,
        ended_ms: None,
        gone_since: Some(tokio::time::Instant::now()),
        ending: std::collections::BTreeMap::new(),
    }
}
