//! One pod's sockets on this host: what connects to them is passed to the pod by one of its offers.
//!
//! A Unix socket leads to its shim and, for a service, a loopback port to its server. The gateway's
//! loopback listener is bound here, served by the hub, and connected to by the pods' door.

mod own;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contract::keeper::InstanceKind;
use contract::pod::{FromPod, Target};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::pipe::{self, Cut};
use crate::pods::Pods;

/// Connections of the hub to one pod that are open or wait for an offer; more wait in the kernel.
const MAX_REACHING: usize = 1024;
/// The longest path that a Unix socket may have.
const MAX_PATH: usize = 107;
/// Pause after a failed accept: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// They close with it.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) socket: PathBuf,
    pub(crate) gateway: SocketAddr,
    pub(crate) service: Option<SocketAddr>,
    /// Shut down when the pod is gone, so that the hub stops serving it.
    listener: StdListener,
    accepting: Vec<AbortHandle>,
}

impl Doors {
    /// Opens a pod's sockets; the second value is the gateway's listener, for the hub.
    pub(crate) fn open(
        pods: &Pods,
        run_dir: &Path,
        pod: &str,
        frame: &FromPod,
    ) -> io::Result<(Self, StdListener)> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let shared = listener.try_clone()?;
        let mut doors = Self {
            socket: socket_path(run_dir, pod),
            gateway: listener.local_addr()?,
            service: None,
            listener,
            accepting: Vec::new(),
        };
        doors.shim(pods, pod)?;
        if frame.kind == InstanceKind::Service {
            doors.service(pods, pod)?;
        }
        Ok((doors, shared))
    }

    fn shim(&mut self, pods: &Pods, pod: &str) -> io::Result<()> {
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket)?;
        let reach = Reach::new(pods, pod);
        let accepting = tokio::spawn(async move {
            while let Some(slot) = reach.slot().await {
                match listener.accept().await {
                    Ok((stream, _)) => reach.pass(stream, Target::Shim, slot),
                    Err(error) => reach.failed(&error).await,
                }
            }
        });
        self.accepting.push(accepting.abort_handle());
        Ok(())
    }

    /// The hub dials a loopback port; which one it is in the pod, the pod says.
    fn service(&mut self, pods: &Pods, pod: &str) -> io::Result<()> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        self.service = Some(listener.local_addr()?);
        let listener = TcpListener::from_std(listener)?;
        let reach = Reach::new(pods, pod);
        let accepting = tokio::spawn(async move {
            while let Some(slot) = reach.slot().await {
                match listener.accept().await {
                    Ok((stream, _)) => reach.pass_to_service(stream, slot),
                    Err(error) => reach.failed(&error).await,
                }
            }
        });
        self.accepting.push(accepting.abort_handle());
        Ok(())
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        for task in &self.accepting {
            task.abort();
        }
        let _gone = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _gone = std::fs::remove_file(&self.socket);
    }
}

/// What every connection towards one pod needs.
struct Reach {
    pods: Pods,
    pod: Arc<str>,
    slots: Arc<Semaphore>,
}

impl Reach {
    fn new(pods: &Pods, pod: &str) -> Self {
        Self {
            pods: pods.clone(),
            pod: pod.into(),
            slots: Arc::new(Semaphore::new(MAX_REACHING)),
        }
    }

    /// Waits until one more connection may be accepted. `None` never comes: it is never closed.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    async fn failed(&self, error: &io::Error) {
        tracing::debug!(%error, pod = &*self.pod, "failed to accept a connection to a pod");
        tokio::time::sleep(PAUSE).await;
    }

    fn pass_to_service(&self, mut stream: TcpStream, slot: OwnedSemaphorePermit) {
        if !own::is_own(&stream) {
            tracing::warn!(
                pod = &*self.pod,
                "somebody else than the hub called a service"
            );
            return stream.cut();
        }
        let _as_it_is = stream.set_nodelay(true);
        match self.pods.service_port(&self.pod) {
            Some(port) => self.pass(stream, Target::Port { port }, slot),
            None => stream.cut(),
        }
    }

    fn pass(&self, mut stream: impl Cut + 'static, target: Target, slot: OwnedSemaphorePermit) {
        let (pods, name) = (self.pods.clone(), Arc::clone(&self.pod));
        tokio::spawn(async move {
            let _slot = slot;
            let Some(pod) = pods.open(&name, target).await else {
                stream.cut();
                return;
            };
            if let Err(error) = pipe::join(stream, pod).await {
                tracing::debug!(%error, pod = &*name, ?target, "a pipe to a pod broke");
            }
        });
    }
}

/// Named after the pod; by a digest where that is too long.
fn socket_path(run_dir: &Path, pod: &str) -> PathBuf {
    let path = run_dir.join(format!("{pod}.sock"));
    if path.as_os_str().len() <= MAX_PATH {
        return path;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pod.as_bytes());
    let id: String = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    run_dir.join(format!("{id}.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_after_its_pod_as_far_as_a_path_may_be_long() {
        let run = Path::new("/var/lib/mainstay/run");
        assert_eq!(socket_path(run, "a-0"), run.join("a-0.sock"));
        let long = |last| format!("{}{last}", "a".repeat(200));
        let (one, other) = (socket_path(run, &long("1")), socket_path(run, &long("2")));
        assert!(one.as_os_str().len() <= MAX_PATH);
        assert_ne!(one, other);
    }
}
