//! The end of a Workspace: its namespace goes with it if it was made for it; from one that was
//! adopted goes what was made there, and what somebody else put there stays.
//!
//! Owner references can't do that alone: pods belong to Agents, and those stay. So a Workspace that
//! adopted a namespace is held by a finalizer until they are gone. Volumes, and the Secret with the
//! key that opens what is on them, are left.

use kube::Error as KubeError;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use std::sync::Arc;

use crate::FIELD_MANAGER;
use crate::apply;
use crate::context::Context;
use crate::error::Error;
use crate::install::IN_WORKSPACE_ROLE;
use crate::object::Resource;
use crate::watch::kind_resource;
use crate::world::{FINALIZER, Key};

/// Its end waits for us from now on.
pub(super) async fn hold(context: &Context, key: &Key) -> Result<(), Error> {
    finalizers(context, key, &[FINALIZER]).await
}

/// Does what is to be done at its end, as often as it is asked; nothing if it isn't ending.
pub(super) async fn leave(context: &Arc<Context>, key: &Key) -> Result<(), Error> {
    let namespace = &key.name;
    let written = context.world.written(key);
    if written.as_ref().is_some_and(|written| !written.deleting) {
        return Ok(());
    }
    if written.is_some_and(|written| written.is_held) {
        context.homes.watch(context, namespace);
        if !context.world.is_known(namespace) {
            // Looked at again when it is.
            return Ok(());
        }
        for resource in Resource::WATCHED {
            for name in context.world.owned_names(namespace, resource) {
                if !is_own_right(resource, &name) {
                    apply::remove(context, resource, namespace, &name).await?;
                }
            }
        }
        finalizers(context, key, &[]).await?;
    }
    context.homes.leave(context, namespace);
    for (other, _) in context.world.all_written(namespace) {
        if other != *key {
            context.push(other);
        }
    }
    Ok(())
}

/// Goes with the Workspace, by its owner reference: until then the others are removed by it.
fn is_own_right(resource: Resource, name: &str) -> bool {
    resource == Resource::RoleBinding && name == IN_WORKSPACE_ROLE
}

async fn finalizers(context: &Context, key: &Key, finalizers: &[&str]) -> Result<(), Error> {
    let kind = kind_resource(key.kind);
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &kind);
    let mut metadata = json!({"name": key.name});
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
            Ok(())
        }
        Err(KubeError::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Status { source }),
    }
}
