//! The operator's process: watches, then leads, then reconciles until it is told to end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::{Kind, Knowledge};
use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::admission::{self, Admission};
use crate::context::Context;
use crate::controller;
use crate::error::{Category, Error};
use crate::health::{self, Health};
use crate::lease::Claim;
use crate::optional;
use crate::resolve;
use crate::watch;
use crate::world::Key;

/// So many objects are looked at at once.
const AT_ONCE: usize = 16;
/// What nothing is waited for longer than.
const IDLE: Duration = Duration::from_secs(60);
/// What reconciles under way have to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What an operator is started with.
pub struct Options {
    pub client: Client,
    /// Mainstay's own image, for hubs, shims and built-in agents.
    pub image: String,
    /// Where images are pulled from that nobody named.
    pub image_prefix: Option<String>,
    /// The namespace it lives in, and its lease.
    pub namespace: String,
    /// Who it is among several operators.
    pub name: String,
    /// Its own port, for probes and metrics.
    pub listen: SocketAddr,
    /// Where the API server asks about objects before they are written.
    pub admission: SocketAddr,
    /// The folder with the authority that it trusts for that.
    pub authority: PathBuf,
    pub checks: Knowledge,
}

/// Why an operator ends.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("listen on {address}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("keep the lease: another operator leads now")]
    LeaseLost,
}

/// Runs until `stop` is ready, or the lease is lost.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), ServiceError> {
    let Options {
        client,
        image,
        image_prefix,
        namespace,
        name,
        listen,
        admission,
        authority,
        checks,
    } = options;
    let listener = bind(listen).await?;
    let admissions = bind(admission).await?;
    let admission = Admission {
        authority,
        namespace: namespace.clone(),
        checks,
    };
    let mut context = Context::new(client.clone(), image, namespace.clone(), checks);
    context.image_prefix = image_prefix;
    let context = Arc::new(context);
    let health = Arc::new(Health {
        context: Arc::clone(&context),
        leads: AtomicBool::new(false),
        is_ready: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(health::serve(listener, Arc::clone(&health)));
    tasks.spawn(admission::serve(admissions, admission));
    tasks.spawn(readiness(Arc::clone(&context), Arc::clone(&health)));
    for kind in Kind::ALL {
        tasks.spawn(watch::written(Arc::clone(&context), kind));
    }
    tokio::pin!(stop);
    let mut claim = Claim::new(client, &namespace, name);
    tokio::select! {
        () = claim.won() => {}
        () = &mut stop => return Ok(()),
    }
    tracing::info!("this operator leads");
    health.leads.store(true, Ordering::Relaxed);
    tasks.spawn(watch::namespaces(Arc::clone(&context)));
    tasks.spawn(watch::api_server(Arc::clone(&context)));
    tasks.spawn(optional::follow(Arc::clone(&context)));
    tasks.spawn(resolutions(Arc::clone(&context)));
    let ended = tokio::select! {
        () = reconciles(&context) => Ok(()),
        () = claim.lost() => Err(ServiceError::LeaseLost),
        () = &mut stop => Ok(()),
    };
    drop(tasks);
    if ended.is_ok() {
        let _late = tokio::time::timeout(LAST_WORDS, claim.give_back()).await;
    }
    ended
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| ServiceError::Listen { address, source })
}

/// Ready once all five kinds could be listed.
async fn readiness(context: Arc<Context>, health: Arc<Health>) {
    while !context.world.is_whole() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    health.is_ready.store(true, Ordering::Relaxed);
}

/// Resolves namespaces as they change.
async fn resolutions(context: Arc<Context>) {
    loop {
        let now = Instant::now();
        let due = context
            .world
            .is_whole()
            .then(|| context.pace().pop(now))
            .flatten();
        if let Some(namespace) = due {
            resolve_one(&context, namespace).await;
            continue;
        }
        let next = context.pace().next().filter(|_| context.world.is_whole());
        let next = next.map_or(IDLE, |next| next.saturating_duration_since(now));
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = context.changed.notified() => {}
        }
    }
}

async fn resolve_one(context: &Arc<Context>, namespace: String) {
    let own = Arc::clone(context);
    let of = namespace.clone();
    let started = Instant::now();
    // Thousands of objects take a while, and others wait for this thread.
    let work = move || resolve::renew(&own.world, &of, own.checks);
    match tokio::task::spawn_blocking(work).await {
        Ok(changed) => {
            for key in changed {
                context.push(key);
            }
        }
        Err(panicked) => {
            let error = &panicked as &dyn std::error::Error;
            tracing::error!(namespace, error, "a workspace couldn't be resolved");
        }
    }
    context.metrics.resolved();
    context
        .pace()
        .took(&namespace, Instant::now(), started.elapsed());
}

/// Looks at objects as they are due, each at most once at a time.
async fn reconciles(context: &Arc<Context>) {
    let mut running: JoinSet<(Key, Result<Option<Duration>, Error>)> = JoinSet::new();
    loop {
        while running.len() < AT_ONCE {
            let Some(key) = context.queue().pop(Instant::now()) else {
                break;
            };
            let context = Arc::clone(context);
            running.spawn(async move {
                let outcome = controller::reconcile(&context, &key).await;
                (key, outcome)
            });
        }
        let next = context.queue().next().filter(|_| running.len() < AT_ONCE);
        let next = next.map_or(IDLE, |next| next.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = context.pushed.notified() => {}
            Some(ended) = running.join_next() => match ended {
                Ok((key, outcome)) => settle(context, key, outcome),
                // A key that is never given back is never looked at again: end, and begin anew.
                Err(panicked) => {
                    let error = &panicked as &dyn std::error::Error;
                    tracing::error!(error, "a reconcile broke off");
                    return;
                }
            },
        }
    }
}

fn settle(context: &Context, key: Key, outcome: Result<Option<Duration>, Error>) {
    let kind = key.kind.name();
    context.metrics.reconciled(kind);
    let now = Instant::now();
    match outcome {
        Ok(again) => context.queue().succeeded(key, now, again),
        Err(error) => {
            let category = error.category();
            context.metrics.failed(kind, category.name());
            let object = key.to_string();
            let rest = match error.rest() {
                Some(rest) => {
                    context.queue().succeeded(key, now, Some(rest));
                    rest
                }
                None => context.queue().failed(key, now),
            };
            let error = &error as &dyn std::error::Error;
            let (category, rest_ms) = (category.name(), rest.as_millis());
            if category == Category::Internal.name() {
                tracing::error!(object, category, rest_ms, error, "a reconcile failed");
            } else {
                tracing::warn!(object, category, rest_ms, error, "a reconcile failed");
            }
        }
    }
}
