use std::net::SocketAddr;

use contract::frame::encode;
use contract::keeper::InstanceKind;
use contract::pod::Target;
use hub::artifact::Artifacts;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::pods::PodEvent;
use crate::token::tests::{Issuer, fleet, fleet_of_service, frame, tokens_for};

const WAIT: Duration = Duration::from_secs(20);

pub(crate) type Pod = ClientStream<TcpStream>;

/// Makes the door's certificate and key in a directory, and what a pod connects with.
pub(crate) fn certified(dir: &Path) -> (PathBuf, PathBuf, TlsConnector) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let names = vec![contract::pod::SERVER_NAME.to_owned()];
    let made = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&pair)
        .unwrap();
    let files = (dir.join("tls.crt"), dir.join("tls.key"));
    std::fs::write(&files.0, made.pem()).unwrap();
    std::fs::write(&files.1, pair.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (files.0, files.1, TlsConnector::from(Arc::new(config)))
}

/// Dials a door.
pub(crate) async fn connected(address: SocketAddr, connector: &TlsConnector) -> io::Result<Pod> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(contract::pod::SERVER_NAME).unwrap();
    connector.connect(name, stream).await
}

/// A door that serves, and what a pod needs to come in.
struct House {
    state: tempfile::TempDir,
    issuer: Issuer,
    pods: Pods,
    artifacts: Artifacts,
    events: mpsc::Receiver<PodEvent>,
    readiness: watch::Sender<Readiness>,
    address: SocketAddr,
    connector: TlsConnector,
}

impl House {
    async fn new() -> Self {
        Self::with(fleet()).await
    }

    async fn with(fleet: api::Fleet) -> Self {
        let (state, issuer) = (tempfile::tempdir().unwrap(), Issuer::new());
        let (certificate, key, connector) = certified(state.path());
        let (events_tx, events) = mpsc::channel(64);
        let (readiness, receiver) = watch::channel(Readiness::default());
        let pods = Pods::new(state.path(), events_tx);
        let artifacts = Artifacts::open(state.path()).unwrap();
        let today = watch::channel(Arc::new(fleet.clone())).1;
        let tokens = Arc::new(tokens_for(&issuer, state.path(), fleet));
        let sources = Sources::new(artifacts.clone(), today);
        let files = (certificate.as_path(), key.as_path());
        let door = Door::new(pods.clone(), tokens, receiver, sources, files).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(door.serve(listener));
        Self {
            state,
            issuer,
            pods,
            artifacts,
            events,
            readiness,
            address,
            connector,
        }
    }

    async fn connect(&self) -> Pod {
        connected(self.address, &self.connector).await.unwrap()
    }

    /// Comes in as a pod of `helper`.
    async fn dial(&self, pod: &str, change: impl FnOnce(&mut FromPod)) -> Pod {
        let mut first = frame(self.issuer.token(pod, "helper"), "helper");
        change(&mut first);
        let mut stream = self.connect().await;
        stream.write_all(&encode(&first).unwrap()).await.unwrap();
        stream
    }

    async fn offer(&self, pod: &str) -> Pod {
        let mut stream = self.dial(pod, |_| {}).await;
        assert!(matches!(heard(&mut stream).await, ToPod::Welcome { .. }));
        assert!(matches!(
            heard(&mut stream).await,
            ToPod::Ready { ready: true, .. }
        ));
        stream
    }

    /// The gateway listener of the pod that comes next.
    async fn listener(&mut self) -> TcpListener {
        loop {
            let event = tokio::time::timeout(WAIT, self.events.recv())
                .await
                .unwrap();
            if let Some(PodEvent::Gateway { listener, .. }) = event {
                listener.set_nonblocking(true).unwrap();
                return TcpListener::from_std(listener).unwrap();
            }
        }
    }

    async fn shim(&self, pod: &str) -> UnixStream {
        let socket = self.state.path().join(format!("{pod}.sock"));
        UnixStream::connect(socket).await.unwrap()
    }
}

pub(crate) async fn heard(stream: &mut Pod) -> ToPod {
    let read = async {
        let length = stream.read_u32().await.unwrap() as usize;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    };
    tokio::time::timeout(WAIT, read).await.unwrap()
}

/// What a stream holds until its end, and how it ended.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(WAIT, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    (bytes, read.map(drop))
}

#[tokio::test]
async fn an_offer_becomes_the_shims_connection_when_the_hub_wants_one() {
    let house = House::new().await;
    let mut pod = house.offer("helper-1").await;
    let listed = house.pods.instances();
    assert_eq!(
        (listed[0].name.as_str(), listed[0].owner.as_str()),
        ("helper-1", "helper")
    );
    let mut hub = house.shim("helper-1").await;
    hub.write_all(b"hello").await.unwrap();
    let opened = heard(&mut pod).await;
    assert_eq!(
        opened,
        ToPod::Open {
            target: Target::Shim
        }
    );
    let mut said = [0; 5];
    pod.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
    pod.write_all(b"answer").await.unwrap();
    pod.shutdown().await.unwrap();
    let (answer, ended) = rest(&mut hub).await;
    assert_eq!(answer, b"answer");
    ended.unwrap();
}

#[tokio::test]
async fn the_hub_waits_a_little_for_an_offer() {
    let mut house = House::new().await;
    let _known = house
        .dial("helper-1", |first| first.purpose = Purpose::Gateway)
        .await;
    let _listener = house.listener().await;
    let mut hub = house.shim("helper-1").await;
    hub.write_all(b"x").await.unwrap();
    let mut pod = house.offer("helper-1").await;
    assert_eq!(
        heard(&mut pod).await,
        ToPod::Open {
            target: Target::Shim
        }
    );
}

#[tokio::test]
async fn a_gateway_connection_goes_to_the_instances_own_listener() {
    let mut house = House::new().await;
    let mut pod = house
        .dial("helper-1", |first| first.purpose = Purpose::Gateway)
        .await;
    assert!(matches!(heard(&mut pod).await, ToPod::Welcome { .. }));
    let (mut gateway, _) = house.listener().await.accept().await.unwrap();
    pod.write_all(b"ask").await.unwrap();
    pod.shutdown().await.unwrap();
    // A half that ended cleanly leaves the other open.
    let (asked, ended) = rest(&mut gateway).await;
    assert_eq!(asked, b"ask");
    ended.unwrap();
    gateway.write_all(b"whole").await.unwrap();
    gateway.shutdown().await.unwrap();
    let (answer, ended) = rest(&mut pod).await;
    assert_eq!(answer, b"whole");
    ended.unwrap();
}

#[tokio::test]
async fn what_broke_on_one_side_is_broken_on_the_other() {
    let mut house = House::new().await;
    let mut pod = house
        .dial("helper-1", |first| first.purpose = Purpose::Gateway)
        .await;
    assert!(matches!(heard(&mut pod).await, ToPod::Welcome { .. }));
    let listener = house.listener().await;
    // An answer that the gateway can't complete is reset there.
    let (mut gateway, _) = listener.accept().await.unwrap();
    gateway.write_all(b"half an ans").await.unwrap();
    let mut half = [0; 11];
    pod.read_exact(&mut half).await.unwrap();
    gateway.set_zero_linger().unwrap();
    drop(gateway);
    let (_, ended) = rest(&mut pod).await;
    assert!(ended.is_err(), "the pod sees a clean end");
    // A pod that dies says no `close_notify`.
    let pod = house
        .dial("helper-1", |first| first.purpose = Purpose::Gateway)
        .await;
    let (mut gateway, _) = listener.accept().await.unwrap();
    drop(pod);
    let (_, ended) = rest(&mut gateway).await;
    assert!(ended.is_err(), "the gateway sees a clean end");
}

#[tokio::test]
async fn a_services_port_is_reached_on_loopback() {
    let house = House::with(fleet_of_service()).await;
    let mut pod = house
        .dial("helper-1", |first| {
            first.kind = InstanceKind::Service;
            first.service_port = Some(8000);
        })
        .await;
    assert!(matches!(heard(&mut pod).await, ToPod::Welcome { .. }));
    assert!(matches!(heard(&mut pod).await, ToPod::Ready { .. }));
    let port = house.pods.instances()[0].service_port.unwrap();
    let mut caller = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    caller.write_all(b"GET").await.unwrap();
    let opened = heard(&mut pod).await;
    assert_eq!(
        opened,
        ToPod::Open {
            target: Target::Port { port: 8000 }
        }
    );
    let mut said = [0; 3];
    pod.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"GET");
}

#[tokio::test]
async fn strangers_and_what_is_no_frame_are_shown_out() {
    let house = House::new().await;
    let mut stranger = house
        .dial("helper-1", |first| first.token = "a.b.c".into())
        .await;
    assert!(matches!(
        heard(&mut stranger).await,
        ToPod::Refused { retry: false, .. }
    ));
    let (_, ended) = rest(&mut stranger).await;
    ended.unwrap();
    let mut other = house
        .dial("helper-1", |first| first.owner = "other".into())
        .await;
    assert!(matches!(
        heard(&mut other).await,
        ToPod::Refused { retry: false, .. }
    ));
    let mut large = house.connect().await;
    large.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let (said, _) = rest(&mut large).await;
    assert!(said.is_empty());
    let mut speaks = house.offer("helper-2").await;
    speaks.write_all(b"x").await.unwrap();
    let (said, _) = rest(&mut speaks).await;
    assert!(said.is_empty());
    let names: Vec<String> = house
        .pods
        .instances()
        .into_iter()
        .map(|pod| pod.name)
        .collect();
    assert_eq!(names, ["helper-2"]);
}

#[tokio::test]
async fn who_says_nothing_is_shown_out_and_keeps_only_some_of_its_own_address_waiting() {
    let house = House::new().await;
    let mut silent = Vec::new();
    for _ in 0..strangers::HEARD_EACH {
        silent.push(TcpStream::connect(house.address).await.unwrap());
    }
    // Comes in once they are out; the bound is the test's own.
    let _pod = house.offer("helper-1").await;
    for stream in &mut silent {
        let (said, _) = rest(stream).await;
        assert!(said.is_empty());
    }
}

#[tokio::test]
async fn a_pod_is_told_when_it_stops_being_ready() {
    let house = House::new().await;
    let mut pod = house.offer("helper-1").await;
    let unready = [("helper".to_owned(), "its key was refused".to_owned())];
    house
        .readiness
        .send(Readiness::except(unready.into()))
        .unwrap();
    let said = heard(&mut pod).await;
    assert!(
        matches!(&said, ToPod::Ready { ready: false, reason } if reason.contains("refused")),
        "{said:?}"
    );
    house.readiness.send(Readiness::default()).unwrap();
    assert!(matches!(
        heard(&mut pod).await,
        ToPod::Ready { ready: true, .. }
    ));
}

#[tokio::test]
async fn a_pod_that_ends_or_was_stopped_gets_no_more_work() {
    let house = House::new().await;
    let _pod = house.offer("helper-1").await;
    assert!(house.pods.draining().is_empty());
    house.pods.set_stopped(["helper/helper-1".to_owned()]);
    assert_eq!(house.pods.draining(), ["helper-1"]);
    house.pods.set_stopped([]);
    let mut last = house.dial("helper-1", |first| first.draining = true).await;
    assert!(matches!(heard(&mut last).await, ToPod::Welcome { .. }));
    assert_eq!(house.pods.draining(), ["helper-1"]);
}

#[tokio::test]
async fn a_pod_has_so_many_offers_and_no_more() {
    let house = House::new().await;
    let mut kept = Vec::new();
    for _ in 0..crate::pods::MAX_OFFERS {
        kept.push(house.offer("helper-1").await);
    }
    let mut more = house.dial("helper-1", |_| {}).await;
    assert!(matches!(heard(&mut more).await, ToPod::Welcome { .. }));
    let (said, _) = rest(&mut more).await;
    assert!(said.is_empty());
}

fn packed(text: &str) -> (Vec<u8>, String) {
    let mut archive = Vec::new();
    let mut writer = contract::artifact::Writer::new(&mut archive).unwrap();
    let length = text.len() as u64;
    let written = writer.file(Path::new("run"), true, length, text.as_bytes());
    written.unwrap();
    let name = writer.finish().unwrap();
    (archive, name)
}

#[tokio::test]
async fn a_pod_is_sent_the_source_that_its_agent_names_now_and_no_other() {
    let [(archive, named), (other, another)] = [&"1".repeat(600_000), "other"].map(packed);
    let mut fleet = fleet();
    let source = api::fleet::Source {
        path: "agent".to_owned(),
        hash: Some(named.clone()),
    };
    fleet.agents.get_mut("helper").unwrap().source = Some(source);
    let house = House::with(fleet).await;
    let ask = |name: &str| {
        let name = name.to_owned();
        house.dial("helper-1", |first| {
            first.purpose = Purpose::Source;
            first.source = Some(name);
        })
    };
    let refused = async |name: &str| match heard(&mut ask(name).await).await {
        ToPod::Refused { reason, retry } => (reason, retry),
        said => panic!("{said:?}"),
    };
    let (reason, retry) = refused(&named).await;
    assert!(reason.contains("mainstay apply") && retry, "{reason}");
    for (name, archive) in [(&named, &archive), (&another, &other)] {
        let length = archive.len() as u64;
        house.artifacts.put(name, length, &archive[..]).unwrap();
    }
    let (reason, retry) = refused(&another).await;
    assert!(reason.contains("another source now") && retry, "{reason}");
    let mut pod = ask(&named).await;
    assert!(matches!(heard(&mut pod).await, ToPod::Welcome { .. }));
    let (sent, ended) = rest(&mut pod).await;
    assert!(sent == archive, "{} of {} bytes", sent.len(), archive.len());
    assert!(ended.is_ok(), "{ended:?}");
    assert!(house.pods.instances().is_empty(), "nothing runs there yet");
}
