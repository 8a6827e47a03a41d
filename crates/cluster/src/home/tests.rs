//! A hub with its home and pods that are played: no API server, as after a start without one.

use std::sync::Arc;

use contract::frame::encode;
use contract::keeper::{InstanceKind, ToHub, ToKeeper};
use contract::pod::{Target, ToPod};
use contract::shim::{Fact, Running, ToShim};
use hub::HubError;
use hub::task::SubmitTask;
use testkit::home::{Listening, exited, fleet, instance, write_fleet};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;
use crate::door::tests::{Pod as Tls, certified, connected, heard};
use crate::token::tests::{Issuer, NAMESPACE, frame};

const KEY: [u8; 32] = [7; 32];
const WORKSPACE: &str = "default";

/// The hub of before: it committed the fleet, and is gone.
async fn before(state: &Path) {
    let fleet = fleet(|agent| agent.concurrency = 2);
    write_fleet(state, 1, &fleet);
    let (events, events_rx) = mpsc::channel(4);
    let (commands, mut said) = mpsc::unbounded_channel();
    let link = HomeLink {
        events: events_rx,
        commands,
    };
    let (hub, service) = Hub::start(hub_options(state, link)).await.unwrap();
    let proposed = ToHub::GenerationProposed {
        number: 1,
        hash: fleet.hash(),
    };
    events.send(HomeEvent::Message(proposed)).await.unwrap();
    while said.recv().await.unwrap() != (ToKeeper::GenerationCommitted { number: 1 }) {}
    events.send(HomeEvent::Gone).await.unwrap();
    service.await.unwrap().unwrap();
    drop(hub);
}

fn hub_options(state: &Path, home: HomeLink) -> hub::Options {
    hub::Options {
        home,
        pid: std::process::id(),
        state_key: KEY,
        state_dir: state.to_owned(),
        workspace: WORKSPACE.into(),
    }
}

/// A hub in its pod.
struct Cluster {
    state: tempfile::TempDir,
    issuer: Issuer,
    hub: Hub,
    service: JoinHandle<Result<(), HubError>>,
    home: JoinHandle<()>,
    address: SocketAddr,
    connector: TlsConnector,
}

impl Cluster {
    async fn start() -> Self {
        let (state, issuer) = (tempfile::tempdir().unwrap(), Issuer::new());
        before(state.path()).await;
        disk::write(
            &state.path().join("cluster/jwks.json"),
            issuer.jwks().as_bytes(),
        )
        .unwrap();
        let (certificate, key, connector) = certified(state.path());
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let knowledge = Knowledge::nothing();
        let (home, link) = Home::open(Options {
            workspace: WORKSPACE.into(),
            namespace: NAMESPACE.into(),
            state_dir: state.path().to_owned(),
            state_key: KEY,
            certificate,
            key,
            listen: loopback,
            pods: loopback,
            metrics: None,
            keda: None,
            knowledge,
            artifacts: hub::artifact::Artifacts::open(state.path()).unwrap(),
            client: None,
        })
        .await
        .unwrap();
        let address = home.pods_address().unwrap();
        let (hub, service) = Hub::start(hub_options(state.path(), link)).await.unwrap();
        let check: KeyCheck = Arc::new(|_| Box::pin(async { Verdict::Unknown }));
        let home = tokio::spawn(home.run(hub.clone(), check));
        Self {
            state,
            issuer,
            hub,
            service,
            home,
            address,
            connector,
        }
    }

    /// A pod's relay: two idle offers, each passed to the pod's shim when it is opened.
    fn relay(&self, pod: &str) -> JoinSet<()> {
        let mut offers = JoinSet::new();
        for _ in 0..2 {
            let first = encode(&frame(self.issuer.token(pod, "helper"), "helper")).unwrap();
            let shim = self.state.path().join(format!("shim-{pod}.sock"));
            let (address, connector) = (self.address, self.connector.clone());
            offers.spawn(async move {
                loop {
                    // The door may not be open yet.
                    let Ok(stream) = connected(address, &connector).await else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    offer(stream, &first, &shim).await;
                }
            });
        }
        offers
    }

    /// Where a pod's shim listens.
    fn shim(&self, pod: &str) -> Listening {
        let mut played = instance(self.state.path(), "helper", 0, InstanceKind::Exec);
        let socket = self.state.path().join(format!("shim-{pod}.sock"));
        played.socket = socket.to_str().unwrap().to_owned();
        played.name = pod.to_owned();
        Listening::of(&played)
    }

    async fn submit(&self, input: &str) -> String {
        let task = SubmitTask {
            agent: "helper".into(),
            input: input.into(),
            author: "test".into(),
            ..Default::default()
        };
        self.hub.task_submit(task).await.unwrap().id
    }

    async fn end(self) {
        self.home.abort();
        drop(self.hub);
        drop(self.service);
    }
}

async fn offer(mut stream: Tls, first: &[u8], shim: &Path) {
    if stream.write_all(first).await.is_err() {
        return;
    }
    loop {
        match heard(&mut stream).await {
            ToPod::Open {
                target: Target::Shim,
            } => break,
            ToPod::Welcome { .. } | ToPod::Ready { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let mut shim = UnixStream::connect(shim).await.unwrap();
    let _ended = tokio::io::copy_bidirectional(&mut stream, &mut shim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_through_a_pod_and_outlives_its_connection() {
    let cluster = Cluster::start().await;
    let listening = cluster.shim("helper-1");
    let relay = cluster.relay("helper-1");
    let mut shim = listening.greet(Vec::new(), None).await;
    let id = cluster.submit("work").await;
    let (task, attempts) = shim.assigned().await;
    assert_eq!(task, id);
    let attempt = attempts[0].number;
    let started = Fact::AttemptStarted {
        task: task.clone(),
        attempt,
        pid: 1,
    };
    shim.fact(started).await;
    // The network goes, and comes back.
    drop(relay);
    drop(shim);
    let _relay = cluster.relay("helper-1");
    let running = Running {
        task: task.clone(),
        attempt,
        pid: 1,
    };
    let mut shim = listening.greet(vec![running], None).await;
    shim.ended(&task, attempt, exited(0, "done"), false).await;
    let done = cluster.hub.task_get(&id).await.unwrap();
    assert_eq!((done.state.as_str(), done.attempts), ("completed", 1));
    assert_eq!(done.output, "done");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_drains_gets_no_work_and_what_is_applied_here_is_kubectls() {
    let cluster = Cluster::start().await;
    let listening = cluster.shim("helper-1");
    let _relay = cluster.relay("helper-1");
    let mut shim = listening.greet(Vec::new(), None).await;
    let mut ending = frame(cluster.issuer.token("helper-1", "helper"), "helper");
    ending.draining = true;
    let mut last = connected(cluster.address, &cluster.connector)
        .await
        .unwrap();
    last.write_all(&encode(&ending).unwrap()).await.unwrap();
    assert!(matches!(heard(&mut last).await, ToPod::Welcome { .. }));
    let applied = cluster.hub.apply(Vec::new(), false).await.unwrap();
    assert!(applied.problems[0].contains("kubectl"), "{applied:?}");
    let id = cluster.submit("work").await;
    let quiet = tokio::time::timeout(
        Duration::from_millis(500),
        shim.until(|message| matches!(message, ToShim::Assign { .. })),
    );
    assert!(quiet.await.is_err(), "a draining pod was given work");
    // Another pod takes it.
    let listening = cluster.shim("helper-2");
    let _relay = cluster.relay("helper-2");
    let mut shim = listening.greet(Vec::new(), None).await;
    assert_eq!(shim.assigned().await.0, id);
    cluster.end().await;
}
