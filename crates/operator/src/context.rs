//! What every reconcile is given: the cluster, what is known of it, and where to put more work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::Notify;

use crate::apply::Answers;
use crate::homes::Homes;
use crate::metrics::Metrics;
use crate::optional::Optional;
use crate::queue::Queue;
use crate::resolve::Pace;
use crate::world::{Key, World};
use api::Knowledge;

/// Passed to everything; holds no decisions.
pub(crate) struct Context {
    pub(crate) client: Client,
    /// Mainstay's own image.
    pub(crate) image: String,
    /// Where images are pulled from that nobody named.
    pub(crate) image_prefix: Option<String>,
    /// The operator's namespace.
    pub(crate) namespace: String,
    pub(crate) checks: Knowledge,
    pub(crate) world: World,
    pub(crate) homes: Homes,
    pub(crate) answers: Answers,
    pub(crate) metrics: Metrics,
    pub(crate) optional: Optional,
    pub(crate) recorder: Recorder,
    queue: Mutex<Queue<Key>>,
    pace: Mutex<Pace>,
    /// Something was pushed.
    pub(crate) pushed: Notify,
    /// A namespace's objects changed.
    pub(crate) changed: Notify,
}

impl Context {
    pub(crate) fn new(client: Client, image: String, namespace: String, checks: Knowledge) -> Self {
        let reporter = Reporter {
            controller: crate::FIELD_MANAGER.to_owned(),
            instance: std::env::var("POD_NAME").ok(),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            image,
            image_prefix: None,
            namespace,
            checks,
            world: World::default(),
            homes: Homes::default(),
            answers: Answers::default(),
            metrics: Metrics::default(),
            queue: Mutex::new(Queue::new()),
            optional: Optional::default(),
            pace: Mutex::new(Pace::default()),
            pushed: Notify::new(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue<Key>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an object looked at now.
    pub(crate) fn push(&self, key: Key) {
        self.queue().push(key, Instant::now());
        self.pushed.notify_one();
    }

    /// Has a namespace resolved soon.
    pub(crate) fn set_changed(&self, namespace: &str) {
        self.pace().changed(namespace, Instant::now());
        self.changed.notify_one();
    }

    /// Has everything of a namespace looked at.
    pub(crate) fn push_all(&self, namespace: &str) {
        for (key, _) in self.world.all_written(namespace) {
            self.push(key);
        }
    }
}
