//! Workspace: a namespace, the rights to work in it, its hub and its tenancy.
//!
//! Theory: the namespace comes first and decides everything. One that we make is ours and goes with
//! the Workspace; one that is there has to be labelled for the Workspace by whoever owns it. Only
//! then are rights taken in it, and only with those is anything else looked at.

mod keys;
mod leave;
mod namespace;
mod others;
mod partial;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::Store;
use api::kubernetes::HUB;
use contract::pod::FACADE_PORT;
use serde_json::{Value, json};

use super::volume;
use crate::apply;
use crate::build::{self, HubInput, PolicyInput};
use crate::context::Context;
use crate::dereference::owner;
use crate::error::Error;
use crate::object::{Object, Owner, Resource};
use crate::resolve::Set;
use crate::status::{self, Status};
use crate::verdict::Verdict;
use crate::world::{Key, PodOwner, Written};
use namespace::Namespace;

/// When a namespace that is going is looked at again.
const SOON: Duration = Duration::from_secs(2);

pub(super) async fn reconcile(
    context: &Arc<Context>,
    key: &Key,
) -> Result<Option<Duration>, Error> {
    let Some(found) = dereference(context, key).await? else {
        return leave::leave(context, key).await;
    };
    let validated = validate(found);
    let prepared = prepare(context, validated);
    let applied = apply(context, prepared).await;
    update_status(context, applied).await
}

struct Dereferenced {
    key: Key,
    written: Arc<Written>,
    owner: Owner,
    set: Arc<Set>,
    namespace: Option<Namespace>,
    api_server: Vec<(String, u16)>,
}

/// The namespace is its own, or may become it; or why not.
struct Validated {
    found: Dereferenced,
    outcome: Result<(), Verdict>,
}

/// Built, but for what depends on the hub's keys.
struct Prepared {
    found: Dereferenced,
    outcome: Result<Objects, Verdict>,
}

struct Objects {
    /// What makes it possible to write the others.
    rights: Object,
    tenancy: Vec<Object>,
    hub: HubParts,
}

struct HubParts {
    store_bytes: u64,
    secrets: BTreeSet<String>,
}

struct Applied {
    found: Dereferenced,
    outcome: Result<(), Verdict>,
    fixed: Option<String>,
    failed: Result<(), Error>,
}

async fn dereference(context: &Arc<Context>, key: &Key) -> Result<Option<Dereferenced>, Error> {
    let world = &context.world;
    let written = world.written(key);
    let Some(written) = written.filter(|written| !written.deleting) else {
        return Ok(None);
    };
    let set = world
        .set(&key.name)
        .filter(|set| set.knows(key.kind, &key.name, &written));
    let Some(set) = set else { return Ok(None) };
    Ok(Some(Dereferenced {
        owner: owner(key, &written),
        namespace: namespace::read(context, &key.name).await?,
        key: key.clone(),
        written,
        set,
        api_server: world.api_server(),
    }))
}

fn validate(found: Dereferenced) -> Validated {
    let refused = found.set.refused(found.key.kind, &found.key.name);
    let refusal = refused.map(|refused| Verdict::invalid(&refused.problems, refused.kept));
    let refusal = refusal.or_else(|| namespace::refusal(&found.key.name, found.namespace.as_ref()));
    Validated {
        outcome: refusal.map_or(Ok(()), Err),
        found,
    }
}

fn prepare(context: &Context, validated: Validated) -> Prepared {
    let Validated { found, outcome } = validated;
    let outcome = outcome.map(|()| objects(context, &found));
    Prepared { found, outcome }
}

fn objects(context: &Context, found: &Dereferenced) -> Objects {
    let (name, owner, fleet) = (&found.key.name, &found.owner, &found.set.fleet);
    let mut tenancy = build::tenancy(name, owner, &fleet.quota);
    tenancy.extend(build::members(name, owner, &fleet.members));
    tenancy.extend(build::policies(&PolicyInput {
        namespace: name,
        owner,
        fleet,
        api_server: &found.api_server,
        are_named_elsewhere: false,
    }));
    let Store::Sqlite { size_bytes } = fleet.store;
    Objects {
        rights: crate::rbac::in_namespace(name, owner, &context.namespace),
        tenancy,
        hub: HubParts {
            store_bytes: size_bytes,
            secrets: found.set.secrets.clone(),
        },
    }
}

async fn apply(context: &Arc<Context>, prepared: Prepared) -> Applied {
    let Prepared { found, outcome } = prepared;
    let objects = match outcome {
        Ok(objects) => objects,
        Err(verdict) => {
            return Applied {
                found,
                outcome: Err(verdict),
                fixed: None,
                failed: Ok(()),
            };
        }
    };
    let written = write(context, &found, objects).await;
    let mut fixed = None;
    let (outcome, failed) = match written {
        Ok(Ok(told)) => {
            fixed = told;
            (Ok(()), Ok(()))
        }
        Ok(Err(verdict)) => (Err(verdict), Ok(())),
        Err(error) => (Err(Verdict::of_error(&error)), Err(error)),
    };
    Applied {
        found,
        outcome,
        fixed,
        failed,
    }
}

/// In the order in which each makes the next possible. Returns what is told of the hub's volume.
async fn write(
    context: &Arc<Context>,
    found: &Dereferenced,
    objects: Objects,
) -> Result<Result<Option<String>, Verdict>, Error> {
    let Objects {
        rights,
        mut tenancy,
        mut hub,
    } = objects;
    let name = &found.key.name;
    namespace::write(context, &found.owner, found.namespace.as_ref()).await?;
    let is_adopted = found
        .namespace
        .as_ref()
        .is_some_and(|it| !it.is_owned_by(&found.owner.uid));
    if is_adopted && !found.written.is_held {
        let is_there = leave::hold(context, &found.key, &found.owner.uid).await?;
        if !is_there {
            return Ok(Err(Verdict::waiting("Leaving", "it was deleted")));
        }
    }
    apply::one(context, &rights).await?;
    context.homes.watch(context, name);
    if !context.world.is_known(name) {
        let wait = Verdict::waiting("Adopting", "what is in its namespace is being looked at");
        return Ok(Err(wait));
    }
    let keys = match keys::keys(context, &found.owner).await? {
        Ok(keys) => keys,
        Err(verdict) => return Ok(Err(verdict)),
    };
    if found.set.is_partial() {
        hub.secrets.extend(partial::secrets(context, name).await?);
        partial::widen(context, name, &mut tenancy).await?;
    }
    let others = others::write(context, found, &keys.state_key, &mut tenancy).await;
    let mut hub = build::hub(&HubInput {
        namespace: name,
        owner: &found.owner,
        image: &context.image,
        store_bytes: hub.store_bytes,
        secrets: hub.secrets,
        authority: &keys.authority,
    });
    let fixed = volume::keep_size(&context.world, &mut hub, "spec.store.sqlite.size");
    let mut wanted: Vec<Object> = std::iter::once(rights).chain(tenancy).chain(hub).collect();
    apply::beside(context, &wanted).await?;
    wanted.extend(others);
    apply::orphans(context, name, &found.owner.uid, &wanted).await?;
    Ok(Ok(fixed))
}

async fn update_status(
    context: &Arc<Context>,
    applied: Applied,
) -> Result<Option<Duration>, Error> {
    let Applied {
        found,
        outcome,
        fixed,
        failed,
    } = applied;
    let is_going = found.namespace.as_ref().is_some_and(Namespace::is_going);
    let is_adopted = outcome.is_ok();
    let verdict = match outcome {
        Err(verdict) => verdict,
        Ok(()) => of_hub(context, &found.key.name),
    };
    let hub = json!({
        "ready": verdict.is_ready,
        "address": format!("{HUB}.{}.svc:{FACADE_PORT}", found.key.name),
    });
    let mut status = Status::of(verdict);
    status.fixed = fixed;
    if is_adopted {
        status
            .fields
            .insert("namespace".to_owned(), Value::from(found.key.name.as_str()));
        status.fields.insert("hub".to_owned(), hub);
    }
    status::update(context, &found.key, &found.written, status).await?;
    if !is_adopted && !context.world.is_known(&found.key.name) {
        // What is in the namespace is told that it waits for this.
        for (other, _) in context.world.all_written(&found.key.name) {
            if other != found.key {
                context.push(other);
            }
        }
    }
    failed.map(|()| is_going.then_some(SOON))
}

fn of_hub(context: &Context, namespace: &str) -> Verdict {
    let owned = context.world.owned(namespace, Resource::StatefulSet, HUB);
    let workload = owned.and_then(|owned| owned.workload);
    let pods = context.world.pods_of(namespace, &PodOwner::Hub);
    let verdict = Verdict::of_workload(workload.as_ref(), &pods, &context.image);
    match verdict.is_ready {
        true => Verdict::ready(&verdict.reason, "its hub is ready"),
        false => verdict.of_part("its hub"),
    }
}
