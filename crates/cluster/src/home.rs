//! The home itself: what it opens for the hub, and what it does with what the hub says.
//!
//! `Home::open` makes the link that the hub is started with; `Home::run` then carries both
//! directions until the hub ends. What takes time is in tasks of its own: the fleet with its
//! Secrets (`follow`), provider keys (`keys`), status (`status`). Everything that asks the API
//! server goes on without it.

mod follow;
mod keda;
mod keys;
mod scale;
mod status;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Fleet, Knowledge};
use contract::keeper::{ListenerPurpose, ToHub, ToKeeper};
use hub::Hub;
use hub::artifact::Artifacts;
use hub::home::{HomeEvent, HomeLink, Listener};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::disk;
use crate::door::{Door, DoorError};
use crate::fleet::Fleets;
use crate::objects::Objects;
use crate::pods::{PodEvent, Pods};
use crate::ready::Readiness;
use crate::source::Sources;
use crate::token::{Fetch, Tokens};
pub use keda::KedaOptions;
pub use keys::{KeyCheck, Verdict};

/// Events that wait for the hub; behind them pods and objects wait.
const EVENTS: usize = 64;
/// Between two looks for pods that are gone.
const TIDY: Duration = Duration::from_secs(1);
/// The cluster's keys are fetched anew this often, for one that was withdrawn.
const KEYS: Duration = Duration::from_secs(3600);
/// In this home manifests have one owner.
const BY_KUBECTL: &str = "on Kubernetes manifests are custom resources: use `mainstay -n NAMESPACE apply`, `diff` and `delete`, or kubectl's";

/// What the home is opened with.
pub struct Options {
    /// The Workspace object's name.
    pub workspace: String,
    pub namespace: String,
    pub state_dir: PathBuf,
    pub state_key: [u8; 32],
    /// PEM files: what the pods' door shows.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The clients' door.
    pub listen: SocketAddr,
    /// The pods' door.
    pub pods: SocketAddr,
    /// The monitors' own port, if there is to be one.
    pub metrics: Option<SocketAddr>,
    /// KEDA's door, if there is to be one.
    pub keda: Option<KedaOptions>,
    pub knowledge: Knowledge,
    /// Where agents' code is that pods are sent.
    pub artifacts: Artifacts,
    /// Without one the hub runs what it has.
    pub client: Option<Client>,
}

/// Why the home can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("failed to make {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("failed to listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("failed to open the pods' door")]
    Door(#[from] DoorError),
    #[error("failed to wait for signals")]
    Signals(#[source] io::Error),
}

/// The home, open.
pub struct Home {
    namespace: String,
    client: Option<Client>,
    events: mpsc::Sender<HomeEvent>,
    commands: mpsc::UnboundedReceiver<ToKeeper>,
    pods: Pods,
    pod_events: mpsc::Receiver<PodEvent>,
    door: Option<(Door, TcpListener)>,
    keda: Option<(keda::KedaDoor, TcpListener)>,
    /// What the hub says about generations.
    said: mpsc::Sender<follow::Said>,
    follow: Option<follow::Follow>,
    objects: Objects,
    today: watch::Receiver<Arc<Fleet>>,
    tokens: Arc<Tokens>,
    readiness: watch::Sender<Readiness>,
    terminate: Signal,
    /// Ends with the home.
    tasks: JoinSet<()>,
}

impl Home {
    /// Opens every door; the link is for the hub, which is started next.
    pub async fn open(options: Options) -> Result<(Self, HomeLink), HomeError> {
        let run_dir = prepare(&options.state_dir)?;
        let (events, events_rx) = mpsc::channel(EVENTS);
        let (commands_tx, commands) = mpsc::unbounded_channel();
        for event in listeners(&options, &run_dir)? {
            // There is room for all of them.
            let _unread = events.try_send(event);
        }
        let Options {
            workspace,
            namespace,
            state_dir,
            state_key,
            client,
            knowledge,
            ..
        } = options;
        let artifacts = options.artifacts;
        let fleets = Fleets::new(&workspace, state_dir.clone(), knowledge, artifacts.clone());
        let today = fleets.today();
        let tokens = Tokens::new(&namespace, &state_dir, fetch(client.clone()), today.clone());
        let tokens = Arc::new(tokens);
        let (pod_events_tx, pod_events) = mpsc::channel(EVENTS);
        let pods = Pods::new(&run_dir, pod_events_tx);
        let (readiness, readiness_rx) = watch::channel(Readiness::default());
        let files = (options.certificate.as_path(), options.key.as_path());
        let sources = Sources::new(artifacts, today.clone());
        let door = Door::new(
            pods.clone(),
            Arc::clone(&tokens),
            readiness_rx,
            sources,
            files,
        )?;
        let (said, said_rx) = mpsc::channel(EVENTS);
        let workspace_dir = state_dir.join("workspaces").join(&workspace);
        let objects = Objects::new();
        let keda = options.keda.map(|keda| {
            let files = (options.certificate.clone(), options.key.clone());
            let listener = adopt(bind(keda.listen)?, keda.listen)?;
            Ok::<_, HomeError>((keda::KedaDoor::new(files, keda.client), listener))
        });
        let follow = follow::Follow {
            fleets,
            objects: objects.clone(),
            secrets: crate::secrets::Secrets::new(&workspace_dir, &state_key),
            said: said_rx,
            events: events.clone(),
            client: client.clone(),
            namespace: namespace.clone(),
            workspace,
            coming: None,
        };
        let home = Self {
            namespace,
            client,
            events,
            commands,
            pods,
            pod_events,
            door: Some((door, adopt(bind(options.pods)?, options.pods)?)),
            keda: keda.transpose()?,
            said,
            follow: Some(follow),
            objects,
            today,
            tokens,
            readiness,
            terminate: signal(SignalKind::terminate()).map_err(HomeError::Signals)?,
            tasks: JoinSet::new(),
        };
        let link = HomeLink {
            events: events_rx,
            commands: commands_tx,
        };
        Ok((home, link))
    }

    /// Where pods dial; `None` once it is served.
    #[must_use]
    pub fn pods_address(&self) -> Option<SocketAddr> {
        self.door.as_ref()?.1.local_addr().ok()
    }

    /// Serves the hub until this is dropped; ends by itself only where the hub's link does.
    pub async fn run(mut self, hub: Hub, check: KeyCheck) {
        self.begin(&hub, check);
        let mut tidy = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                Some(event) = self.pod_events.recv() => self.pods_changed(event).await,
                _ = tidy.tick() => if self.pods.tidy() { self.list().await },
                _ = self.terminate.recv() => {
                    tracing::info!("told to end");
                    self.tell(HomeEvent::Message(ToHub::Stop)).await;
                }
            }
        }
    }

    fn begin(&mut self, hub: &Hub, check: KeyCheck) {
        let (changes, verdicts) = watch::channel(keys::Verdicts::default());
        let Some(follow) = self.follow.take() else {
            return;
        };
        self.tasks.spawn(keys::watch(
            hub.clone(),
            self.today.clone(),
            follow.secrets.changes(),
            check,
            changes,
            self.readiness.clone(),
        ));
        self.tasks.spawn(follow.run());
        let Some(client) = &self.client else { return };
        let tokens = Arc::clone(&self.tokens);
        self.tasks.spawn(async move {
            let mut hourly = tokio::time::interval(KEYS);
            loop {
                hourly.tick().await;
                tokens.refresh().await;
            }
        });
        let (pods, objects) = (self.pods.clone(), self.objects.clone());
        let scaler = scale::Scaler::new(client.clone(), &self.namespace, pods, objects);
        if let Some((door, listener)) = self.keda.take() {
            let keda = keda::Keda::new(&self.namespace, scaler.decisions());
            self.tasks.spawn(door.serve(listener, keda));
        }
        self.tasks
            .spawn(scaler.keep(hub.clone(), self.today.clone()));
        let (pods, objects) = (self.pods.clone(), self.objects.clone());
        let status = status::Status::new(client.clone(), &self.namespace, pods, objects);
        let (hub, today) = (hub.clone(), self.today.clone());
        self.tasks.spawn(status.keep(hub, today, verdicts));
    }

    async fn command(&mut self, command: ToKeeper) {
        match command {
            ToKeeper::Hello {
                current_generation, ..
            } => self.say(follow::Said::Begin(current_generation)).await,
            ToKeeper::Ready => self.serve_pods(),
            ToKeeper::GenerationCommitted { number } => {
                self.say(follow::Said::Committed(number)).await;
            }
            ToKeeper::GenerationRefused { number, problems } => {
                for problem in &problems {
                    tracing::error!(number, "the hub does not take the generation: {problem}");
                }
                self.say(follow::Said::Refused(number)).await;
            }
            ToKeeper::Pins { generations } => self.say(follow::Said::Pins(generations)).await,
            ToKeeper::Stopped { agents } => {
                self.pods.set_stopped(agents);
                self.list().await;
            }
            ToKeeper::Restart { instance } => self.restart(instance),
            ToKeeper::Apply { request, .. } | ToKeeper::Delete { request, .. } => {
                let applied = ToHub::Applied {
                    request,
                    generation: None,
                    problems: vec![BY_KUBECTL.to_owned()],
                    summary: Vec::new(),
                };
                self.tell(HomeEvent::Message(applied)).await;
            }
        }
    }

    /// The log is open: pods may come.
    fn serve_pods(&mut self) {
        if let Some((door, listener)) = self.door.take() {
            self.tasks.spawn(door.serve(listener));
        }
    }

    async fn pods_changed(&mut self, first: PodEvent) {
        let mut next = Some(first);
        while let Some(event) = next {
            if let PodEvent::Gateway { instance, listener } = event {
                self.gateway(instance, listener).await;
            }
            // One list tells of all that came meanwhile.
            next = self.pod_events.try_recv().ok();
        }
        self.list().await;
    }

    async fn gateway(&self, instance: String, listener: StdListener) {
        let address = listener
            .local_addr()
            .map_or_else(|_| String::new(), |a| a.to_string());
        let purpose = ListenerPurpose::Gateway { instance };
        let listener = Listener::Tcp(listener);
        let event = HomeEvent::Listener {
            purpose,
            address,
            listener,
        };
        self.tell(event).await;
    }

    async fn list(&self) {
        let draining = self.pods.draining();
        let instances = self.pods.instances();
        self.tell(HomeEvent::Message(ToHub::Pods { draining }))
            .await;
        self.tell(HomeEvent::Message(ToHub::Instances { instances }))
            .await;
    }

    /// A pod is ended in order by Kubernetes, which starts another.
    fn restart(&mut self, instance: String) {
        let Some(client) = self.client.clone() else {
            tracing::error!(
                "{instance} can't be restarted: the hub has no access to the API server"
            );
            return;
        };
        let api: Api<Pod> = Api::namespaced(client, &self.namespace);
        self.tasks.spawn(async move {
            let deleted = api.delete(&instance, &DeleteParams::default()).await;
            if let Err(error) = deleted {
                let error = custom_resource::said::answer(&error);
                tracing::error!(
                    error,
                    "{instance} was not restarted: kubectl delete pod {instance}"
                );
            }
        });
    }

    async fn say(&self, said: follow::Said) {
        let _ended = self.said.send(said).await;
    }

    async fn tell(&self, event: HomeEvent) {
        // The hub is gone only when the process ends.
        let _gone = self.events.send(event).await;
    }
}

/// Makes the directories, and takes away the sockets of a hub before.
fn prepare(state_dir: &Path) -> Result<PathBuf, HomeError> {
    let run_dir = state_dir.join("run");
    let made = disk::directory(state_dir).and_then(|()| disk::directory(&run_dir));
    made.map_err(|source| HomeError::Directory {
        path: run_dir.clone(),
        source,
    })?;
    for entry in std::fs::read_dir(&run_dir).into_iter().flatten().flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "sock")
        {
            let _gone = std::fs::remove_file(entry.path());
        }
    }
    Ok(run_dir)
}

/// The doors that the hub serves.
fn listeners(options: &Options, run_dir: &Path) -> Result<Vec<HomeEvent>, HomeError> {
    let tcp = |purpose, address: SocketAddr| {
        Ok::<_, HomeError>(HomeEvent::Listener {
            purpose,
            address: address.to_string(),
            listener: Listener::Tcp(bind(address)?),
        })
    };
    let path = run_dir.join("control.sock");
    let control = StdUnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    let control = control.map_err(|source| HomeError::Listen {
        address: path.display().to_string(),
        source,
    })?;
    let mut events = vec![
        tcp(ListenerPurpose::Facade, options.listen)?,
        HomeEvent::Listener {
            purpose: ListenerPurpose::Control,
            address: path.display().to_string(),
            listener: Listener::Unix(control),
        },
    ];
    if let Some(address) = options.metrics {
        events.push(tcp(ListenerPurpose::Metrics, address)?);
    }
    Ok(events)
}

fn bind(address: SocketAddr) -> Result<StdListener, HomeError> {
    StdListener::bind(address).map_err(|source| HomeError::Listen {
        address: address.to_string(),
        source,
    })
}

fn adopt(listener: StdListener, address: SocketAddr) -> Result<TcpListener, HomeError> {
    let adopted = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener));
    adopted.map_err(|source| HomeError::Listen {
        address: address.to_string(),
        source,
    })
}

/// How the cluster's keys are asked for.
fn fetch(client: Option<Client>) -> Fetch {
    Arc::new(move || {
        let client = client.clone();
        Box::pin(async move {
            let client = client.ok_or("the hub has no access to the API server")?;
            let request = http::Request::get("/openid/v1/jwks");
            let request = request
                .body(Vec::new())
                .map_err(|error| error.to_string())?;
            let text = client.request_text(request).await;
            text.map_err(|error| custom_resource::said::answer(&error))
        })
    })
}

#[cfg(test)]
mod tests;
