//! What is made for a workspace of kinds that others define, where they are there.
//!
//! Each is written by itself, and none of them keeps the workspace from being ready: a definition of
//! another version may refuse what another takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Dereferenced;
use crate::apply;
use crate::build::{self, PolicyInput};
use crate::context::Context;
use crate::error::Error;
use crate::object::{Object, Resource};

/// Writes them, and returns what is wanted. Where the hub's calls are let through by name, its other
/// policy, which is in `tenancy`, leaves them out.
pub(super) async fn write(
    context: &Arc<Context>,
    found: &Dereferenced,
    state_key: &[u8],
    tenancy: &mut [Object],
) -> Vec<Object> {
    let wanted = wanted(&context.optional.there(), found, state_key);
    let mut is_by_name = false;
    for object in &wanted {
        match one(context, object).await {
            Ok(()) => is_by_name |= object.resource == Resource::CiliumNetworkPolicy,
            Err(error) => {
                let (namespace, name) = (&found.key.name, &object.name);
                let (kind, error) = (object.resource.kind(), &error as &dyn std::error::Error);
                tracing::warn!(
                    namespace,
                    kind,
                    name,
                    error,
                    "one of others' kinds isn't written"
                );
            }
        }
    }
    // What nobody can read now may name more, which the hub calls still.
    if is_by_name && !found.set.is_partial() {
        narrow(found, tenancy);
    }
    wanted
}

fn wanted(there: &BTreeSet<Resource>, found: &Dereferenced, state_key: &[u8]) -> Vec<Object> {
    let (name, owner, fleet) = (&found.key.name, &found.owner, &found.set.fleet);
    let mut wanted = Vec::new();
    if there.contains(&Resource::ServiceMonitor) {
        wanted.extend(build::monitor(name, owner, state_key));
    }
    if there.contains(&Resource::PrometheusRule) {
        wanted.push(build::alert_rules(name, owner));
    }
    if there.contains(&Resource::CiliumNetworkPolicy) {
        wanted.extend(build::by_name(name, owner, fleet));
    }
    wanted
}

async fn one(context: &Context, object: &Object) -> Result<(), Error> {
    match object.resource {
        // Secrets aren't watched.
        Resource::Secret => apply::one_anew(context, object).await,
        _ => apply::one(context, object).await,
    }
}

fn narrow(found: &Dereferenced, tenancy: &mut [Object]) {
    let narrow = build::policies(&PolicyInput {
        namespace: &found.key.name,
        owner: &found.owner,
        fleet: &found.set.fleet,
        api_server: &found.api_server,
        are_named_elsewhere: true,
    });
    for policy in narrow {
        let mut same = tenancy.iter_mut();
        let is_same = |it: &&mut Object| it.resource == policy.resource && it.name == policy.name;
        if let Some(object) = same.find(is_same) {
            *object = policy;
        }
    }
}
