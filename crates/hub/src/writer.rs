//! The one writer: takes jobs, decides each against its state, commits what has queued as one
//! transaction, and only then replies.
//!
//! A job runs on the writer's thread with a [`Tx`]. It checks first and emits afterwards: a job
//! that is rejected as wrong emits nothing, and a refusal that is a fact (a budget that refuses, a
//! task that is parked) is journaled before it is told. What an event changes is applied at once, so that later jobs of the
//! same batch see it; nobody outside sees it before the commit. If a commit fails the process
//! ends: a flush is never retried, and the hub never runs unrecorded.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::shared::Shared;
use crate::state::State;
use crate::tx::Tx;
use crate::{Code, HubError};

/// Jobs that may queue: beyond it callers wait.
const QUEUE: usize = 4096;
/// Jobs in one transaction.
const BATCH: usize = 512;

type Reply = Box<dyn FnOnce() + Send>;
type Job = Box<dyn FnOnce(&mut Tx<'_>) -> Reply + Send>;

/// The handle: sends jobs and waits for their commit.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread. What is returned with the handle ends when the logs are released.
    pub(crate) fn start(
        state: State,
        shared: Arc<Shared>,
    ) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (ends, ended) = oneshot::channel();
        if shared.ground.is_one_thread() {
            let ground = Arc::clone(&shared.ground);
            ground.spawn(Box::pin(run_here(state, shared, queue, ends)));
        } else {
            std::thread::Builder::new()
                .name("writer".into())
                .spawn(move || run(state, &shared, queue, ends))?;
        }
        Ok((Self { jobs }, ended))
    }

    /// Runs a job and returns its value after the commit that holds what it emitted.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tx<'_>) -> T + Send + 'static,
    ) -> Result<T, HubError> {
        let (reply, value) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let value = job(tx);
            Box::new(move || drop(reply.send(value)))
        });
        let stopped = || HubError::new(Code::Unavailable, "the hub is stopping");
        self.jobs.send(job).await.map_err(|_| stopped())?;
        value.await.map_err(|_| stopped())
    }

    /// Queues a job nobody waits for and that must not get lost: with a full queue it waits.
    pub(crate) fn post_all(&self, job: impl FnOnce(&mut Tx<'_>) + Send + 'static) {
        let job: Job = Box::new(move |tx| {
            job(tx);
            Box::new(|| {})
        });
        let Err(mpsc::error::TrySendError::Full(job)) = self.jobs.try_send(job) else {
            return;
        };
        // A thread and no task: it may be the writer itself that asks, which has no runtime.
        let jobs = self.jobs.clone();
        let waits = std::thread::Builder::new().spawn(move || drop(jobs.blocking_send(job)));
        if let Err(error) = waits {
            tracing::error!(%error, "a job is lost");
        }
    }

    /// Queues a job nobody waits for. Used for marks, which ride with the next commit anyway: if
    /// the queue is full the mark is dropped, and an answer may be repeated.
    pub(crate) fn post(&self, job: impl FnOnce(&mut Tx<'_>) + Send + 'static) {
        let _ = self.jobs.try_send(Box::new(move |tx| {
            job(tx);
            Box::new(|| {})
        }));
    }
}

/// A panic in a job leaves a state that may be half changed and was never recorded: the process
/// ends, as after a commit that failed, and the next hub reads what is durable.
struct EndsWithPanic(Arc<Shared>);

impl Drop for EndsWithPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a decision panicked: the hub ends");
            self.0.ground.end(70);
        }
    }
}

fn run(
    mut state: State,
    shared: &Arc<Shared>,
    mut queue: mpsc::Receiver<Job>,
    ends: oneshot::Sender<()>,
) {
    let _ends = EndsWithPanic(Arc::clone(shared));
    while let Some(first) = queue.blocking_recv() {
        match batch(&mut state, shared, first, &mut queue) {
            Next::Batch => {}
            Next::Close => break,
            Next::Lost => return,
        }
    }
    state.close();
    drop(ends);
}

/// The same on the thread of whoever asks.
async fn run_here(
    mut state: State,
    shared: Arc<Shared>,
    mut queue: mpsc::Receiver<Job>,
    ends: oneshot::Sender<()>,
) {
    let _ends = EndsWithPanic(Arc::clone(&shared));
    while let Some(first) = queue.recv().await {
        match batch(&mut state, &shared, first, &mut queue) {
            Next::Batch => {}
            Next::Close => break,
            Next::Lost => return,
        }
    }
    state.close();
    drop(ends);
}

/// What follows a batch.
enum Next {
    Batch,
    Close,
    /// The process ends.
    Lost,
}

/// Runs what has queued as one transaction.
fn batch(
    state: &mut State,
    shared: &Arc<Shared>,
    first: Job,
    queue: &mut mpsc::Receiver<Job>,
) -> Next {
    let mut tx = Tx::new(state, shared);
    let mut replies = vec![first(&mut tx)];
    while replies.len() < BATCH {
        match queue.try_recv() {
            Ok(job) => replies.push(job(&mut tx)),
            Err(_) => break,
        }
    }
    let after = match tx.commit() {
        Ok(after) => after,
        Err(error) => {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "failed to commit: the hub ends");
            // Nobody knows what is durable. The next hub reads it from the disk.
            shared.ground.end(74);
            return Next::Lost;
        }
    };
    // Published before the replies: whoever gets one may look.
    after.publish(shared);
    for reply in replies {
        reply();
    }
    if state.ends { Next::Close } else { Next::Batch }
}
