//! The namespaces of workspaces: each is watched from when it is adopted until it is let go.
//!
//! The operator has no right to look into other namespaces, so there is a set of watches for each,
//! and not one for the cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::{AbortHandle, JoinSet};

use crate::context::Context;
use crate::object::Resource;
use crate::watch;

/// The watches of each namespace; they end when they are dropped.
#[derive(Default)]
pub(crate) struct Homes {
    by_namespace: Mutex<HashMap<String, Watches>>,
}

#[derive(Default)]
struct Watches {
    all: JoinSet<()>,
    /// Those among them of kinds that come and go.
    optional: BTreeMap<Resource, AbortHandle>,
}

impl Homes {
    /// Watches a namespace, if it isn't watched already.
    pub(crate) fn watch(&self, context: &Arc<Context>, namespace: &str) {
        let mut homes = self.lock();
        if homes.contains_key(namespace) {
            return;
        }
        let mut watches = Watches::default();
        for resource in Resource::WATCHED {
            watches.owned(context, namespace, resource);
        }
        let pods = watch::pods(Arc::clone(context), namespace.to_owned());
        watches.all.spawn(pods);
        watches.keep(context, namespace);
        homes.insert(namespace.to_owned(), watches);
    }

    /// Watches in every namespace what there is now of kinds that come and go.
    pub(crate) fn watch_optional(&self, context: &Arc<Context>) {
        for (namespace, watches) in self.lock().iter_mut() {
            watches.keep(context, namespace);
        }
    }

    /// Looks there no more, and forgets what was there.
    pub(crate) fn leave(&self, context: &Context, namespace: &str) {
        if self.lock().remove(namespace).is_some() {
            context.world.forget(namespace);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watches>> {
        self.by_namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches {
    fn owned(
        &mut self,
        context: &Arc<Context>,
        namespace: &str,
        resource: Resource,
    ) -> AbortHandle {
        let watch = watch::owned(Arc::clone(context), namespace.to_owned(), resource);
        self.all.spawn(watch)
    }

    fn keep(&mut self, context: &Arc<Context>, namespace: &str) {
        let there = context.optional.there();
        for resource in &there {
            if !self.optional.contains_key(resource) {
                let watch = self.owned(context, namespace, *resource);
                self.optional.insert(*resource, watch);
            }
        }
        self.optional.retain(|resource, watch| {
            let is_there = there.contains(resource);
            if !is_there {
                watch.abort();
            }
            is_there
        });
    }
}
