//! The fourth step: makes the cluster have the objects that were built, and nothing that was built
//! before and isn't now.
//!
//! Server-side apply by one field manager. An object that is there as it was applied is not
//! written; one that somebody else changed is written again, up to a few times a minute; one of
//! that name that isn't ours is left alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{Api, DeleteParams, Patch, PatchParams, ValidationDirective};
use kube::core::DynamicObject;
use kube::{Client, Error as KubeError};

use crate::FIELD_MANAGER;
use crate::context::Context;
use crate::error::Error;
use crate::object::{Object, Resource};
use crate::world::Owned;

/// So many writes against somebody else are made in a [`WINDOW`].
const ANSWERS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Where what is known of the cluster's own objects is kept.
const NOWHERE: &str = "";

/// Writes against others, by object.
#[derive(Default)]
pub(crate) struct Answers {
    by_object: Mutex<HashMap<(Resource, String, String), Vec<Instant>>>,
}

impl Answers {
    /// Whether one more is in order; notes it if so.
    fn may(&self, object: &Object, now: Instant) -> bool {
        let namespace = object.namespace.clone().unwrap_or_default();
        let key = (object.resource, namespace, object.name.clone());
        let mut by_object = self
            .by_object
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        by_object.retain(|_, times| times.iter().any(|time| now.duration_since(*time) < WINDOW));
        let times = by_object.entry(key).or_default();
        times.retain(|time| now.duration_since(*time) < WINDOW);
        if times.len() >= ANSWERS {
            return false;
        }
        times.push(now);
        true
    }
}

/// Where objects of a kind lie.
pub(crate) fn api(
    client: &Client,
    resource: Resource,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let kind = resource.api_resource();
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

/// Makes the cluster have these objects of an owner, and nothing else of it in the namespace. If
/// one of them can't be ours, none is written.
pub(crate) async fn objects(
    context: &Context,
    namespace: &str,
    owner_uid: &str,
    objects: &[Object],
) -> Result<(), Error> {
    beside(context, objects).await?;
    orphans(context, namespace, owner_uid, objects).await
}

/// Makes the cluster have these objects, beside what is there. If one of them can't be ours, none
/// is written.
pub(crate) async fn beside(context: &Context, objects: &[Object]) -> Result<(), Error> {
    let mut found = Vec::with_capacity(objects.len());
    for object in objects {
        let owned = known(context, object).await?;
        if owned
            .as_ref()
            .is_some_and(|owned| !owned.is_for(&object.owner) && !may_adopt(object))
        {
            return Err(Error::Taken {
                resource: object.resource,
                name: object.name.clone(),
            });
        }
        found.push(owned);
    }
    for (object, owned) in objects.iter().zip(found) {
        renew(context, object, owned).await?;
    }
    Ok(())
}

/// One object alone, which others need to be written at all.
pub(crate) async fn one(context: &Context, object: &Object) -> Result<(), Error> {
    let owned = known(context, object).await?;
    match owned {
        Some(owned) if !owned.is_for(&object.owner) => Err(Error::Taken {
            resource: object.resource,
            name: object.name.clone(),
        }),
        owned => renew(context, object, owned).await,
    }
}

/// The same, as the API server has it now: what is known of a namespace may be old without it.
pub(crate) async fn one_anew(context: &Context, object: &Object) -> Result<(), Error> {
    if let Some(namespace) = &object.namespace {
        let world = &context.world;
        world.remove_owned(namespace, object.resource, &object.name);
    }
    one(context, object).await
}

/// Makes the cluster have it, if it hasn't.
async fn renew(context: &Context, object: &Object, owned: Option<Owned>) -> Result<(), Error> {
    match owned {
        // Once it is gone, its owner is looked at again.
        Some(owned) if owned.deleting => Ok(()),
        Some(owned) if !owned.differs(&object.hash) => Ok(()),
        Some(owned) => {
            let meddled = owned.is_ours && owned.is_meddled_with();
            if meddled && !context.answers.may(object, Instant::now()) {
                return Err(contested(object, &owned));
            }
            write(context, object, owned.foreign.map(|(time, _)| time)).await
        }
        None => write(context, object, None).await,
    }
}

/// The account that every namespace has is made by Kubernetes, and made safe by us.
fn may_adopt(object: &Object) -> bool {
    object.resource == Resource::ServiceAccount && object.name == "default"
}

fn contested(object: &Object, owned: &Owned) -> Error {
    let manager = owned.foreign.as_ref().map(|(_, manager)| manager.clone());
    Error::Contested {
        resource: object.resource,
        name: object.name.clone(),
        manager: manager.unwrap_or_else(|| "something".to_owned()),
    }
}

/// What is there: from what is watched, else asked for.
async fn known(context: &Context, object: &Object) -> Result<Option<Owned>, Error> {
    if let Some(namespace) = &object.namespace {
        let owned = context
            .world
            .owned(namespace, object.resource, &object.name);
        if owned.is_some() {
            return Ok(owned);
        }
    }
    asked(context, object).await
}

/// What is there, by the API server.
async fn asked(context: &Context, object: &Object) -> Result<Option<Owned>, Error> {
    let found = api(
        &context.client,
        object.resource,
        object.namespace.as_deref(),
    )
    .get_metadata_opt(&object.name)
    .await
    .map_err(|source| Error::Read {
        resource: object.resource.to_string(),
        name: object.name.clone(),
        source,
    })?;
    let found = found.map(|found| Owned::read(&found.metadata, &serde_json::Value::Null));
    match &object.namespace {
        Some(namespace) => {
            // Secrets aren't watched, and one that isn't wanted any more has to be known to be removed.
            if object.resource == Resource::Secret
                && let Some(found) = &found
            {
                let world = &context.world;
                world.put_owned(namespace, object.resource, &object.name, found.clone());
            }
            Ok(found)
        }
        None => Ok(with_answer(context, object, found)),
    }
}

/// What is the cluster's isn't watched, and always asked for; what of it was answered is kept
/// under a namespace without a name.
fn with_answer(context: &Context, object: &Object, found: Option<Owned>) -> Option<Owned> {
    let (world, resource, name) = (&context.world, object.resource, object.name.as_str());
    match found {
        Some(found) => world.put_owned(NOWHERE, resource, name, found),
        None => world.remove_owned(NOWHERE, resource, name),
    }
    world.owned(NOWHERE, resource, name)
}

/// Lets go of what is kept of the cluster's own objects of a name.
pub(crate) fn forget(context: &Context, name: &str) {
    for resource in [Resource::ClusterRole, Resource::ClusterRoleBinding] {
        context.world.remove_owned(NOWHERE, resource, name);
    }
}

async fn write(
    context: &Context,
    object: &Object,
    answered: Option<k8s_openapi::jiff::Timestamp>,
) -> Result<(), Error> {
    let parameters = PatchParams {
        force: true,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        field_validation: Some(ValidationDirective::Strict),
        dry_run: false,
    };
    let written = api(
        &context.client,
        object.resource,
        object.namespace.as_deref(),
    )
    .patch(&object.name, &parameters, &Patch::Apply(&object.body))
    .await
    .map_err(|source| Error::Write {
        resource: object.resource,
        name: object.name.clone(),
        source,
    })?;
    context.metrics.wrote(object.resource.kind());
    let namespace = object.namespace.as_deref().unwrap_or(NOWHERE);
    let mut owned = Owned::read(&written.metadata, &written.data);
    owned.applied_generation = Some(owned.generation);
    owned.answered = answered;
    context
        .world
        .put_owned(namespace, object.resource, &object.name, owned);
    Ok(())
}

/// Removes what an owner has and doesn't want any more.
pub(crate) async fn orphans(
    context: &Context,
    namespace: &str,
    owner_uid: &str,
    wanted: &[Object],
) -> Result<(), Error> {
    let is_wanted = |resource: Resource, name: &str| {
        let mut wanted = wanted.iter();
        wanted.any(|object| object.resource == resource && object.name == name)
    };
    for (resource, name) in context.world.owned_by(namespace, owner_uid) {
        if is_wanted(resource, &name) {
            continue;
        }
        remove(context, resource, namespace, &name).await?;
    }
    Ok(())
}

/// Removes an object, with what was made of it.
pub(crate) async fn remove(
    context: &Context,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<(), Error> {
    let removed = api(&context.client, resource, Some(namespace))
        .delete(name, &DeleteParams::background())
        .await;
    match removed {
        Ok(_) => context.metrics.wrote(resource.kind()),
        Err(KubeError::Api(status)) if status.code == 404 => {}
        Err(source) => {
            return Err(Error::Remove {
                resource,
                name: name.to_owned(),
                source,
            });
        }
    }
    context.world.remove_owned(namespace, resource, name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Answer, Fake};
    use crate::object::{Owner, Place};
    use serde_json::json;

    #[tokio::test]
    async fn another_writer_of_a_cluster_wide_object_is_answered_once() {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        let place = Place {
            namespace: None,
            component: "hub",
            owner: &owner,
        };
        let object = place.object(Resource::ClusterRole, "r", &[], json!({"rules": []}));
        let entry = |manager: &str, time: &str| json!({"manager": manager, "time": time, "operation": "Update"});
        let mut there = object.body.clone();
        there["metadata"]["resourceVersion"] = json!("7");
        // Their label stays: our write says nothing of it, and so the object stays as it is.
        there["metadata"]["managedFields"] = json!([
            entry(FIELD_MANAGER, "2026-01-01T00:00:05Z"),
            entry("kubectl-label", "2026-01-01T00:00:09Z"),
        ]);
        let fake = Fake::start(move |_| Some(Answer::Say(200, there.clone()))).await;
        let context = fake.context();
        for _ in 0..ANSWERS + 2 {
            one(&context, &object).await.unwrap();
        }
        assert_eq!(fake.count("PATCH", "/clusterroles/r"), 1);
        forget(&context, "r");
        assert_eq!(
            context.world.owned(NOWHERE, Resource::ClusterRole, "r"),
            None
        );
    }

    #[test]
    fn a_fight_is_given_up_for_a_while() {
        let object = Object {
            resource: Resource::Deployment,
            namespace: Some("n".to_owned()),
            name: "a".to_owned(),
            owner: "Agent/a".to_owned(),
            hash: String::new(),
            body: json!({}),
        };
        let (answers, now) = (Answers::default(), Instant::now());
        let made = (0..10).filter(|_| answers.may(&object, now)).count();
        assert_eq!(made, ANSWERS);
        assert!(answers.may(&object, now + WINDOW));
    }
}
