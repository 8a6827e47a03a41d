//! The namespaces of workspaces: each is watched from when it is adopted until it is let go.
//!
//! The operator has no right to look into other namespaces, so there is a set of watches for each,
//! and not one for the cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::context::Context;
use crate::object::Resource;
use crate::watch;

/// The watches of each namespace; they end when they are dropped.
#[derive(Default)]
pub(crate) struct Homes {
    by_namespace: Mutex<HashMap<String, JoinSet<()>>>,
}

impl Homes {
    /// Watches a namespace, if it isn't watched already.
    pub(crate) fn watch(&self, context: &Arc<Context>, namespace: &str) {
        let mut homes = self
            .by_namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if homes.contains_key(namespace) {
            return;
        }
        let mut watches = JoinSet::new();
        for resource in Resource::WATCHED {
            watches.spawn(watch::owned(
                Arc::clone(context),
                namespace.to_owned(),
                resource,
            ));
        }
        watches.spawn(watch::pods(Arc::clone(context), namespace.to_owned()));
        homes.insert(namespace.to_owned(), watches);
    }

    /// Looks there no more, and forgets what was there.
    pub(crate) fn leave(&self, context: &Context, namespace: &str) {
        let mut homes = self
            .by_namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if homes.remove(namespace).is_some() {
            context.world.forget(namespace);
        }
    }
}
