//! A relay in a thread of its own, in a directory that stands for the pod's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use contract::pod::{CA_FILE, Pod, TOKEN_FILE, ToPod, ToRelay, below};
use testkit::pod_door::{Caller, PodDoor};

pub const SOON: Duration = Duration::from_secs(20);

pub struct TestPod {
    pub door: PodDoor,
    pub directory: tempfile::TempDir,
    pub gateway: SocketAddr,
    probes: SocketAddr,
    supervisor: Option<UnixStream>,
    relay: Option<JoinHandle<()>>,
}

impl TestPod {
    pub fn start(offered: &ToRelay) -> Self {
        let door = PodDoor::open();
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), CA_FILE, &door.certificate);
        write(directory.path(), TOKEN_FILE, "first\n");
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (gateway, probes) = (listen(), listen());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut pod = Self {
            gateway: gateway.local_addr().unwrap(),
            probes: probes.local_addr().unwrap(),
            supervisor: Some(ours),
            relay: None,
            door,
            directory,
        };
        let options = relay::Options {
            pod: of(pod.door.address),
            root: pod.directory.path().to_owned(),
            gateway,
            probes,
            supervisor: theirs,
            settled: || {},
        };
        pod.tell(offered);
        pod.relay = Some(std::thread::spawn(|| relay::run(options).unwrap()));
        pod
    }

    pub fn tell(&mut self, offered: &ToRelay) {
        let frame = contract::frame::encode(offered).unwrap();
        self.supervisor.as_mut().unwrap().write_all(&frame).unwrap();
    }

    pub fn token(&self, token: &str) {
        write(self.directory.path(), TOKEN_FILE, token);
    }

    /// Lets the relay go and waits until it has left.
    pub fn end(&mut self) {
        self.supervisor = None;
        self.relay.take().unwrap().join().unwrap();
    }

    pub fn agent(&self) -> TcpStream {
        let agent = TcpStream::connect(self.gateway).unwrap();
        agent.set_read_timeout(Some(SOON)).unwrap();
        agent
    }

    /// A status and the body.
    pub fn ask(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.probes).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    /// Waits until the pod is ready, or isn't any more; the body says why.
    pub fn until_readiness(&self, wanted: u16) -> String {
        testkit::until(&format!("/readyz says {wanted}"), SOON, || {
            let (status, body) = self.ask("/readyz");
            (status == wanted).then_some(body)
        })
    }
}

impl Drop for TestPod {
    fn drop(&mut self) {
        self.supervisor = None;
        if let Some(relay) = self.relay.take() {
            let _its_panic_is_told = relay.join();
        }
    }
}

pub fn service(port: Option<u16>) -> ToRelay {
    ToRelay {
        isolation: "partial: landlock".to_owned(),
        service_port: port,
        ..ToRelay::default()
    }
}

pub fn open(caller: &mut Caller, target: contract::pod::Target) {
    caller.welcome();
    caller.send(&ToPod::Open { target });
}

fn of(hub: SocketAddr) -> Pod {
    let pod = serde_json::json!({
        "workspace": "w", "owner": "echo", "kind": "service", "command": ["echo"], "env": {},
        "graceMs": 1000, "hub": hub.to_string(), "template": "sha-1",
    });
    serde_json::from_value(pod).unwrap()
}

fn write(root: &Path, path: &str, text: &str) {
    let path = below(root, path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
