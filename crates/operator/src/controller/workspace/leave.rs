//! The end of a Workspace: its namespace goes with it if it was made for it; from one that was
//! adopted goes what was made there, and what somebody else put there stays.
//!
//! Owner references can't do that alone: pods belong to Agents, and those stay. So a Workspace that
//! adopted a namespace is held by a finalizer until they are gone. Volumes, and the Secret with the
//! key that opens what is on them, are left.

use api::kubernetes::HUB;
use kube::Error as KubeError;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use std::sync::Arc;
use std::time::Duration;

use super::namespace;
use crate::FIELD_MANAGER;
use crate::apply;
use crate::context::Context;
use crate::dereference::owner;
use crate::error::Error;
use crate::install::IN_WORKSPACE_ROLE;
use crate::object::Resource;
use crate::status::{self, Status};
use crate::verdict::Verdict;
use crate::world::{FINALIZER, Key, Written};

/// When its namespace is looked at again while what is in it isn't known: rights may have been
/// taken from us meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// Its end waits for us from now on; false if it has ended already.
pub(super) async fn hold(context: &Context, key: &Key, uid: &str) -> Result<bool, Error> {
    finalizers(context, key, uid, &[FINALIZER]).await
}

/// Does what is to be done at its end, as often as it is asked; nothing if it isn't ending.
pub(super) async fn leave(context: &Arc<Context>, key: &Key) -> Result<Option<Duration>, Error> {
    let namespace = &key.name;
    let written = context.world.written(key);
    match written {
        Some(written) if !written.deleting => return Ok(None),
        Some(written) if written.is_held => {
            if !emptied(context, key, &written).await? {
                return Ok(Some(AGAIN));
            }
            finalizers(context, key, &written.uid, &[]).await?;
        }
        _ => {}
    }
    context.homes.leave(context, namespace);
    // As `build::hub` names what of it is the cluster's.
    apply::forget(context, &format!("{HUB}:{namespace}"));
    for (other, _) in context.world.all_written(namespace) {
        if other != *key {
            context.push(other);
        }
    }
    Ok(None)
}

/// Whether nothing of ours is left in its namespace, or nothing there is ours to remove: it is gone
/// or going with all that is in it, or whoever owns it has taken it back.
async fn emptied(context: &Arc<Context>, key: &Key, written: &Written) -> Result<bool, Error> {
    let namespace = namespace::read(context, &key.name).await?;
    if !namespace.is_some_and(|namespace| namespace.is_given(&key.name)) {
        return Ok(true);
    }
    let emptied = empty(context, key, written).await;
    let verdict = match &emptied {
        Ok(_) => Verdict::waiting("Leaving", "what was made in its namespace is being removed"),
        Err(error) => Verdict::of_error(error),
    };
    status::update(context, key, written, Status::of(verdict)).await?;
    emptied
}

/// Removes what was made in its namespace, with the rights to do so; false if that isn't known yet.
async fn empty(context: &Arc<Context>, key: &Key, written: &Written) -> Result<bool, Error> {
    let namespace = &key.name;
    let owner = owner(key, written);
    let rights = crate::rbac::in_namespace(namespace, &owner, &context.namespace);
    apply::one_anew(context, &rights).await?;
    context.homes.watch(context, namespace);
    if !context.world.is_known(namespace) {
        return Ok(false);
    }
    for resource in Resource::WATCHED.into_iter().chain(Resource::OPTIONAL) {
        for name in context.world.owned_names(namespace, resource) {
            if !is_own_right(resource, &name) {
                apply::remove(context, resource, namespace, &name).await?;
            }
        }
    }
    Ok(true)
}

/// Goes with the Workspace, by its owner reference: until then the others are removed by it.
fn is_own_right(resource: Resource, name: &str) -> bool {
    resource == Resource::RoleBinding && name == IN_WORKSPACE_ROLE
}

/// False if there is no such object any more. With its uid: without one, a name that is free would
/// be taken by a new object.
async fn finalizers(
    context: &Context,
    key: &Key,
    uid: &str,
    finalizers: &[&str],
) -> Result<bool, Error> {
    let kind = custom_resource::resource(key.kind);
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &kind);
    let mut metadata = json!({"name": key.name, "uid": uid});
    if !finalizers.is_empty() {
        metadata["finalizers"] = Value::from(finalizers);
    }
    let body = json!({
        "apiVersion": api::API_VERSION, "kind": key.kind.name(), "metadata": metadata,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api
        .patch(&key.name, &parameters, &Patch::Apply(&body))
        .await
    {
        Ok(_) => {
            context.metrics.wrote(key.kind.name());
            Ok(true)
        }
        Err(KubeError::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(source) => Err(Error::Status { source }),
    }
}

#[cfg(test)]
mod tests;
