//! One axum router on a port and a thread of its own, gone when it is dropped. On loopback, but for
//! tests in a cluster, whose pods reach this machine by an address of the test's own network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;

use axum::Router;
use tokio::sync::oneshot;

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop_tx: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on a port of loopback that the kernel picks.
    pub(crate) fn start(router: Router) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), router)
    }

    /// Serves on a port of that address that the kernel picks.
    pub(crate) fn start_on(address: IpAddr, router: Router) -> Self {
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop_tx, stop_rx) = oneshot::channel();
        let thread = std::thread::spawn(move || serve(listener, router, stop_rx));
        Self {
            address,
            stop_tx: Some(stop_tx),
            thread: Some(thread),
        }
    }
}

fn serve(listener: std::net::TcpListener, router: Router, stop_rx: oneshot::Receiver<()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let serving = async { axum::serve(listener, router).await };
        tokio::select! {
            _ = serving => {}
            _ = stop_rx => {}
        }
    });
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dropping the runtime closes every connection, stalled ones too.
        drop(self.stop_tx.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
