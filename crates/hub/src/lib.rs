//! The application: tasks, sessions, steps, budgets, secrets and streams.
//!
//! [`Hub`] is the cheap handle that facade and gateway hold; everything behind it is owned by the
//! service started with [`Hub::start`]. The hub depends on `store` and `core`, never on HTTP:
//! protocols decode, call one method here and encode what comes back.
//!
//! Inside: `writer` runs jobs one after another (`tx`, `state`), `dispatch` and `fact` decide about
//! processes, `step` about calls; `action` performs what a commit decided; `link` speaks to shims,
//! `service_loop` to the home.

mod action;
pub mod admin;
mod ambient;
pub mod answer;
pub mod artifact;
mod boot;
pub mod caller;
mod clock;
mod dispatch;
mod ending;
pub mod error;
mod fact;
pub mod ground;
mod hello;
pub mod home;
mod input;
pub mod keys;
mod link;
pub mod load;
mod mark;
mod metrics;
pub mod object;
mod origin;
mod park;
mod process;
pub mod projection;
mod prompt;
mod queue;
mod readers;
mod rest;
mod resume;
mod retention;
pub mod secret;
pub mod service;
mod service_loop;
pub mod session;
mod shared;
mod state;
pub mod step;
pub mod stream;
pub mod tally;
mod target;
pub mod task;
mod time_up;
mod tx;
mod unwritten;
pub mod view;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::fleet::{Credential, Fleet};
use tokio::sync::mpsc;

pub use ending::json_fault;
pub use error::{Code, HubError, Refusal};
pub use service::AttemptHandle;
pub use service_loop::Options;
pub use stream::{EntryStream, FrameStream};

use readers::Readers;
use shared::{Shared, lock, read};
use writer::Writer;

/// The handle. Cloning is cheap; all clones speak to the same service.
#[derive(Clone)]
pub struct Hub {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    outlets: Arc<Outlets>,
    readers: Arc<Readers>,
}

/// Channels that are taken once.
pub(crate) struct Outlets {
    gateway: Mutex<Option<mpsc::Receiver<(String, std::net::TcpListener)>>>,
    services: Mutex<Option<mpsc::Receiver<service::ServiceCall>>>,
    facade: Mutex<Option<mpsc::Receiver<std::net::TcpListener>>>,
    control: Mutex<Option<mpsc::Receiver<std::os::unix::net::UnixListener>>>,
    metrics: Mutex<Option<mpsc::Receiver<std::net::TcpListener>>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

fn taken<T>(slot: &Mutex<Option<mpsc::Receiver<T>>>) -> mpsc::Receiver<T> {
    // A second taker gets a channel that is closed.
    lock(slot).take().unwrap_or_else(|| mpsc::channel(1).1)
}

impl Hub {
    /// An attempt is lost once its instance's link broke and stays broken this long: less than usual
    /// where a home notices late that a link is broken.
    pub fn lose_after(&self, away: Duration) {
        let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        self.shared.reattach_ms.store(away_ms, Ordering::Relaxed);
    }

    /// Runs a read on a connection of its own, off the async threads. It sees every commit that
    /// was replied to before: rows that were left for later are written first.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&store::Reader) -> Result<T, store::StoreError> + Send + 'static,
    ) -> Result<T, HubError> {
        if self.shared.rows_lag.load(Ordering::SeqCst) {
            // A writer that has ended left nothing for later.
            let _ = self.writer.run(|tx| tx.write_rows()).await;
        }
        self.read_entries(job).await
    }

    /// The same for a read of nothing but entries and payloads, which never lag.
    pub(crate) async fn read_entries<T: Send + 'static>(
        &self,
        job: impl FnOnce(&store::Reader) -> Result<T, store::StoreError> + Send + 'static,
    ) -> Result<T, HubError> {
        let failed = |error: &dyn std::fmt::Display| {
            HubError::new(Code::Internal, format!("failed to read the log: {error}"))
        };
        let _permit = self
            .readers
            .permits
            .acquire()
            .await
            .map_err(|error| failed(&error))?;
        let readers = Arc::clone(&self.readers);
        let job = move || readers.run(job);
        if self.shared.ground.is_one_thread() {
            return job();
        }
        let done = tokio::task::spawn_blocking(job);
        done.await.map_err(|error| failed(&error))?
    }

    /// Reads a credential from where its manifest says. Never logged, never given to an agent.
    pub fn secret(&self, credential: &Credential) -> Result<String, HubError> {
        secret::credential(&self.shared.secrets, &self.shared.keys, credential)
    }

    /// Shim socket of a stdio server's instance: `Role::Bridge` after the hello.
    #[must_use]
    pub fn mcp_bridge(&self, registry: &str, tool: &str) -> Option<PathBuf> {
        read(&self.shared.bridges)
            .get(&format!("{registry}/{tool}"))
            .cloned()
    }

    /// Taken once: instances and their listeners; a newer one of an instance replaces the older.
    #[must_use]
    pub fn gateway_listeners(&self) -> mpsc::Receiver<(String, std::net::TcpListener)> {
        taken(&self.outlets.gateway)
    }

    /// Taken once.
    #[must_use]
    pub fn service_calls(&self) -> mpsc::Receiver<service::ServiceCall> {
        taken(&self.outlets.services)
    }

    /// Taken once.
    #[must_use]
    pub fn facade_listeners(&self) -> mpsc::Receiver<std::net::TcpListener> {
        taken(&self.outlets.facade)
    }

    /// Taken once: the command line's Unix socket.
    #[must_use]
    pub fn control_listeners(&self) -> mpsc::Receiver<std::os::unix::net::UnixListener> {
        taken(&self.outlets.control)
    }

    /// Taken once: monitors' own port.
    #[must_use]
    pub fn metrics_listeners(&self) -> mpsc::Receiver<std::net::TcpListener> {
        taken(&self.outlets.metrics)
    }

    /// Today's fleet.
    #[must_use]
    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&read(&self.shared.today))
    }

    /// Resolves when the hub stops: accept nothing new, drain.
    pub async fn stopping(&self) {
        let stopped = self.shared.stop.notified();
        tokio::pin!(stopped);
        stopped.as_mut().enable();
        if !self.is_stopping() {
            stopped.await;
        }
    }

    /// Is the hub stopping?
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::SeqCst)
    }

    /// Runs a task that the hub drains before it stops. It outlives the connection that began it.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        shared.spawned.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(Arc::clone(&shared));
        shared.ground.spawn(Box::pin(async move {
            let _counted = counted;
            tracing::trace!(task = name, "starts");
            future.await;
        }));
    }

    /// Waits until spawned tasks have ended, at most this long.
    pub(crate) async fn drain(&self, at_most: Duration) {
        let until = tokio::time::Instant::now() + at_most;
        while self.shared.spawned.load(Ordering::SeqCst) > 0 && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tasks are accepted.
    /// The same for the token that opens the metrics alone.
    #[must_use]
    pub fn check_metrics_token(&self, bearer: &str) -> bool {
        self.shared.keys.is_monitor(bearer)
    }

    #[must_use]
    pub fn ready(&self) -> bool {
        let is_ready = self.shared.ready.load(Ordering::SeqCst);
        is_ready && !self.is_stopping() && self.shared.can_record().is_ok()
    }

    /// The owner's bearer token for the facade.
    #[must_use]
    pub fn owner_token(&self) -> String {
        self.shared.keys.owner_token().to_owned()
    }

    /// Checks a bearer token in constant time.
    #[must_use]
    pub fn check_token(&self, bearer: &str) -> bool {
        self.shared.keys.is_owner(bearer)
    }

    /// The state's directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.shared.state_dir.clone()
    }
}

/// Counts a spawned task until it ends, however it ends.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.spawned.fetch_sub(1, Ordering::SeqCst);
    }
}
